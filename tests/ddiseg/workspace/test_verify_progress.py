"""A check of all files that was stopped goes on, and never skips what it has not read as it is catalogued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ddiseg.workspace import verify_progress
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import Part, verify
from ddiseg.workspace.workspace import Workspace


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_progress, "_EVERY", 0.0)
    monkeypatch.setattr("ddiseg.workspace.verify_files._AT_ONCE", 1)


class _StoppedError(Exception):
    pass


def _stop_after(files: int, workspace: Workspace) -> None:
    def stop(done: int, _total: int) -> None:
        if done == files:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        verify(workspace, stop)


def _remove(workspace: Workspace, kind: Kind, digest: str) -> None:
    Path(workspace.store.path(kind, digest)).unlink()


def test_verify__goes_on_where_it_was_stopped(filled: Workspace) -> None:
    _stop_after(2, filled)
    began = (filled.root / verify_progress.FILE).read_bytes().split(b"\n")[0].split()[-1].decode()
    again = verify(filled)
    assert (again.skipped, again.began) == (2, began)
    assert again.checked == {"images": 3, "masks": 1, "models": 0}
    assert not again.problems


def test_verify__whole_check_reads_everything_the_next_time(filled: Workspace) -> None:
    _stop_after(2, filled)
    verify(filled)
    assert not (filled.root / verify_progress.FILE).exists()
    first = filled.catalogue.images.find("1.png")
    _remove(filled, Kind.IMAGE, first.content_hash)
    again = verify(filled)
    assert (again.skipped, [p.part for p in again.problems]) == (0, [Part.IMAGE])


def test_verify__restart_reads_everything(filled: Workspace) -> None:
    _stop_after(2, filled)
    first = filled.catalogue.images.find("1.png")
    _remove(filled, Kind.IMAGE, first.content_hash)
    assert not verify(filled).problems, "found whole before it was removed"
    _stop_after(2, filled)
    assert [p.part for p in verify(filled, restart=True).problems] == [Part.IMAGE]


def test_verify__damage_is_told_again_by_the_check_that_goes_on(filled: Workspace) -> None:
    first = filled.catalogue.images.find("1.png")
    _remove(filled, Kind.IMAGE, first.content_hash)
    _stop_after(3, filled)
    again = verify(filled)
    assert (again.skipped, [p.part for p in again.problems]) == (2, [Part.IMAGE])


def test_verify__row_that_changed_is_checked_again(filled: Workspace, tmp_path: Path) -> None:
    first = filled.catalogue.images.find("1.png")
    _stop_after(3, filled)
    filled.catalogue.images.move(first.id, str(tmp_path / "gone.png"), "tester")
    again = verify(filled)
    assert (again.skipped, [p.part for p in again.problems]) == (2, [Part.IMAGE])


def test_verify__other_mask_of_the_same_file_is_checked_again(filled: Workspace) -> None:
    _stop_after(4, filled)
    mask = filled.catalogue.masks.all()[0]
    filled.store_mask(np.zeros((6, 8), np.uint8))
    with filled.catalogue.masks._database.write() as session:
        from sqlalchemy import insert

        from ddiseg.catalogue.tables import Mask

        row = {c.name: getattr(mask, c.name) for c in Mask.__table__.columns if c.name != "id"}
        session.execute(insert(Mask), [{**row, "annotator": "another", "unlabelled": 7}])
    again = verify(filled)
    assert (again.skipped, [p.part for p in again.problems]) == (3, [Part.MASK])


@pytest.mark.parametrize("damage", ["old", "cut", "other"])
def test_verify__progress_that_does_not_count(filled: Workspace, damage: str) -> None:
    _stop_after(3, filled)
    file = filled.root / verify_progress.FILE
    if damage == "old":
        long_ago = time.time() - verify_progress._LASTS - 60
        os.utime(file, (long_ago, long_ago))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.write_bytes(b"something else\n" + bytes(64))
    assert verify(filled).skipped == {"old": 0, "cut": 2, "other": 0}[damage]


def test_verify__cache_that_cannot_be_written(filled: Workspace) -> None:
    (filled.root / "cache").write_text("no folder")
    assert not verify(filled).problems


KILLED = """
import os, signal, sys
from pathlib import Path
from ddiseg.workspace import verify_files, verify_progress
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace

verify_progress._EVERY, verify_files._AT_ONCE = 0.0, 1

def kill(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

verify(Workspace.open(Path(sys.argv[1])), kill)
"""


@pytest.mark.process
def test_verify__killed_then_again(filled: Workspace) -> None:
    command = [sys.executable, "-c", KILLED, str(filled.root)]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    again = verify(filled)
    assert (again.skipped, again.problems) == (2, [])
