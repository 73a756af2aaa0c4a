from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedd.malignancy.discrimination import (
    ABOVE_HALF,
    accuracy,
    discrimination,
    discrimination_by_tone,
    f1,
    paper_threshold,
    roc_auc,
    roc_curve,
    youden_threshold,
)
from tests.wording import Refusal

TRUTH = np.array([True, True, False, False, True, False])
SCORES = np.array([0.9, 0.7, 0.6, 0.2, 0.3, 0.1])
PATIENTS = list("abcdef")

#: Youden's J is 3/4 at 0.7 and at 0.5.
TIED = (
    np.array([True, True, True, False, True, False, False, False]),
    np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]),
)


def test_discrimination__by_hand() -> None:
    found = discrimination(TRUTH, SCORES, PATIENTS, 0.65)
    assert found.roc_auc.value == pytest.approx(8 / 9)
    assert found.f1.value == pytest.approx(4 / 5)
    assert found.accuracy.value == pytest.approx(5 / 6)
    assert (found.n, found.malignant, found.roc_auc.groups) == (6, 3, 6)
    for estimate in (found.roc_auc, found.f1, found.accuracy):
        assert estimate.interval is None, "n = 6 is too few"


def test_discrimination__from_the_threshold_up_is_malignant() -> None:
    assert discrimination(TRUTH, SCORES, PATIENTS, 0.3).f1.value == pytest.approx(6 / 7)


@pytest.mark.parametrize("truth", [np.ones(4, bool), np.zeros(4, bool), np.zeros(0, bool)])
def test_discrimination__one_class_says_nothing(truth: np.ndarray) -> None:
    found = discrimination(truth, np.linspace(0, 1, len(truth)), list("abcd")[: len(truth)], 0.5)
    lacking = {"lacking": f"{truth.sum()} malignant, {(~truth).sum()} benign"} if len(truth) else {}
    assert found.to_json() == {
        **lacking,
        **dict.fromkeys(("roc_auc", "f1", "accuracy")),
        **dict.fromkeys(("roc_auc_ci95", "f1_ci95", "accuracy_ci95")),
        "threshold": 0.5,
        "n": len(truth),
        "malignant": int(truth.sum()),
        "patients": len(truth),
    }


