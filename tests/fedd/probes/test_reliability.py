"""The expected IoU beside the one that was reached, of patients that it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedd.probes.quality import ClassQuality
from fedd.probes.reliability import FEWEST, reliability, spearman


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_spearman__as_scipy(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import rankdata

    one, other = np.array(pairs, float).T
    if len({*one}) < 2 or len({*other}) < 2:
        assert np.isnan(spearman(one, other))
        return
    expected = np.corrcoef(rankdata(one), rankdata(other))[0, 1]
    assert spearman(one, other) == pytest.approx(expected)


def cases(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numbers of predictions whose IoU follows their stability."""
    rng = np.random.default_rng(seed)
    stability = rng.uniform(0.2, 1, n)
    numbers = np.stack([stability, stability, np.full(n, -1.2), np.full(n, 0.8)], 1)
    return numbers, (stability + rng.normal(0, 0.03, n)).clip(0, 1)


def test_reliability__every_prediction_in_one_bin_and_close_to_what_was_reached() -> None:
    numbers, iou = cases(60)
    found = reliability(numbers, iou, [f"p{k}" for k in range(60)], ClassQuality())
    assert found is not None
    assert sum(each.n for each in found.bins) == 60
    assert all(each.low <= each.expected <= each.high for each in found.bins)
    assert all(abs(each.expected - each.reached) < 0.15 for each in found.bins)
    assert found.spearman.value is not None
    assert found.spearman.value > 0.95
    assert found.spearman.n == found.spearman.groups == 60
    assert found.spearman.interval is not None
    assert found.to_dict()["spearman"]["value"] == found.spearman.value


def test_reliability__nothing_is_expected_by_a_patient_s_own_masks() -> None:
    """One patient's IoU is far from what all others make expect: his own masks must not tell."""
    numbers, iou = cases(60)
    patients = [f"p{k}" for k in range(50)] + ["odd"] * 10
    turned = iou.copy()
    turned[50:] = 0.0
    numbers[50:, :2] = 0.95
    found = reliability(numbers, turned, patients, ClassQuality())
    assert found is not None
    top = found.bins[-1]
    assert top.expected - top.reached > 0.2


def test_reliability__too_rarely_predicted() -> None:
    numbers, iou = cases(FEWEST)
    patients = [f"p{k}" for k in range(FEWEST)]
    assert reliability(numbers, iou, patients, ClassQuality()) is not None
    numbers[0, 3] = 0  # no region
    assert reliability(numbers, iou, patients, ClassQuality()) is None


def test_reliability__few_patients_no_interval() -> None:
    numbers, iou = cases(20)
    found = reliability(numbers, iou, [f"p{k // 4}" for k in range(20)], ClassQuality())
    assert found is not None
    assert found.spearman.value is not None
    assert found.spearman.interval is None
