"""Estimates and differences of them, and the rule for too few patients."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from annotation_protocol.estimates import (
    ClassEstimates,
    Estimate,
    EstimateDifference,
    Sample,
    Statistic,
    difference,
    difference_of_changes,
    estimate_classes,
    estimate_classes_by_stratum,
    sample_size,
    too_few,
)
from annotation_protocol.intervals import MIN_GROUPS, Scale, interval
from annotation_protocol.metrics import dice_per_class, iou_per_class
from tests.wording import Refusal

CLASSES = ["background", "lesion", "marker"]


def shares(unchanged: int, n: int, first: int = 0) -> Sample:
    """`n` images of a patient each, the first of them unchanged."""
    values = [float(k < unchanged) for k in range(n)]
    return Sample(values, [f"p{first + k}" for k in range(n)], scale=Scale.SHARE)


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


def test_too_few__patients_of_each_sample() -> None:
    assert too_few(MIN_GROUPS - 1)
    assert not too_few(MIN_GROUPS)
    assert too_few((MIN_GROUPS, MIN_GROUPS - 1))
    assert not too_few((MIN_GROUPS, MIN_GROUPS))


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
    assert Estimate(0.5, None, None, 3).text() == wording
    assert Estimate(None, None, None, 24, 20).text() == wording
    assert Estimate().text() == wording
    few = EstimateDifference(0.1, None, None, (5, 60), (5, 60))
    assert few.text(".0f", scale=100, unit=" points") == wording


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("value", ["value", "interval", "n", "patients"]),
        ("mean", ["mean", "ci95", "n", "patients"]),
        ("roc_auc", ["roc_auc", "roc_auc_ci95", "n", "patients"]),
    ],
)
def test_json__round_trip_of_each_stored_shape(name: str, keys: list[str]) -> None:
    for estimate in (Estimate(0.5, 0.25, 0.75, 19, 17), Estimate(None, None, None, 0, 0)):
        stored = json.loads(json.dumps(estimate.to_json(name)))
        assert list(stored) == keys
        assert Estimate.from_json(stored, name) == estimate
    without_groups = Estimate(0.5, 0.25, 0.75, 19)
    assert without_groups.to_json() == {"value": 0.5, "interval": [0.25, 0.75], "n": 19}
    assert Estimate.from_json(without_groups.to_json()) == without_groups


def test_from_json__old_interval_of_too_few_patients_is_not_shown() -> None:
    stored = {"value": 0.726, "interval": [0.718, 0.734], "n": 40, "patients": 2}
    assert Estimate.from_json(stored) == Estimate(0.726, None, None, 40, 2)
    assert Estimate.from_json({**stored, "patients": 40}).interval == (0.718, 0.734)
    del stored["patients"]
    assert Estimate.from_json(stored).interval == (0.718, 0.734), "of nobody knows how many"


def test_estimate__four_images_of_two_patients_print_no_interval(
    wording: SnapshotAssertion,
) -> None:
    found = Sample([0.72, 0.716, 0.734, 0.734], ["a", "a", "b", "b"]).estimate()
    assert found.value == pytest.approx(0.726)
    assert found.interval is None
    assert found.text(".3f") == wording


def test_estimate__mean_is_that_of_a_class() -> None:
    matrices = sample(images=34, seed=3)
    patients = [str(k % 12) for k in range(34)]
    dice = dice_per_class(matrices)[:, 0]
    wanted = estimate_classes(matrices, patients, all_valid(34), CLASSES)["background"]
    found = Sample(dice, patients).estimate()
    assert found.interval == pytest.approx(wanted.dice_mean.interval)
    assert found.value == pytest.approx(wanted.dice_mean.value)
    assert (found.n, found.groups) == (34, 12)


def test_estimate__no_images() -> None:
    assert Sample([], []).estimate() == Estimate(None, None, None, 0, 0)


def test_sample__refused(refusal: Refusal) -> None:
    with refusal(ValueError):
        Sample([0.0] * 3, ["a", "b"])
    with refusal(ValueError):
        Sample([0.5, -0.1], ["a", "b"])
    with refusal(ValueError):
        Sample([5.0, -0.1], ["a", "b"], scale=Scale.POSITIVE)
    assert Sample([5.0, -0.1], ["a", "b"], scale=Scale.SIGNED).value() == pytest.approx(2.45)


@pytest.mark.parametrize("statistic", [Statistic.MEAN, Statistic.MEDIAN])
def test_difference__the_same_patients_in_both_cancel(statistic: Statistic) -> None:
    """A patient whose lesion is easy is easy twice."""
    easy = np.linspace(0.3, 0.7, 12)
    names = list("abcdefghijkl")
    other = Sample(easy, names, statistic)
    paired = difference(Sample(easy + 0.02, names, statistic), other)
    apart = difference(Sample(easy + 0.02, [f"x{name}" for name in names], statistic), other)
    assert paired.value == apart.value == pytest.approx(0.02)
    assert (paired.sign, apart.sign) == (1, 0)


def test_difference__shares_of_0_and_1_are_not_certain() -> None:
    same = difference(shares(12, 12), shares(12, 12, 50))
    assert same.value == 0
    assert same.interval is not None
    assert -0.4 < same.interval[0] < -0.2
    assert same.interval == pytest.approx((same.interval[0], -same.interval[0]))
    far = difference(shares(12, 12), shares(0, 12, 50))
    assert far.interval is not None
    assert far.value == far.interval[1] == 1
    assert 0.5 < far.interval[0] < 0.8


def test_difference__one_share_of_0_takes_the_other_s_own_interval() -> None:
    some, none = shares(6, 12), shares(0, 12, 50)
    (low, high), _ = some.spread()
    reach = none.spread()[0][1]
    down, up = np.hypot(0.5 - low, reach), high - 0.5
    assert difference(some, none).interval == pytest.approx((0.5 - down, 0.5 + up))


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (-0.1, 0.0, 0)],
)
def test_difference__sign_only_where_the_interval_has_no_0(
    low: float, high: float, sign: int
) -> None:
    assert EstimateDifference(0.05, low, high, (9, 9), (9, 9)).sign == sign


def test_difference__too_few_has_a_value_and_no_sign() -> None:
    found = difference(shares(3, 4), shares(5, 20, 50))
    assert found == EstimateDifference(0.5, None, None, (4, 20), (4, 20))
    assert found.sign == 0
    nobody = difference(shares(3, 4), Sample([], []))
    assert nobody == EstimateDifference(None, None, None, (4, 0), (4, 0))


def test_difference_of_changes__by_hand() -> None:
    def halves(first: int, earlier: float, later: float) -> tuple[Sample, Sample]:
        one, other = (
            Sample([value + k / 100 for k in range(12)], [f"p{start + k}" for k in range(12)])
            for start, value in ((first, earlier), (first + 100, later))
        )
        return one, other

    shown, withheld = halves(0, 0.5, 0.8), halves(1000, 0.5, 0.6)
    found = difference_of_changes(shown, withheld)
    assert found.value == pytest.approx(0.3 - 0.1)
    assert (found.n, found.groups) == ((24, 24), (24, 24))
    assert found.interval is not None
    # The variance of the sum of four means, each of twelve values 0.01 apart, is four times theirs.
    half = 2.201 * 2 * np.std([k / 100 for k in range(12)], ddof=1) / 12**0.5
    assert found.interval == pytest.approx((0.2 - half, 0.2 + half), abs=0.1 * half)
    few = difference_of_changes(shown, (withheld[0], Sample([], [])))
    assert few == EstimateDifference(None, None, None, (24, 12), (24, 12))


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
    assert lesion.iou_mean.interval is lesion.iou_pooled.interval is None


def test_estimate_classes__intervals_as_a_slow_loop() -> None:
    """The variance is that of the values without each patient; the rest is `interval`."""
    confusions = sample(40)
    patients = [f"patient {index % 13}" for index in range(40)]
    valid = all_valid(40)
    valid[3, 1] = False
    scores = estimate_classes(confusions, patients, valid, CLASSES)
    for index, name in enumerate(CLASSES):
        rows = [
            i
            for i in range(40)
            if valid[i, index] and not np.isnan(iou_per_class(confusions[i])[index])
        ]
        names = sorted({patients[i] for i in rows})

        def values(left: list[int], index: int = index) -> list[float]:
            return [
                float(np.mean([iou_per_class(confusions[i])[index] for i in left])),
                float(iou_per_class(confusions[left].sum(axis=0))[index]),
                float(np.mean([dice_per_class(confusions[i])[index] for i in left])),
            ]

        without = np.array([values([i for i in rows if patients[i] != each]) for each in names])
        count = len(names)
        variances = (count - 1) / count * ((without - without.mean(0)) ** 2).sum(0)
        wanted = [
            interval(value, variance, count, Scale.FRACTION)
            for value, variance in zip(values(rows), variances, strict=True)
        ]
        its = scores[name]
        assert (its.n, its.groups) == (len(rows), count)
        assert its.iou_mean.interval == pytest.approx(wanted[0])
        assert its.iou_pooled.interval == pytest.approx(wanted[1])
        assert its.dice_mean.interval == pytest.approx(wanted[2])


def test_estimate_classes__patients_widen_the_interval() -> None:
    # The same images, each of its own patient and four of one: within a patient, images are alike.
    confusions = np.array([[[50, 25 - i // 4], [0, 25 + i // 4]] for i in range(48)])
    valid, classes = np.ones((48, 2), bool), ["skin", "lesion"]
    apart = estimate_classes(confusions, [str(i) for i in range(48)], valid, classes)["lesion"]
    alike = estimate_classes(confusions, [str(i // 4) for i in range(48)], valid, classes)["lesion"]
    assert apart.iou_mean.value == pytest.approx(alike.iou_mean.value)
    narrow, wide = apart.iou_mean.interval, alike.iou_mean.interval
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


def test_to_json__keys_of_an_evaluation_in_their_order() -> None:
    iou, pooled, dice = (0.5, 0.25, 0.75), (0.5, None, None), (0.625, 0.5, 0.75)
    its = ClassEstimates(*(Estimate(*values, 13, 12) for values in (iou, pooled, dice)))
    assert list(its.to_json().items()) == [
        ("iou_mean", 0.5),
        ("iou_mean_ci95", [0.25, 0.75]),
        ("iou_pooled", 0.5),
        ("iou_pooled_ci95", None),
        ("dice_mean", 0.625),
        ("dice_mean_ci95", [0.5, 0.75]),
        ("n", 13),
        ("patients", 12),
    ]
    assert ClassEstimates.from_json(its.to_json()) == its


def test_estimate_classes_by_stratum__is_score_of_each_group() -> None:
    confusions, patients = sample(), [f"{index // 2}" for index in range(12)]
    strata = ["V-VI", "I-II", "unknown"] * 4
    by_group = estimate_classes_by_stratum(confusions, patients, all_valid(12), strata, CLASSES)
    assert list(by_group) == ["I-II", "V-VI", "unknown"]
    alone = estimate_classes(confusions[0::3], patients[0::3], all_valid(4), CLASSES)
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


def test_sample__groups_with_high_numbers_are_those_with_low_ones() -> None:
    values, groups = [0.1, 0.4, 0.2, 0.9], np.array([3, 0, 3, 1])
    low, high = Sample(values, groups), Sample(values, 1000 * groups)
    assert high.names.tolist() == [0, 1000, 3000]
    assert high.cluster.tolist() == low.cluster.tolist() == [2, 0, 2, 1]
