"""Clicks of a simulated person, and the two methods that ours is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.click_methods import GrabCut, RandomWalker, discs, laplacian
from benchmarks.clicks import CLICKS, corrected, innermost
from benchmarks.photographs import LESION, SKIN, Photograph
from fedd.clicks import Click
from fedd.probes.pixels import Example


def _disc(radius: float = 12, size: int = 60) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:size, :size]
    found: NDArray[np.bool_] = (rows - 25) ** 2 + (columns - 30) ** 2 <= radius**2
    return found


def _photograph(lesion: NDArray[np.bool_]) -> Photograph:
    rng = np.random.default_rng(0)
    pixels = np.where(lesion[..., None], [110, 70, 60], [220, 180, 160]) + rng.integers(
        -6, 7, (*lesion.shape, 3)
    )
    mask = np.where(lesion, LESION, SKIN).astype(np.uint8)
    return Photograph(Example(pixels.astype(np.uint8), mask, "p"), "p", "NEV", "learn10")


@pytest.mark.parametrize("method", [GrabCut, RandomWalker])
def test_method__one_click_finds_a_dark_disc(method: type[GrabCut] | type[RandomWalker]) -> None:
    photograph = _photograph(_disc())
    region = method(photograph.example.photograph).region([Click(30, 25)])
    both = (region & photograph.lesion).sum() / (region | photograph.lesion).sum()
    assert region.shape == photograph.lesion.shape
    assert both > 0.9


@pytest.mark.parametrize("method", [GrabCut, RandomWalker])
def test_method__negative_click_takes_a_disc_away(
    method: type[GrabCut] | type[RandomWalker],
) -> None:
    lesion = np.hstack([_disc(), _disc()])
    pixels = _photograph(lesion).example.photograph
    left, right = Click(30, 25), Click(90, 25, positive=False)
    region = method(pixels).region([left, right])
    assert region[25, 30]
    assert not region[25, 90]


def test_laplacian__rows_sum_to_zero_and_edges_are_weak() -> None:
    found = laplacian(_photograph(_disc()).example.photograph)
    assert np.abs(np.asarray(found.sum(1))).max() < 1e-9
    centre = 25 * 60 + 30
    assert -found[centre, centre + 1] > 100 * -found[25 * 60 + 42, 25 * 60 + 43]  # across the rim


def test_discs__a_click_is_on_at_least_one_position() -> None:
    found = discs([Click(59, 0)], (60, 60), (12, 12), 0.0)
    assert np.argwhere(found).tolist() == [[0, 11]]


class _Grows:
    """A region that is right after the third click."""

    def __init__(self, truth: NDArray[np.bool_]) -> None:
        self.truth, self.clicks = truth, 0

    def region(self, clicks: Sequence[Click]) -> NDArray[np.bool_]:
        self.clicks = len(clicks)
        found = self.truth.copy()
        if self.clicks < 3:
            found[25:] = False
        return found


def test_corrected__stops_at_the_goal() -> None:
    photograph = _photograph(_disc())
    done = corrected(photograph, _Grows(photograph.lesion))
    assert done.needed == 3
    assert [done.reached(n) for n in (1, 2, 3, 10)] == [False, False, True, True]


class _TooMuch:
    """Never leaves the strip below the lesion."""

    def __init__(self) -> None:
        self.clicks: list[Click] = []

    def region(self, clicks: Sequence[Click]) -> NDArray[np.bool_]:
        self.clicks = list(clicks)
        found = _disc()
        found[45:] = True
        return found


def test_corrected__gives_up_and_clicks_on_the_largest_error() -> None:
    photograph, method = _photograph(_disc()), _TooMuch()
    done = corrected(photograph, method)
    assert done.needed == CLICKS
    assert not done.reached(CLICKS)
    assert (method.clicks[0].y, method.clicks[0].x, method.clicks[0].positive) == (25, 30, True)
    assert not method.clicks[1].positive


def test_innermost__of_the_largest_part() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:4, 2:4] = mask[10:15, 10:15] = True
    assert innermost(mask) == (12, 12)
