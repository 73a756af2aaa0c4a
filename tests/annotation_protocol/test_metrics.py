"""Confusion matrix, IoU and Dice against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from annotation_protocol.metrics import confusion, dice_per_class, iou_per_class, labels_one_class
from tests.wording import Refusal

pairs = hnp.arrays(
    np.uint8,
    st.tuples(st.just(2), st.integers(1, 12), st.integers(1, 12)),
    elements=st.integers(0, 4),
    fill=st.integers(0, 4),
)


@pytest.mark.property
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


def test_confusion__255_classes() -> None:
    matrix = confusion(np.array([[254, 0]], np.uint8), np.array([[254, 254]], np.uint8), 255)
    assert matrix[254, 254] == matrix[0, 254] == 1
    assert matrix.sum() == 2


def test_confusion__unlabelled_pixels_are_left_out() -> None:
    truth = np.array([[0, 1, 255, 255]], np.uint8)
    prediction = np.array([[0, 255, 1, 255]], np.uint8)
    assert confusion(truth, prediction, 2).tolist() == [[1, 0], [0, 0]]
    nothing = np.full((2, 2), 255, np.uint8)
    assert np.isnan(iou_per_class(confusion(nothing, np.zeros((2, 2), np.uint8), 2))).all()


@pytest.mark.parametrize(
    ("truth", "prediction", "n"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), 5),
        (np.full((2, 2), 7), np.zeros((2, 2), int), 5),
        (np.zeros((2, 2), int), np.full((2, 2), -1), 5),
        (np.zeros((2, 2)), np.zeros((2, 2), int), 5),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), 300),
    ],
)
def test_confusion__refused(truth: Any, prediction: Any, n: int, refusal: Refusal) -> None:
    with refusal(ValueError):
        confusion(truth, prediction, n)


def test_iou__of_a_stack_is_that_of_each(refusal: Refusal) -> None:
    stack = np.random.default_rng(0).integers(0, 50, (12, 3, 3))
    stack[::2, 2, :] = stack[::2, :, 2] = 0
    np.testing.assert_array_equal(iou_per_class(stack), [iou_per_class(one) for one in stack])
    with refusal(ValueError):
        iou_per_class(stack[:, :2])


def test_labels_one_class__only_where_the_rest_is_unlabelled() -> None:
    partial = np.array([[1, 1, 255, 255]], np.uint8)
    assert labels_one_class(partial)
    assert labels_one_class(np.full((2, 2), 255, np.uint8)), "nothing is labelled at all"
    assert not labels_one_class(np.ones((2, 2), np.uint8)), "one class fills the photograph"
    two = np.array([[1, 4, 255, 255]], np.uint8)
    assert not labels_one_class(two)
    assert labels_one_class(two, np.array([[1, 255, 1, 4]], np.uint8)), "one class is compared"
    assert not labels_one_class(np.array([[1, 4, 1, 4]], np.uint8), partial), "it is whole itself"
