"""Faults of the places beyond this machine, met end to end on PostgreSQL, S3 and Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ddiseg.model.train import Refreshed
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.compute.drive import PATIENCE, Stored, said, start, workspace
from tests.fedd.conftest import spot
from tests.object_store import READER, ObjectStore

__all__ = ["workspace"]

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A folder of photographs that are not imported yet."""
    folder = tmp_path / "more"
    folder.mkdir()
    for seed in range(100, 106):
        Image.fromarray(spot(seed)[0]).save(folder / f"{seed}.png")
    return folder


def test_two_engines_at_once_on_one_image_set(
    spots: Workspace, learn: Callable[..., Refreshed], ray_address: str, more: Path
) -> None:
    learn(spots)
    runs = [
        start(spots.root, job, address, more)
        for job in ("import", "prelabel")
        for address in (None, ray_address)
    ]
    for run in runs:
        run.join(PATIENCE)
        assert run.exitcode == 0, said(more)
    last = start(
        spots.root, "prelabel", None, more
    )  # of what was imported after the others had begun
    last.join(PATIENCE)
    assert last.exitcode == 0, said(more)
    stored = Stored.read(spots.root)
    assert stored.photographs.total() == stored.predictions.total() == 9 + 6
    assert stored.doubled == 0
    assert verify(spots).problems == []


@pytest.mark.parametrize("job", ["import", "prelabel"])
def test_store_is_read_only(
    job: str,
    spots: Workspace,
    learn: Callable[..., Refreshed],
    ray_address: str,
    object_store: ObjectStore,
    more: Path,
) -> None:
    learn(spots)
    before, keys = Stored.read(spots.root), object_store.keys()
    run = start(spots.root, job, None, more, {"AWS_ACCESS_KEY_ID": READER})
    run.join(PATIENCE)
    assert run.exitcode == 1, said(more)
    assert "access was denied" in said(more)
    assert Stored.read(spots.root) == before
    assert object_store.keys() == keys
