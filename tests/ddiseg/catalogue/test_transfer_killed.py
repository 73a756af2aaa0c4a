"""Copies of a catalogue that are killed at any moment."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from ddiseg.catalogue import Catalogue, plain_rows
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.marks import UnfinishedCopyError
from ddiseg.catalogue.transfer import transfer
from ddiseg.errors import NoSchemaError
from ddiseg.outcomes import Outcome
from tests.ddiseg.rows import new_image
from tests.forks import FORKS

pytestmark = pytest.mark.process

KILLS = 10


def _copy(source: str, target: str, rows: int, seconds: float) -> None:
    """Copy, and die at a moment as a killed process does: without any tidying up."""
    plain_rows.PART = 7
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    start = None

    def step(done: int, _total: int) -> None:
        nonlocal start
        start = done if start is None else start
        if done - start >= rows:
            os.kill(os.getpid(), signal.SIGKILL)

    transfer(Database(source), Database(target), progress=step)


@pytest.mark.postgres
@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_killed_at_random__ends_equal(
    catalogue: Catalogue, catalogue_url: str, emptied_url: str, tmp_path: Path, to: str
) -> None:
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in range(200)], "tester")
    target = emptied_url if to == "postgresql" else f"sqlite:///{tmp_path / 'copy.sqlite'}"
    chance, killed = random.Random(3), 0
    for number in range(KILLS):
        # Half of them after some rows, half at any time: in a transaction, or while the schema is made.
        moment = (chance.randint(1, 90), 60.0) if number % 2 else (10**6, chance.uniform(0.01, 0.3))
        process = FORKS.Process(target=_copy, args=(catalogue_url, target, *moment))
        process.start()
        process.join()
        if process.exitcode == 0:  # a fast machine: it was through before the kill
            break
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGALRM)
        killed += 1
        _assert_not_used(target)
    assert killed >= KILLS / 3
    source, copy = Database(catalogue_url), Database(target)
    done, again = transfer(source, copy), transfer(source, copy)
    assert done.found
    assert not done.restarted
    assert again.outcome is Outcome.UNCHANGED
    assert again.total == 1 + 4 * 200, (
        "a dataset, and the images with their events, sources and groups"
    )
    for database in (source, copy):
        database.engine.dispose()


def _assert_not_used(url: str) -> None:
    """Check that a catalogue can't be opened, or that its copy has not begun."""
    try:
        opened = Catalogue.open(url)
    except (UnfinishedCopyError, NoSchemaError):
        return
    assert opened.images.counts() == {}
    opened.close()