def many(groups: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores of so many malignant and as many benign images, in this order."""
    rng = np.random.default_rng(seed)
    truth = np.arange(2 * groups) < groups
    return truth, np.clip(rng.normal(0.4 + 0.2 * truth, 0.15), 0, 1)


@pytest.mark.parametrize(("malignant", "enough"), [(9, False), (10, True)])
def test_discrimination__interval_needs_patients_of_each_class(
    malignant: int, enough: bool
) -> None:
    truth, scores = many(30)
    rows = np.r_[np.arange(malignant), np.arange(30, 60)]
    names = [str(n) for n in rows]
    found = discrimination(truth[rows], scores[rows], names, 0.5)
    for estimate in (found.roc_auc, found.f1, found.accuracy):
        assert estimate.value is not None
        assert (estimate.interval is not None) is enough
    one = discrimination(truth, scores, ["same"] * 30 + [str(n) for n in range(30)], 0.5)
    assert one.roc_auc.interval is None


@pytest.mark.parametrize("classes", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
@pytest.mark.parametrize("groups", [3, 6, 10, 25])
def test_discrimination__auc_is_never_certain(classes: tuple[float, float], groups: int) -> None:
    truth, _ = many(groups)
    scores = np.where(truth, *classes)
    auc = discrimination(truth, scores, [str(n) for n in range(2 * groups)], 0.5).roc_auc
    assert auc.value == pytest.approx((classes[0] - classes[1] + 1) / 2)
    if groups < 10:
        assert auc.interval is None
    else:
        assert auc.interval is not None
        assert 0.1 < auc.interval[1] - auc.interval[0] < 0.7
        assert 0 <= auc.interval[0] < auc.interval[1] <= 1


@pytest.mark.property
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.integers(0, 30)),
        max_size=60,
    ),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_discrimination__no_interval_is_degenerate(
    images: list[tuple[bool, float, int]], threshold: float
) -> None:
    truth = np.array([t for t, _, _ in images], bool)
    scores = np.array([s for _, s, _ in images], float)
    found = discrimination(truth, scores, [str(p) for _, _, p in images], threshold)
    for estimate in (found.roc_auc, found.f1, found.accuracy):
        assert estimate.n == len(images)
        if estimate.interval is not None:
            assert 0 <= estimate.interval[0] < estimate.interval[1] <= 1
            assert estimate.interval[0] <= estimate.value <= estimate.interval[1]


def test_discrimination__patients_count_not_images() -> None:
    """Each image ten times over, of the same patients, tells no more than once."""
    truth, scores = many(12)
    names = [str(n) for n in range(24)]
    once = discrimination(truth, scores, names, 0.5)
    tenfold = discrimination(np.tile(truth, 10), np.tile(scores, 10), names * 10, 0.5)
    assert tenfold.n == 240
    assert tenfold.roc_auc.interval == pytest.approx(once.roc_auc.interval)
    others = [str(n) for n in range(240)]
    as_if_others = discrimination(np.tile(truth, 10), np.tile(scores, 10), others, 0.5)
    assert as_if_others.roc_auc.interval is not None
    assert once.roc_auc.interval is not None
    assert as_if_others.roc_auc.interval[0] > once.roc_auc.interval[0]


def test_by_tone__all_then_each_tone_at_one_threshold() -> None:
    tones = ["V-VI", "I-II", "V-VI", "I-II", "unknown", "unknown"]
    found = discrimination_by_tone(TRUTH, SCORES, PATIENTS, tones, 0.65)
    assert list(found) == ["all", "known tone", "I-II", "V-VI", "unknown"]
    assert [d.n for d in found.values()] == [6, 4, 2, 2, 2]
    assert {d.threshold for d in found.values()} == {0.65}
    assert found["all"] == discrimination(TRUTH, SCORES, PATIENTS, 0.65)
    assert found["V-VI"].roc_auc.value == 1


def test_by_tone__benign_images_of_unknown_tone_lift_the_figure_of_all() -> None:
    truth = np.array([True, False, True, False, False, False])
    scores = np.array([0.9, 0.8, 0.4, 0.6, 0.1, 0.2])
    tones = ["I-II", "I-II", "V-VI", "V-VI", "unknown", "unknown"]
    found = discrimination_by_tone(truth, scores, list("abcdef"), tones, 0.5)
    assert found["known tone"].roc_auc.value == pytest.approx(2 / 4)
    assert found["all"].roc_auc.value == pytest.approx(6 / 8)
    assert (found["known tone"].n, found["known tone"].roc_auc.groups) == (4, 4)


@pytest.mark.parametrize("tone", ["I-II", "unknown"])
def test_by_tone__known_tone_apart_only_where_it_is_another_part(tone: str) -> None:
    found = discrimination_by_tone(TRUTH, SCORES, PATIENTS, [tone] * len(TRUTH), 0.5)
    assert list(found) == ["all", tone]


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


def test_youden_threshold__halfway_to_the_next_lower() -> None:
    assert youden_threshold(*TIED) == pytest.approx(0.65)
    perfect = np.array([True, False]), np.array([0.8, 0.4])
    assert youden_threshold(*perfect) == pytest.approx(0.6)


def test_youden_threshold__of_equals_the_highest() -> None:
    truth, scores = TIED
    rates = [(truth & (scores >= t)).sum() - (~truth & (scores >= t)).sum() for t in (0.7, 0.5)]
    assert rates == [3, 3]
    assert youden_threshold(truth, scores) > 0.6


def test_youden_threshold__between_neighbouring_floats() -> None:
    high = np.nextafter(0.5, 1)
    scores = np.array([high, 0.5])
    assert youden_threshold(np.array([True, False]), scores) == high


def test_paper_threshold__the_image_at_the_best_point_counts_as_benign() -> None:
    """The authors predict malignant above the threshold, not from it up."""
    truth, scores = TIED
    threshold = paper_threshold(truth, scores)
    assert threshold == pytest.approx(0.7)
    assert (threshold <= scores).tolist() == [True, True] + 6 * [False]


def test_paper_threshold__worse_than_chance_calls_all_malignant() -> None:
    """As DeepDerm at 5 %: no point of its ROC curve is above the diagonal, and its F1 is 2/3."""
    threshold = paper_threshold(~TRUTH, SCORES)
    assert (threshold <= SCORES).all()
    assert 0 < threshold < 1e-300


def test_above_half__is_above() -> None:
    assert (np.array([0.5, 0.5000001]) >= ABOVE_HALF).tolist() == [False, True]


def test_discrimination__accuracy_at_a_threshold_of_its_own() -> None:
    found = discrimination(TRUTH, SCORES, PATIENTS, 0.65, 0.25)
    assert found.f1.value == pytest.approx(4 / 5)
    assert found.accuracy.value == pytest.approx(5 / 6)
    assert found.accuracy == discrimination(TRUTH, SCORES, PATIENTS, 0.25).accuracy
    assert found.to_json()["accuracy_threshold"] == 0.25
    assert "accuracy_threshold" not in discrimination(TRUTH, SCORES, PATIENTS, 0.65).to_json()


def test_discrimination__says_which_class_is_too_small() -> None:
    """Ten patients of a tone are enough for a mean, not for five malignant and five benign ones."""
    truth, scores = many(5)
    found = discrimination(truth, scores, [str(n) for n in range(10)], 0.5)
    assert found.roc_auc.text().endswith("(too few: 5 malignant, 5 benign)")
    assert found.to_json()["lacking"] == "5 malignant, 5 benign"
    alone = discrimination(np.ones(4, bool), np.zeros(4), list("aabc"), 0.5)
    assert alone.roc_auc.text() == "too few: 3 malignant, 0 benign"


@pytest.mark.parametrize(
    "call",
    [
        lambda: youden_threshold(np.zeros(2, bool), np.zeros(2)),
        lambda: paper_threshold(np.ones(2, bool), np.zeros(2)),
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
