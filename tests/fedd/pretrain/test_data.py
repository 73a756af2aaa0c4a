from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from annotation_protocol import UNLABELLED
from annotation_protocol.phantoms.phantoms import LESION, MARKER, RULER
from fedd.errors import TrainingDataError
from fedd.pretrain import data as module
from fedd.pretrain.data import PHANTOM_SIZE, PretrainingData, gather
from fedd.pretrain.settings import PretrainSettings
from tests.wording import Refusal

SETTINGS = PretrainSettings(batch_size=8, phantoms=3)

#: Skin that no rendered phantom has: greenish grey, and redder than it is blue.
SKIN_COLOUR = (120, 130, 80)


class _InProcess:
    """A pool that renders here: workers take a second to start."""

    def __enter__(self) -> _InProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, task: Any, *given: Any, chunksize: int) -> Iterator[Any]:
        return map(task, *given)


@pytest.fixture(autouse=True)
def rendered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ProcessPoolExecutor", _InProcess)


def _photograph(folder: Path, name: str, colour: tuple[int, int, int]) -> dict[Path, torch.Tensor]:
    picture = np.full((64, 64, 3), colour, np.uint8)
    Image.fromarray(picture).save(folder / name)
    return {folder / name: torch.from_numpy(picture).permute(2, 0, 1).contiguous()}


def _like_the_skin(phantoms: torch.Tensor) -> torch.Tensor:
    """Return which phantoms have the photograph's colour at the left, in the median."""
    colours = phantoms[..., 0].float().median(-1).values  # (N, 3)
    return (colours - torch.tensor(SKIN_COLOUR)).abs().amax(1) < 25


@pytest.mark.parametrize(("share", "on_skin"), [(0.0, 0), (0.34, 1), (1.0, 3)])
def test_gather__share_of_phantoms_on_the_photographs_skin(
    share: float, on_skin: int, tmp_path: Path
) -> None:
    shown = _photograph(tmp_path, "a.png", SKIN_COLOUR)
    data = gather(shown, replace(SETTINGS, composite_share=share), tmp_path / "phantoms.npz")
    assert data.phantoms.shape == (3, 3, PHANTOM_SIZE, PHANTOM_SIZE)
    assert int(_like_the_skin(data.phantoms).sum()) == on_skin
    assert all((mask == LESION).any() for mask in data.masks)


def test_gather__no_bare_skin_in_some(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shown = _photograph(tmp_path, "a.png", SKIN_COLOUR) | _photograph(tmp_path, "b.png", (0, 0, 0))
    with caplog.at_level(logging.INFO, "fedd"):
        gather(shown, replace(SETTINGS, composite_share=1.0), tmp_path / "phantoms.npz")
    assert caplog.messages[-1] == "1 of 3 phantoms: no bare skin, drawn on rendered skin"


def test_gather__no_bare_skin_at_all(tmp_path: Path, refusal: Refusal) -> None:
    shown = _photograph(tmp_path, "a.png", (0, 0, 0))
    with refusal(TrainingDataError):
        gather(shown, replace(SETTINGS, composite_share=1.0), tmp_path / "phantoms.npz")
    assert not (tmp_path / "phantoms.npz").exists()


def _data(side: int = 64) -> PretrainingData:
    """Photographs whose left half is dark, and phantoms that are all lesion."""
    photographs = torch.full((2, 3, side, side), 200, dtype=torch.uint8)
    photographs[..., : side // 2] = 40
    phantoms = torch.full((2, 3, side, side), 90, dtype=torch.uint8)
    return PretrainingData(
        photographs, phantoms, torch.full((2, side, side), LESION, dtype=torch.uint8)
    )


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_batch__pairs_differ_by_pen_and_ruler_only() -> None:
    settings = replace(SETTINGS, batch_size=16, pair_share=0.25)
    batch = _data().batch(settings, 32, _rng())
    assert (len(batch.images), len(batch.masks), batch.pairs) == (16, 10, 2)
    # 4 photographs, 2 images without, 2 with, 8 phantoms; masks are of the last ten.
    without, over, drawn = batch.images[4:6], batch.images[6:8], batch.masks[:2] != UNLABELLED
    assert drawn.any((1, 2)).all()
    assert set(torch.unique(batch.masks[:2]).tolist()) <= {MARKER, RULER, UNLABELLED}
    changed = (without != over).any(1)
    assert (changed & drawn).sum() > 0.9 * drawn.sum()
    assert (changed & ~drawn).float().mean() < 0.15
    assert (batch.masks[2:] == LESION).any()


def test_batch__without_pairs_and_phantoms() -> None:
    batch = _data().batch(replace(SETTINGS, phantoms=0), 32, _rng())
    assert batch.images.shape == (8, 3, 32, 32)
    assert len(batch.masks) == batch.pairs == 0


def test_batch__zoom_is_the_width_of_the_view() -> None:
    """A narrow view rarely sees the edge in the middle; one of the whole photograph always does."""

    def edges(zoom: tuple[float, float]) -> float:
        settings = replace(SETTINGS, batch_size=64, phantoms=0, zoom=zoom)
        images = _data().batch(settings, 32, _rng()).images
        return float((images.amax((1, 2, 3)) - images.amin((1, 2, 3)) > 0.5).float().mean())

    assert edges((0.1, 0.1)) < 0.6
    assert edges((1.0, 1.0)) > 0.95
