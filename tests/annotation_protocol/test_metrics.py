"""IoU, Dice and their intervals against scikit-learn and a slow loop."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from annotation_protocol.metrics import (
    ClassScore,
    bootstrap_weights,
    confusion,
    dice_per_class,
    iou_per_class,
    mean_interval,
    percentile_interval,
    resampled_means,
    score,
    score_by_group,
)

CLASSES = ["background", "lesion", "marker"]

pairs = hnp.arrays(
    np.uint8,
    st.tuples(st.just(2), st.integers(1, 12), st.integers(1, 12)),
    elements=st.integers(0, 4),
    fill=st.integers(0, 4),
)


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


@given(pairs)
def test_confusion_iou_dice__as_scikit_learn(pair: NDArray[np.uint8]) -> None:
    truth, prediction = pair
    matrix = confusion(truth, prediction, 5)
    assert matrix.dtype == np.int64
    flat = truth.ravel(), prediction.ravel()
    np.testing.assert_array_equal(matrix, confusion_matrix(*flat, labels=range(5)))
    options: Any = {"labels": list(range(5)), "average": None, "zero_division": np.nan}
    oracle = jaccard_score(*flat, **{**options, "zero_division": 0})
    absent = np.array([label not in pair for label in range(5)])
    np.testing.assert_allclose(iou_per_class(matrix), np.where(absent, np.nan, oracle))
    np.testing.assert_allclose(dice_per_class(matrix), f1_score(*flat, **options))


def test_confusion__rows_are_the_truth() -> None:
    matrix = confusion(np.array([[0, 0, 1]]), np.array([[0, 1, 1]], np.uint8), 2)
    assert matrix.tolist() == [[1, 1], [0, 1]]


def test_confusion__256_classes() -> None:
    matrix = confusion(np.array([[255, 0]], np.uint8), np.array([[255, 255]], np.uint8), 256)
    assert matrix[255, 255] == matrix[0, 255] == 1
    assert matrix.sum() == 2


@pytest.mark.parametrize(
    ("truth", "prediction", "n", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), 5, "stretch one"),
        (np.full((2, 2), 7), np.zeros((2, 2), int), 5, "truth holds 7 to 7"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), 5, "prediction holds -1 to -1"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), 5, "truth has dtype float64"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), 300, "n is 300"),
    ],
)
def test_confusion__refused(truth: Any, prediction: Any, n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion(truth, prediction, n)


def test_iou__of_a_stack_is_that_of_each() -> None:
    stack = sample()
    np.testing.assert_array_equal(iou_per_class(stack), [iou_per_class(one) for one in stack])
    with pytest.raises(ValueError, match="sides must be equal"):
        iou_per_class(stack[:, :2])


def test_score__means_and_pool_by_hand() -> None:
    # lesion: image 0 has 6 of 10 (IoU), image 1 has 1 of 2, image 2 has none at all.
    confusions = np.zeros((3, 2, 2), np.int64)
    confusions[0] = [[90, 2], [2, 6]]
    confusions[1] = [[98, 1], [0, 1]]
    confusions[2] = [[100, 0], [0, 0]]
    lesion = score(confusions, ["a", "b", "c"], np.ones((3, 2), bool), ["skin", "lesion"])["lesion"]
    assert lesion.n == lesion.patients == 2
    assert lesion.iou_mean == pytest.approx((0.6 + 0.5) / 2)
    assert lesion.dice_mean == pytest.approx((12 / 16 + 2 / 3) / 2)
    assert lesion.iou_pooled == pytest.approx(7 / 12)
    # Two patients: a resample is aa, ab, ba or bb, so that the interval is from one to the other.
    assert lesion.iou_mean_ci95 == pytest.approx((0.5, 0.6))
    assert lesion.dice_mean_ci95 == pytest.approx((2 / 3, 3 / 4))
    assert lesion.iou_pooled_ci95 == pytest.approx((0.5, 0.6))


def test_score__intervals_as_a_slow_loop() -> None:
    confusions, resamples = sample(), 200
    patients = [f"patient {index % 5}" for index in range(12)]
    valid = all_valid(12)
    valid[3, 1] = False
    scores = score(confusions, patients, valid, CLASSES, resamples=resamples, seed=4)
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
        assert (its.n, its.patients) == (len(rows), len(names))
        assert its.iou_mean_ci95 == pytest.approx((low[0], high[0]))
        assert its.iou_pooled_ci95 == pytest.approx((low[1], high[1]))
        assert its.dice_mean_ci95 == pytest.approx((low[2], high[2]))


def test_bootstrap_weights__draws_with_replacement() -> None:
    weights = bootstrap_weights(7, 3000, 1)
    assert weights.shape == (3000, 7)
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(weights.var(axis=0), 6 / 7, atol=0.12)  # multinomial: 1 - 1/7
    np.testing.assert_array_equal(weights, bootstrap_weights(7, 3000, 1))


def test_mean_interval__is_that_of_a_score() -> None:
    matrices = sample(images=14, seed=3)
    patients = [str(k % 5) for k in range(14)]
    dice = dice_per_class(matrices)[:, 0]
    wanted = score(matrices, patients, all_valid(14), CLASSES, seed=7)["background"].dice_mean_ci95
    assert mean_interval(dice, patients, seed=7) == pytest.approx(wanted)


def test_mean_interval__too_few_patients() -> None:
    assert mean_interval(np.array([1.0, 2.0]), ["a", "a"]) is None
    assert mean_interval(np.array([]), []) is None


def test_resampled_means__whole_patients() -> None:
    means = resampled_means(np.array([0.0, 0.0, 6.0]), ["a", "a", "b"], resamples=200)
    assert set(means) == {0.0, 2.0, 6.0}
    assert percentile_interval(means) == (0.0, 6.0)
    with pytest.raises(ValueError, match="2 patients for 3 values"):
        resampled_means(np.zeros(3), ["a", "b"])


def test_score__patients_widen_the_interval() -> None:
    # The same ten images, as ten patients and as two: within a patient, images are alike.
    confusions = np.array([[[50, 25 - 5 * (i < 5)], [0, 25 + 5 * (i < 5)]] for i in range(10)])
    valid, classes = np.ones((10, 2), bool), ["skin", "lesion"]
    ten = score(confusions, [str(i) for i in range(10)], valid, classes)["lesion"]
    two = score(confusions, [str(i // 5) for i in range(10)], valid, classes)["lesion"]
    assert ten.iou_mean == two.iou_mean
    assert ten.iou_mean_ci95 is not None
    assert two.iou_mean_ci95 is not None
    assert two.iou_mean_ci95[0] < ten.iou_mean_ci95[0]
    assert two.iou_mean_ci95[1] > ten.iou_mean_ci95[1]


def test_score__single_patient_has_no_interval() -> None:
    its = score(sample(), ["one"] * 12, all_valid(12), CLASSES)["lesion"]
    assert (its.n, its.patients) == (12, 1)
    assert its.iou_mean_ci95 is its.iou_pooled_ci95 is its.dice_mean_ci95 is None
    assert 0 < its.iou_mean < 1


def test_score__only_one_patient_holds_the_class() -> None:
    confusions = sample()
    confusions[1:, 2, :] = confusions[1:, :, 2] = 0
    confusions[0] = 3
    scores = score(confusions, [str(i) for i in range(12)], all_valid(12), CLASSES)
    assert (scores["marker"].n, scores["marker"].iou_mean_ci95) == (1, None)
    assert scores["lesion"].iou_mean_ci95 is not None


@pytest.mark.parametrize("images", [0, 4])
def test_score__class_in_no_image(images: int) -> None:
    valid = all_valid(images)
    valid[:, 2] = False
    its = score(sample(images), [str(i) for i in range(images)], valid, CLASSES)["marker"]
    assert (its.n, its.patients) == (0, 0)
    assert math.isnan(its.iou_mean)
    assert json.loads(json.dumps(its.as_dict(), allow_nan=False)) == {
        "iou_mean": None,
        "iou_mean_ci95": None,
        "iou_pooled": None,
        "iou_pooled_ci95": None,
        "dice_mean": None,
        "dice_mean_ci95": None,
        "n": 0,
        "patients": 0,
    }


def test_score__no_resamples() -> None:
    its = score(sample(), [str(i) for i in range(12)], all_valid(12), CLASSES, resamples=0)[
        "lesion"
    ]
    assert its.iou_mean_ci95 is None
    assert its.patients == 12


def test_as_dict__plain_numbers_and_lists() -> None:
    its = ClassScore(0.5, (0.25, 0.75), 0.5, None, 0.625, (0.5, 0.75), 3, 2)
    assert list(its.as_dict().items()) == [
        ("iou_mean", 0.5),
        ("iou_mean_ci95", [0.25, 0.75]),
        ("iou_pooled", 0.5),
        ("iou_pooled_ci95", None),
        ("dice_mean", 0.625),
        ("dice_mean_ci95", [0.5, 0.75]),
        ("n", 3),
        ("patients", 2),
    ]


def test_score_by_group__is_score_of_each_group() -> None:
    confusions, patients = sample(), [f"{index // 2}" for index in range(12)]
    groups = ["V-VI", "I-II", "unknown"] * 4
    by_group = score_by_group(
        confusions, patients, all_valid(12), groups, CLASSES, resamples=50, seed=3
    )
    assert list(by_group) == ["I-II", "V-VI", "unknown"]
    alone = score(confusions[0::3], patients[0::3], all_valid(4), CLASSES, resamples=50, seed=3)
    assert {name: its.as_dict() for name, its in by_group["V-VI"].items()} == {
        name: its.as_dict() for name, its in alone.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confusions": np.zeros((2, 4, 4), int)}, "confusions has shape"),
        ({"patients": ["a"]}, "1 patients for 2 images"),
        ({"valid": np.ones((2, 2), bool)}, "valid has shape"),
        ({"classes": ["a", "a", "b"]}, "repeat"),
        ({"resamples": -1}, "resamples is -1"),
        ({"groups": ["x"]}, "1 groups for 2 images"),
    ],
)
def test_score_by_group__refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "confusions": sample(2),
        "patients": ["a", "b"],
        "valid": all_valid(2),
        "groups": ["x", "y"],
        "classes": CLASSES,
    }
    with pytest.raises(ValueError, match=message):
        score_by_group(**{**arguments, **change})
