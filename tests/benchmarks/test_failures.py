"""Kinds of failure by rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import failures, reads
from benchmarks.failures import Outcome, count, draw
from benchmarks.photographs import LESION, SKIN, Photograph, Source
from fedd.probes.pixels import Example

SIZE = 60


def _square(top: int, left: int, side: int) -> NDArray[np.bool_]:
    found = np.zeros((SIZE, SIZE), bool)
    found[top : top + side, left : left + side] = True
    return found


TRUTH = _square(20, 20, 20)


def _outcome(predicted: NDArray[np.bool_], pixels: NDArray[np.uint8] | None = None) -> Outcome:
    if pixels is None:
        pixels = np.full((SIZE, SIZE, 3), (220, 180, 160), np.uint8)
    mask = np.where(TRUTH, LESION, SKIN).astype(np.uint8)
    photograph = Photograph(Example(pixels, mask, "p", "I-II"), "a.png", "NEV", "test")
    iou = (predicted & TRUTH).sum() / (predicted | TRUTH).sum()
    return Outcome(photograph, predicted, float(iou))


@pytest.mark.parametrize(
    ("predicted", "kinds"),
    [
        (TRUTH, []),
        (np.zeros_like(TRUTH), ["missed"]),
        (_square(45, 45, 12), ["wrong place"]),
        (_square(10, 10, 40), ["too large"]),
        (_square(25, 25, 10), ["too small"]),
        (TRUTH | _square(50, 50, 8), ["satellites"]),
    ],
)
def test_kinds__of_shape(predicted: NDArray[np.bool_], kinds: list[str]) -> None:
    assert _outcome(predicted).kinds() == kinds


@pytest.mark.parametrize(
    ("colour", "kind"), [((220, 120, 110), "redness"), ((120, 110, 190), "ink")]
)
def test_kinds__of_colour(colour: tuple[int, int, int], kind: str) -> None:
    pixels = np.full((SIZE, SIZE, 3), (220, 180, 160), np.uint8)
    around = _square(10, 10, 40)
    pixels[around & ~TRUTH] = colour
    assert kind in _outcome(around, pixels).kinds()


def test_count__only_failures_have_kinds() -> None:
    outcomes = [_outcome(TRUTH), _outcome(_square(10, 10, 40))]
    lines = list(count(outcomes, Source.PAD300, Source.PAD_HAND))
    assert lines[0] == ("pad300", "pad_hand", "all", "2", "1", "too large 1")
    assert lines[1][2] == "lesion 2 to 15 %"


def test_draw__a_sheet(tmp_path: Path) -> None:
    draw([_outcome(TRUTH), _outcome(np.zeros_like(TRUTH))], "two", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_arguments__no_pictures_inside_the_repository(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        failures._arguments(["--out", str(reads.ROOT / "docs")])
    assert "inside the repository" in capsys.readouterr().err
