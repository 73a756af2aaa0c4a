"""Estimates, intervals and differences against loops by hand, and how often they hold what is true."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from annotation_protocol.estimates import (
    RESAMPLES,
    SEED,
    ClassEstimates,
    Estimate,
    EstimateDifference,
    Sample,
    Statistic,
    bootstrap_weights,
    difference,
    difference_of_changes,
    estimate_classes,
    estimate_classes_by_stratum,
    percentile_interval,
    resampled,
    sample_size,
    too_few,
)
from annotation_protocol.metrics import dice_per_class, iou_per_class
from tests.wording import Refusal

CLASSES = ["background", "lesion", "marker"]

VALUES = [0.9, 0.2, 0.5, 0.7, 0.4, 0.95]
PATIENTS = ["a", "a", "b", "c", "c", "d"]
OTHERS = [0.1, 0.6, 0.3, 0.2, 0.8]
OTHER_PATIENTS = ["a", "b", "b", "e", "f"]


def shares(unchanged: int, n: int, first: int = 0) -> Sample:
    """`n` images of a patient each, the first of them unchanged."""
    values = [float(k < unchanged) for k in range(n)]
    return Sample(values, [f"p{first + k}" for k in range(n)], Statistic.SHARE)


def sample(images: int = 12, seed: int = 0) -> NDArray[np.int64]:
    """Confusion matrices in which marker is often missing, (images, 3, 3)."""
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 50, (images, 3, 3))
    missing = rng.random(images) < 0.5
    matrices[missing, 2, :] = 0
    matrices[missing, :, 2] = 0
    return matrices


def all_valid(images: int) -> NDArray[np.bool_]:
    return np.ones((images, 3), bool)


@pytest.mark.parametrize(
    ("n", "groups", "fewest", "few"),
    [
        (4, 4, 5, True), (5, 1, 5, True), (5, 2, 5, False),
        (1, 2, 0, False), (9, 1, 0, True), (4, None, 5, True), (5, None, 5, False),
    ],
)  # fmt: skip
def test_too_few__images_and_groups(n: int, groups: int | None, fewest: int, few: bool) -> None:
    assert too_few(n, groups, fewest=fewest) is few


def test_sample_size__singular_plural_and_pairs(wording: SnapshotAssertion) -> None:
    assert sample_size(1, 1) == wording
    assert sample_size(40, 30) == wording
    assert sample_size((1, 2), (1, 1)) == wording
    assert sample_size(3, None) == wording


def test_text__value_and_interval(wording: SnapshotAssertion) -> None:
    estimate = Estimate(0.714, 0.62, 0.8, 40, 30)
    assert estimate.text() == "0.71 [0.62, 0.80]"
    assert estimate.text(".0f", scale=100, unit=" %") == wording
    change = EstimateDifference(-0.0001, -0.02, 0.03, (5, 6), (5, 6))
    assert change.text() == "+0.00 [-0.02, +0.03]"
    assert Estimate(0.5, None, None, 3, 1).text() == wording


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("value", ["value", "interval", "n", "patients"]),
        ("mean", ["mean", "ci95", "n", "patients"]),
        ("roc_auc", ["roc_auc", "roc_auc_ci95", "n", "patients"]),
    ],
)
def test_json__round_trip_of_each_stored_shape(name: str, keys: list[str]) -> None:
    for estimate in (Estimate(0.5, 0.25, 0.75, 9, 7), Estimate(None, None, None, 0, 0)):
        stored = json.loads(json.dumps(estimate.to_json(name)))
        assert list(stored) == keys
        assert Estimate.from_json(stored, name) == estimate
    without_groups = Estimate(0.5, 0.25, 0.75, 9)
    assert without_groups.to_json() == {"value": 0.5, "interval": [0.25, 0.75], "n": 9}
    assert Estimate.from_json(without_groups.to_json()) == without_groups


def test_if_enough__needs_an_interval_and_five_images() -> None:
    enough = Estimate(0.5, 0.25, 0.75, 5, 2)
    assert enough.if_enough() == enough
    assert Estimate(0.5, 0.25, 0.75, 4, 2).if_enough() == Estimate(None, None, None, 4, 2)
    assert Estimate(0.5, None, None, 9, 1).if_enough() == Estimate(None, None, None, 9, 1)


def test_bootstrap_weights__draws_with_replacement() -> None:
    weights = bootstrap_weights(7, 3000, 1)
    assert weights.shape == (3000, 7)
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(weights.var(axis=0), 6 / 7, atol=0.12)  # multinomial: 1 - 1/7
    np.testing.assert_array_equal(weights, bootstrap_weights(7, 3000, 1))


def test_estimate__mean_is_that_of_a_class() -> None:
    matrices = sample(images=14, seed=3)
    patients = [str(k % 5) for k in range(14)]
    dice = dice_per_class(matrices)[:, 0]
    wanted = estimate_classes(matrices, patients, all_valid(14), CLASSES, seed=7)["background"]
    found = Sample(dice, patients).estimate(seed=7)
    assert found.interval == pytest.approx(wanted.dice_mean.interval)
    assert found.value == pytest.approx(wanted.dice_mean.value)
    assert (found.n, found.groups) == (14, 5)


def test_estimate__too_few() -> None:
    assert shares(2, 4).estimate() == Estimate(None, None, None, 4, 4)
    assert Sample([1.0, 2.0], ["a", "a"]).estimate(fewest=0) == Estimate(1.5, None, None, 2, 1)
    assert Sample([], []).estimate(fewest=0) == Estimate(None, None, None, 0, 0)


def test_resampled__whole_patients(refusal: Refusal) -> None:
    [means] = resampled([Sample([0.0, 0.0, 6.0], ["a", "a", "b"])], resamples=200)
    assert set(means) == {0.0, 2.0, 6.0}
    assert percentile_interval(means) == (0.0, 6.0)
    with refusal(ValueError):
        Sample([0.0] * 3, ["a", "b"])


@pytest.mark.parametrize("statistic", [Statistic.MEAN, Statistic.MEDIAN])
def test_difference__resamples_a_patient_for_both(statistic: Statistic) -> None:
    middle = np.median if statistic is Statistic.MEDIAN else np.mean
    found = difference(
        Sample(VALUES, PATIENTS, statistic), Sample(OTHERS, OTHER_PATIENTS, statistic)
    )
    slow = []
    for row in np.random.default_rng(SEED).integers(6, size=(RESAMPLES, 6)):
        names = ["abcdef"[k] for k in row]
        one = [v for name in names for v, p in zip(VALUES, PATIENTS, strict=True) if p == name]
        two = [
            v for name in names for v, p in zip(OTHERS, OTHER_PATIENTS, strict=True) if p == name
        ]
        if one and two:
            slow.append(middle(one) - middle(two))
    assert len(slow) < RESAMPLES, "some resamples hold nobody of one of the two"
    assert found.value == pytest.approx(middle(VALUES) - middle(OTHERS))
    assert found.interval == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])))
    assert (found.n, found.groups) == ((6, 5), (4, 4))


def test_difference__the_same_patients_in_both_cancel() -> None:
    """A patient whose lesion is easy is easy twice: only resampled together does that cancel."""
    easy = [0.1, 0.3, 0.5, 0.7, 0.9, 0.95]
    one, other = (Sample([v + s for v in easy], list("abcdef")) for s in (0.02, 0.0))
    found = difference(one, other)
    assert found.value == pytest.approx(0.02)
    assert found.interval == pytest.approx((0.02, 0.02))
    apart = difference(one, other, independent=True)
    assert apart.value == pytest.approx(0.02)
    assert apart.sign == 0


def test_difference__shares_of_0_and_1_are_not_certain() -> None:
    # Clopper and Pearson: 10 of 10 is 0.6915 to 1, 0 of 10 is 0 to 0.3085.
    same = difference(shares(10, 10), shares(10, 10, 50))
    assert same.value == 0
    assert same.interval == pytest.approx((-0.3085, 0.3085), abs=1e-4)
    far = difference(shares(10, 10), shares(0, 10, 50))
    assert far.value == 1
    assert far.interval == pytest.approx((1 - 0.3085 * 2**0.5, 1.0), abs=1e-4)


def test_difference__one_share_of_0_takes_the_other_s_own_interval() -> None:
    some, none = shares(5, 10), shares(0, 10, 50)
    low, high = some.interval()
    down, up = np.hypot(0.5 - low, 0.3085), high - 0.5
    assert difference(some, none).interval == pytest.approx((0.5 - down, 0.5 + up), abs=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (-0.1, 0.0, 0)],
)
def test_difference__sign_only_where_the_interval_has_no_0(
    low: float, high: float, sign: int
) -> None:
    assert EstimateDifference(0.05, low, high, (9, 9), (9, 9)).sign == sign


def test_difference__too_few_has_no_sign() -> None:
    found = difference(shares(2, 4), shares(2, 9, 50))
    assert found == EstimateDifference(None, None, None, (4, 9), (4, 9))
    assert found.sign == 0


def test_difference_of_changes__by_hand() -> None:
    def halves(first: int, earlier: float, later: float) -> tuple[Sample, Sample]:
        one, other = (
            Sample([value + k / 100 for k in range(6)], [f"p{start + k}" for k in range(6)])
            for start, value in ((first, earlier), (first + 100, later))
        )
        return one, other

    shown, withheld = halves(0, 0.5, 0.8), halves(1000, 0.5, 0.6)
    found = difference_of_changes(shown, withheld)
    assert found.value == pytest.approx(0.3 - 0.1)
    assert (found.n, found.groups) == ((12, 12), (12, 12))
    assert found.interval is not None
    # The variance of the sum of four means, each of six values 0.01 apart, is four times theirs.
    half = 1.96 * 2 * np.std([k / 100 for k in range(6)]) / 6**0.5
    assert found.interval == pytest.approx((0.2 - half, 0.2 + half), abs=0.25 * half)
    few = difference_of_changes(shown, (withheld[0], Sample([], [])))
    assert few == EstimateDifference(None, None, None, (12, 6), (12, 6))


@pytest.mark.parametrize(("n", "before", "after"), [(10, 0.1, 0.5), (10, 0.9, 0.9), (30, 0.2, 0.5)])
def test_difference__holds_the_truth_as_often_as_it_says(
    n: int, before: float, after: float
) -> None:
    """Two images a patient that are alike, in both halves; 150 times, of which 95 % is 142."""
    generator = np.random.default_rng(5)

    def half(share: float, name: str) -> Sample:
        flags = np.repeat(generator.random(n) < share, 2).astype(float)
        return Sample(flags, [f"{name}{k // 2}" for k in range(2 * n)], Statistic.SHARE)

    held = 0
    for _ in range(150):
        interval = difference(half(after, "later"), half(before, "earlier"), resamples=400).interval
        assert interval is not None
        held += interval[0] - 1e-9 <= after - before <= interval[1] + 1e-9
    assert held >= 135


def test_estimate_classes__means_and_pool_by_hand() -> None:
    # lesion: image 0 has 6 of 10 (IoU), image 1 has 1 of 2, image 2 has none at all.
    confusions = np.zeros((3, 2, 2), np.int64)
    confusions[0] = [[90, 2], [2, 6]]
    confusions[1] = [[98, 1], [0, 1]]
    confusions[2] = [[100, 0], [0, 0]]
    lesion = estimate_classes(
        confusions, ["a", "b", "c"], np.ones((3, 2), bool), ["skin", "lesion"]
    )["lesion"]
    assert lesion.n == lesion.groups == 2
    assert lesion.iou_mean.value == pytest.approx((0.6 + 0.5) / 2)
    assert lesion.dice_mean.value == pytest.approx((12 / 16 + 2 / 3) / 2)
    assert lesion.iou_pooled.value == pytest.approx(7 / 12)
    # Two patients: a resample is aa, ab, ba or bb, so that the interval is from one to the other.
    assert lesion.iou_mean.interval == pytest.approx((0.5, 0.6))
    assert lesion.dice_mean.interval == pytest.approx((2 / 3, 3 / 4))
    assert lesion.iou_pooled.interval == pytest.approx((0.5, 0.6))


@pytest.mark.slow
def test_estimate_classes__intervals_as_a_slow_loop() -> None:
    confusions, resamples = sample(), 200
    patients = [f"patient {index % 5}" for index in range(12)]
    valid = all_valid(12)
    valid[3, 1] = False
    scores = estimate_classes(confusions, patients, valid, CLASSES, resamples=resamples, seed=4)
    for index, name in enumerate(CLASSES):
        rows = [
            i
            for i in range(12)
            if valid[i, index] and not np.isnan(iou_per_class(confusions[i])[index])
        ]
        names = sorted({patients[i] for i in rows})
        figures = []
        for weights in bootstrap_weights(len(names), resamples, 4):
            drawn = [i for i in rows for _ in range(int(weights[names.index(patients[i])]))]
            pool = confusions[drawn].sum(axis=0)
            figures.append(
                [
                    np.mean([iou_per_class(confusions[i])[index] for i in drawn]),
                    iou_per_class(pool)[index],
                    np.mean([dice_per_class(confusions[i])[index] for i in drawn]),
                ]
            )
        low, high = np.percentile(figures, [2.5, 97.5], axis=0)
        its = scores[name]
        assert (its.n, its.groups) == (len(rows), len(names))
        assert its.iou_mean.interval == pytest.approx((low[0], high[0]))
        assert its.iou_pooled.interval == pytest.approx((low[1], high[1]))
        assert its.dice_mean.interval == pytest.approx((low[2], high[2]))


def test_estimate_classes__patients_widen_the_interval() -> None:
    # The same ten images, as ten patients and as two: within a patient, images are alike.
    confusions = np.array([[[50, 25 - 5 * (i < 5)], [0, 25 + 5 * (i < 5)]] for i in range(10)])
    valid, classes = np.ones((10, 2), bool), ["skin", "lesion"]
    ten = estimate_classes(confusions, [str(i) for i in range(10)], valid, classes)["lesion"]
    two = estimate_classes(confusions, [str(i // 5) for i in range(10)], valid, classes)["lesion"]
    assert ten.iou_mean.value == two.iou_mean.value
    narrow, wide = ten.iou_mean.interval, two.iou_mean.interval
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0]
    assert wide[1] > narrow[1]


def test_estimate_classes__single_patient_has_no_interval() -> None:
    its = estimate_classes(sample(), ["one"] * 12, all_valid(12), CLASSES)["lesion"]
    assert (its.n, its.groups) == (12, 1)
    assert its.iou_mean.interval is its.iou_pooled.interval is its.dice_mean.interval is None
    assert its.iou_mean.value is not None
    assert 0 < its.iou_mean.value < 1


def test_estimate_classes__only_one_patient_holds_the_class() -> None:
    confusions = sample()
    confusions[1:, 2, :] = confusions[1:, :, 2] = 0
    confusions[0] = 3
    scores = estimate_classes(confusions, [str(i) for i in range(12)], all_valid(12), CLASSES)
    assert (scores["marker"].n, scores["marker"].iou_mean.interval) == (1, None)
    assert scores["lesion"].iou_mean.interval is not None


@pytest.mark.parametrize("images", [0, 4])
def test_estimate_classes__class_in_no_image(images: int) -> None:
    valid = all_valid(images)
    valid[:, 2] = False
    its = estimate_classes(sample(images), [str(i) for i in range(images)], valid, CLASSES)[
        "marker"
    ]
    assert (its.n, its.groups) == (0, 0)
    assert json.loads(json.dumps(its.to_json(), allow_nan=False)) == {
        "iou_mean": None,
        "iou_mean_ci95": None,
        "iou_pooled": None,
        "iou_pooled_ci95": None,
        "dice_mean": None,
        "dice_mean_ci95": None,
        "n": 0,
        "patients": 0,
    }


def test_estimate_classes__no_resamples() -> None:
    its = estimate_classes(
        sample(), [str(i) for i in range(12)], all_valid(12), CLASSES, resamples=0
    )["lesion"]
    assert its.iou_mean.interval is None
    assert its.groups == 12


def test_to_json__keys_of_an_evaluation_in_their_order() -> None:
    iou, pooled, dice = (0.5, 0.25, 0.75), (0.5, None, None), (0.625, 0.5, 0.75)
    its = ClassEstimates(*(Estimate(*values, 3, 2) for values in (iou, pooled, dice)))
    assert list(its.to_json().items()) == [
        ("iou_mean", 0.5),
        ("iou_mean_ci95", [0.25, 0.75]),
        ("iou_pooled", 0.5),
        ("iou_pooled_ci95", None),
        ("dice_mean", 0.625),
        ("dice_mean_ci95", [0.5, 0.75]),
        ("n", 3),
        ("patients", 2),
    ]
    assert ClassEstimates.from_json(its.to_json()) == its


def test_estimate_classes_by_stratum__is_score_of_each_group() -> None:
    confusions, patients = sample(), [f"{index // 2}" for index in range(12)]
    strata = ["V-VI", "I-II", "unknown"] * 4
    by_group = estimate_classes_by_stratum(
        confusions, patients, all_valid(12), strata, CLASSES, resamples=50, seed=3
    )
    assert list(by_group) == ["I-II", "V-VI", "unknown"]
    alone = estimate_classes(
        confusions[0::3], patients[0::3], all_valid(4), CLASSES, resamples=50, seed=3
    )
    assert {name: its.to_json() for name, its in by_group["V-VI"].items()} == {
        name: its.to_json() for name, its in alone.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        {"confusions": np.zeros((2, 4, 4), int)},
        {"groups": ["a"]},
        {"valid": np.ones((2, 2), bool)},
        {"classes": ["a", "a", "b"]},
        {"resamples": -1},
        {"strata": ["x"]},
    ],
)
def test_estimate_classes_by_stratum__refused(change: dict[str, Any], refusal: Refusal) -> None:
    arguments: dict[str, Any] = {
        "confusions": sample(2),
        "groups": ["a", "b"],
        "valid": all_valid(2),
        "strata": ["x", "y"],
        "classes": CLASSES,
    }
    with refusal(ValueError):
        estimate_classes_by_stratum(**{**arguments, **change})
