"""kill -9 of prelabel at any moment, again and again: no prediction is lost or doubled."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
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
KILLS = int(os.environ.get("DDISEG_PRELABEL_KILLS", "30"))

#: Photographs that are added to those of `spots`.
MORE = 140

pytestmark = pytest.mark.process


def test_prelabel__killed_at_random_moments(
    spots: Workspace,
    learn: Callable[..., Refreshed],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The moments are spread so that the kills reach from the start to after the last image."""
    learn(spots)
    _add_photographs(spots, tmp_path / "more")
    images = len(spots.catalogue.images.select())
    rng = random.Random(0)
    started, whole = _predict_all_of_a_copy(spots, tmp_path / "copy")
    kept, ended = [0], 0
    for _ in range(KILLS):
        ended += _run(spots.root, rng.uniform(0, started + 2 * (whole - started) / KILLS))
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


def _predict_all_of_a_copy(workspace: Workspace, copy: Path) -> tuple[float, float]:
    """Return the seconds of a run over one image, and over all."""
    shutil.copytree(workspace.root, copy)
    _run(copy, images=0)  # the first process that is forked waits for the imports
    seconds = []
    for images in (1, None):
        begun = time.monotonic()
        assert _run(copy, images=images)
        seconds.append(time.monotonic() - begun)
    return seconds[0], seconds[1]


def _run(root: Path, kill_after: float | None = None, images: int | None = None) -> bool:
    """Run prelabel in a process of its own, and kill it after so many seconds; whether it ended before."""
    process = FORKS.Process(target=_prelabel, args=(root, images))
    process.start()
    process.join(kill_after)
    ended = process.exitcode is not None
    process.kill()
    process.join()
    assert not ended or process.exitcode == 0, "prelabel failed"
    process.close()
    return ended


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
