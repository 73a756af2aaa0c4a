"""kill -9 of prelabel at any moment, again and again: no prediction is lost or doubled."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddiseg.ingest.photographs import import_photographs
from ddiseg.model import prediction_writer
from ddiseg.model.predict import prelabel
from ddiseg.model.train import Refreshed
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.fedd.conftest import spot
from tests.forks import FORKS

#: DDISEG_PRELABEL_KILLS=300 for as many as before a release.
KILLS = int(os.environ.get("DDISEG_PRELABEL_KILLS", "12"))

#: Photographs that are added to those of `spots`.
MORE = 140

pytestmark = pytest.mark.process


def test_prelabel__killed_at_random_moments(
    spots: Workspace,
    learn: Callable[..., Refreshed],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Some kills hit the start, the others come after some of the files that are still to come."""
    learn(spots)
    _add_photographs(spots, tmp_path / "more")
    images = len(spots.catalogue.images.select())
    rng = random.Random(0)
    started = _seconds_until_started(spots, tmp_path / "copy")
    kept, ended = [0], 0
    for kill in range(KILLS):
        if kill % 5 == 0:
            moment = _After(seconds=rng.uniform(0, started))
        else:
            most = min(3 * images // KILLS, images - kept[-1])
            moment = _After(files=rng.randint(0, most // 2), seconds=rng.uniform(0, 0.02))
        ended += _run(spots.root, moment)
        kept.append(_check(spots))
        assert kept[-1] >= kept[-2], "a prediction was lost"
    assert _run(spots.root)
    assert _check(spots) == images
    assert verify(spots).problems == []
    _, outcomes = prelabel(spots, spots.catalogue.images.select())
    assert {o.outcome.value for o in outcomes} == {"unchanged"}
    with capsys.disabled():
        sys.stdout.write(
            f"\nof {images} images, predicted after each of {KILLS} kills: {kept[1:]}; "
            f"{ended} ended before\n"
        )
    assert ended < KILLS / 2
    assert len(set(kept)) > KILLS / 6, "the kills hit while predictions were stored"


def _add_photographs(workspace: Workspace, folder: Path) -> None:
    folder.mkdir()
    for number in range(100, 100 + MORE):
        Image.fromarray(spot(number)[0]).save(folder / f"{number}.png")
    import_photographs(workspace, folder)


@dataclass(frozen=True)
class _After:
    """A moment: so many seconds after so many more files are in the store."""

    seconds: float
    files: int = 0


def _seconds_until_started(workspace: Workspace, copy: Path) -> float:
    """Return the seconds of a run over one image of a copy."""
    shutil.copytree(workspace.root, copy)
    _run(copy, images=0)  # the first process that is forked waits for the imports
    begun = time.monotonic()
    assert _run(copy, images=1)
    return time.monotonic() - begun


def _run(root: Path, kill: _After | None = None, images: int | None = None) -> bool:
    """Run prelabel in a process of its own, and kill it at a moment; whether it ended before."""
    process = FORKS.Process(target=_prelabel, args=(root, images))
    there = _count_masks(root)
    process.start()
    if kill is None:
        process.join()
    else:
        while process.exitcode is None and _count_masks(root) < there + kill.files:
            time.sleep(0.001)
        process.join(kill.seconds)
    ended = process.exitcode is not None
    process.kill()
    process.join()
    assert not ended or process.exitcode == 0, "prelabel failed"
    process.close()
    return ended


def _count_masks(root: Path) -> int:
    """Return the number of files of masks, of those that a running process writes, too."""
    return sum(len(files) for _, _, files in os.walk(root / "store" / "masks"))


def _prelabel(root: Path, images: int | None) -> None:
    torch.set_num_threads(1)
    prediction_writer.TRANSACTION = 4
    workspace = Workspace.open(root)
    prelabel(workspace, workspace.catalogue.images.select()[:images])
    workspace.catalogue.close()


def _check(workspace: Workspace) -> int:
    """Check what is stored of predictions; return their number."""
    rows = [m for m in workspace.catalogue.masks.all() if m.model_version_id is not None]
    for row in rows:
        workspace.mask(row)  # it is there, whole
    assert workspace.catalogue.events.contradictions() == []
    assert max(Counter(row.image_id for row in rows).values(), default=1) == 1
    return len(rows)
