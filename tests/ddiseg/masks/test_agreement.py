"""Kappa against scikit-learn, boundary distances against every pair of boundary pixels."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from annotation_protocol.metrics import confusion
from ddiseg.errors import InputError
from ddiseg.masks import Mask
from ddiseg.masks.agreement import BoundaryDistance, boundary_distance, cohen_kappa
from tests.wording import Refusal

sides = st.integers(1, 9)
pairs = hnp.arrays(
    np.uint8,
    st.tuples(st.just(2), sides, sides),
    elements=st.integers(0, 4),
    fill=st.integers(0, 4),
)
region_pairs = hnp.arrays(np.bool_, st.tuples(st.just(2), sides, sides), fill=st.booleans())


@pytest.mark.property
@given(pairs)
def test_cohen_kappa__as_scikit_learn(pair: Mask) -> None:
    one, other = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where kappa is not defined
        oracle = cohen_kappa_score(one.ravel(), other.ravel(), labels=range(5))
    assert cohen_kappa(confusion(one, other, 5)) == pytest.approx(oracle, nan_ok=True)


def test_cohen_kappa__by_hand() -> None:
    # 100 pixels, 70 agreed; by chance 60 x 50 + 40 x 50 of 100 x 100, one half.
    assert cohen_kappa(np.array([[40, 20], [10, 30]])) == pytest.approx((0.7 - 0.5) / (1 - 0.5))


def test_cohen_kappa__undefined_where_there_is_one_class_or_no_pixel() -> None:
    assert math.isnan(cohen_kappa(np.array([[0, 0], [0, 9]])))
    assert math.isnan(cohen_kappa(np.zeros((5, 5), np.int64)))
    assert cohen_kappa(np.array([[0, 9], [0, 0]])) == 0


def test_cohen_kappa__more_pixels_than_a_product_in_64_bits_holds() -> None:
    many = 10**12
    found = cohen_kappa(np.array([[4 * many, 2 * many], [many, 3 * many]]))
    assert found == pytest.approx((0.7 - 0.5) / (1 - 0.5))


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 2), (4,)])
def test_cohen_kappa__refused(shape: tuple[int, ...], refusal: Refusal) -> None:
    with refusal(InputError):
        cohen_kappa(np.zeros(shape, np.int64))


def boundary_pixels(region: NDArray[np.bool_]) -> list[tuple[int, int]]:
    inside = {(int(y), int(x)) for y, x in np.argwhere(region)}
    return [
        (y, x)
        for y, x in sorted(inside)
        if not {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} <= inside
    ]


@pytest.mark.property
@given(region_pairs)
def test_boundary_distance__as_every_pair_of_pixels(pair: NDArray[np.bool_]) -> None:
    one, other = boundary_pixels(pair[0]), boundary_pixels(pair[1])
    assume(one and other)
    there = [min(math.dist(p, q) for q in other) for p in one]
    back = [min(math.dist(p, q) for q in one) for p in other]
    found = boundary_distance(pair[0], pair[1])
    assert found.mean == pytest.approx(np.mean(there + back))
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert boundary_distance(pair[1], pair[0]) == found


@pytest.mark.property
@given(region_pairs)
def test_boundary_distance__nan_exactly_where_a_region_is_empty(pair: NDArray[np.bool_]) -> None:
    found = boundary_distance(pair[0], pair[1])
    empty = not (pair[0].any() and pair[1].any())
    assert math.isnan(found.mean) == math.isnan(found.hd95) == empty


def test_boundary_distance__squares_by_hand() -> None:
    # A 3 x 3 square and the same moved 2 to the right; all but the centre is boundary, 8 pixels.
    one, other = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    one[10:13, 20:23] = True
    other[10:13, 22:25] = True
    # Three of the one are 2 away from the other's left column, two are 1 away, three are on it.
    assert boundary_distance(one, other) == BoundaryDistance(mean=(3 * 2 + 2 * 1) / 8, hd95=2)
    assert boundary_distance(one, one) == BoundaryDistance(0, 0)


def test_boundary_distance__picture_edge_is_a_boundary() -> None:
    one, other = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    other[4, 4] = True
    found = boundary_distance(one, other)
    assert found.hd95 == pytest.approx(math.hypot(4, 4))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((2, 2), np.uint8), np.ones((2, 2), bool)),
        (np.ones((2, 2), bool), np.ones((1, 2, 2), bool)),
        (np.ones((2, 2), bool), np.ones((2, 3), bool)),
    ],
)
def test_boundary_distance__refused(a: Any, b: Any, refusal: Refusal) -> None:
    with refusal(InputError):
        boundary_distance(a, b)
