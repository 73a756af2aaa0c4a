"""Resizing by matrices and of borders only, against F.interpolate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fedd import bilinear
from fedd.bilinear import matrix, most_probable


def peer(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], shape, mode="bilinear", align_corners=False)[0]


def smooth(seed: int, classes: int, height: int, width: int) -> Tensor:
    """Probabilities with regions, as of a model."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(classes, 3, 3, generator=rng) * 4
    return peer(coarse, (height, width)).softmax(0)


@pytest.mark.parametrize(("n", "m"), [(64, 16), (64, 64), (7, 30), (5, 1), (1, 4)])
def test_matrix__resizes_as_interpolate_does(n: int, m: int) -> None:
    maps = torch.randn(3, m, m)
    resize = matrix(n, m, maps.device)
    torch.testing.assert_close(resize @ maps @ resize.T, peer(maps, (n, n)))


@pytest.mark.property
@given(
    st.integers(0, 99),
    st.integers(1, 5),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_most_probable__interpolated_and_then_chosen(
    seed: int, classes: int, h: int, w: int, height: int, width: int
) -> None:
    probabilities = smooth(seed, classes, h, w)
    full = peer(probabilities, (height, width))
    found = most_probable(probabilities, (height, width)).long()
    chosen = full.gather(0, found[None])[0]
    # Rounding may decide a tie.
    torch.testing.assert_close(chosen, full.amax(0), rtol=0, atol=1e-5)


def test_most_probable__a_class_between_two_others() -> None:
    """The third class is nowhere the most probable at a position, but it is halfway between two."""
    probabilities = torch.tensor([[0.55, 0.0], [0.0, 0.55], [0.45, 0.45]])[:, None]
    assert most_probable(probabilities, (1, 8)).tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


@pytest.mark.parametrize("strip", [bilinear.STRIP, 40])
def test_most_probable__noise_and_large_maps_in_strips(
    monkeypatch: pytest.MonkeyPatch, strip: int
) -> None:
    monkeypatch.setattr(bilinear, "STRIP", strip)
    probabilities = torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(0))
    expected = peer(probabilities, (31, 17)).argmax(0)
    assert torch.equal(most_probable(probabilities, (31, 17)).long(), expected)


def test_most_probable__only_borders_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    interpolated = []
    at = bilinear._at

    def counting(
        probabilities: Tensor, rows: bilinear.Neighbours, columns: bilinear.Neighbours
    ) -> Tensor:
        interpolated.append(len(rows.first))
        return at(probabilities, rows, columns)

    monkeypatch.setattr(bilinear, "_at", counting)
    halves = torch.zeros(2, 32, 32)
    halves[0, :16], halves[1, 16:] = 1, 1
    assert torch.equal(most_probable(halves, (320, 320)).long(), peer(halves, (320, 320)).argmax(0))
    assert interpolated == [10 * 320], "the rows between the halves"
