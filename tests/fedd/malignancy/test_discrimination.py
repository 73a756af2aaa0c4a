from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedd.malignancy.discrimination import (
    accuracy,
    best_threshold,
    discrimination,
    discrimination_by_tone,
    f1,
    roc_auc,
    roc_curve,
)
from tests.wording import Refusal

TRUTH = np.array([True, True, False, False, True, False])
SCORES = np.array([0.9, 0.7, 0.6, 0.2, 0.3, 0.1])
PATIENTS = list("abcdef")


def test_discrimination__by_hand() -> None:
    found = discrimination(TRUTH, SCORES, PATIENTS, 0.65)
    assert found.roc_auc.value == pytest.approx(8 / 9)
    assert found.f1.value == pytest.approx(4 / 5)
    assert found.accuracy.value == pytest.approx(5 / 6)
    assert (found.n, found.malignant, found.roc_auc.groups) == (6, 3, 6)
    for estimate in (found.roc_auc, found.f1, found.accuracy):
        assert estimate.low < estimate.value <= estimate.high


def test_discrimination__from_the_threshold_up_is_malignant() -> None:
    assert discrimination(TRUTH, SCORES, PATIENTS, 0.3).f1.value == pytest.approx(6 / 7)


@pytest.mark.parametrize("truth", [np.ones(4, bool), np.zeros(4, bool), np.zeros(0, bool)])
def test_discrimination__one_class_says_nothing(truth: np.ndarray) -> None:
    found = discrimination(truth, np.linspace(0, 1, len(truth)), list("abcd")[: len(truth)], 0.5)
    assert found.to_json() == {
        **dict.fromkeys(("roc_auc", "f1", "accuracy")),
        **dict.fromkeys(("roc_auc_ci95", "f1_ci95", "accuracy_ci95")),
        "threshold": 0.5,
        "n": len(truth),
        "malignant": int(truth.sum()),
        "patients": len(truth),
    }


@pytest.mark.parametrize(
    ("patients", "enough"), [("aacdae", False), ("abcccc", False), ("abcdbe", True)]
)
def test_discrimination__no_interval_with_one_patient_of_a_class(
    patients: str, enough: bool
) -> None:
    found = discrimination(TRUTH, SCORES, list(patients), 0.5)
    assert found.roc_auc.value is not None
    assert (found.roc_auc.interval is not None) is enough


def test_discrimination__patients_are_sampled_not_images() -> None:
    """Each image ten times over, of the same patients, tells no more than once."""
    once = discrimination(TRUTH, SCORES, PATIENTS, 0.65)
    tenfold = discrimination(np.tile(TRUTH, 10), np.tile(SCORES, 10), PATIENTS * 10, 0.65)
    assert tenfold.n == 60
    assert tenfold.roc_auc.interval == pytest.approx(once.roc_auc.interval)
    as_if_others = discrimination(
        np.tile(TRUTH, 10), np.tile(SCORES, 10), [str(n) for n in range(60)], 0.65
    )
    assert as_if_others.roc_auc.interval is not None
    assert once.roc_auc.interval is not None
    assert as_if_others.roc_auc.interval[0] > once.roc_auc.interval[0]


def test_discrimination__same_seed_same_interval() -> None:
    one, again, other = (discrimination(TRUTH, SCORES, PATIENTS, 0.65, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one != other
    assert discrimination(TRUTH, SCORES, PATIENTS, 0.65, resamples=0).roc_auc.interval is None


def test_by_tone__all_then_each_tone_at_one_threshold() -> None:
    tones = ["V-VI", "I-II", "V-VI", "I-II", "unknown", "unknown"]
    found = discrimination_by_tone(TRUTH, SCORES, PATIENTS, tones, 0.65)
    assert list(found) == ["all", "I-II", "V-VI", "unknown"]
    assert [d.n for d in found.values()] == [6, 2, 2, 2]
    assert {d.threshold for d in found.values()} == {0.65}
    assert found["all"] == discrimination(TRUTH, SCORES, PATIENTS, 0.65)
    assert found["V-VI"].roc_auc.value == 1


@pytest.mark.property
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(0, 2**32 - 1))
def test_roc_auc__turned_round_and_any_order(scores: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, truth = np.array(scores), np.arange(len(scores)) % 2 == 0
    auc = roc_auc(truth, values)
    assert roc_auc(~truth, values) == pytest.approx(1 - auc)
    order = rng.permutation(len(scores))
    assert roc_auc(truth[order], values[order]) == pytest.approx(auc)


def test_roc_curve__ends_and_one_step_for_a_tie() -> None:
    truth, scores = np.array([True, False, True]), np.array([0.5, 0.5, 0.2])
    false_positive, true_positive, thresholds = roc_curve(truth, scores)
    np.testing.assert_allclose(false_positive, [0, 1, 1])
    np.testing.assert_allclose(true_positive, [0, 0.5, 1])
    np.testing.assert_allclose(thresholds, [np.inf, 0.5, 0.2])


def test_roc_curve__one_class() -> None:
    false_positive, _, _ = roc_curve(np.ones(2, bool), np.array([0.1, 0.2]))
    assert np.isnan(false_positive).all()


def test_best_threshold__halfway_to_the_next_lower() -> None:
    assert best_threshold(TRUTH, SCORES) == pytest.approx(0.25)
    perfect = np.array([True, False]), np.array([0.8, 0.4])
    assert best_threshold(*perfect) == pytest.approx(0.6)
    assert best_threshold(np.array([True]), np.array([0.7])) == 0.7


def test_best_threshold__between_neighbouring_floats() -> None:
    high = np.nextafter(0.5, 1)
    scores = np.array([high, 0.5])
    assert best_threshold(np.array([True, False]), scores) == high


@pytest.mark.parametrize(
    "call",
    [
        lambda: best_threshold(np.zeros(2, bool), np.zeros(2)),
        lambda: roc_auc(np.zeros(2, bool), np.zeros(3)),
        lambda: roc_auc(np.zeros((2, 1), bool), np.zeros((2, 1))),
        lambda: roc_auc(TRUTH, np.full(6, np.nan)),
        lambda: discrimination(TRUTH, SCORES, ["a"], 0.5),
        lambda: discrimination_by_tone(TRUTH, SCORES, PATIENTS, ["x"], 0.5),
    ],
)
def test_arguments_that_do_not_agree(call: object, refusal: Refusal) -> None:
    with refusal(ValueError):
        call()  # type: ignore[operator]


def test_f1_and_accuracy__of_nothing() -> None:
    none = np.zeros(0, bool)
    assert math.isnan(accuracy(none, none))
    assert math.isnan(f1(np.zeros(3, bool), np.zeros(3, bool)))
