"""scikit-learn agrees on every metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from annotation_protocol import metrics
from fedd.malignancy import discrimination

#: Few distinct values, so that ties are the rule.
SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])

Calls = tuple[NDArray[np.bool_], NDArray[np.float64]]


@st.composite
def calls(draw: st.DrawFn) -> Calls:
    """Truth and probabilities of 2 to 40 images, at least one of each class."""
    rows = draw(st.lists(st.tuples(st.booleans(), SCORES), max_size=38))
    rows += [(True, draw(SCORES)), (False, draw(SCORES))]
    truth, scores = zip(*draw(st.permutations(rows)), strict=True)
    return np.array(truth), np.array(scores)


@given(calls())
def test_roc_auc(found: Calls) -> None:
    assert discrimination.roc_auc(*found) == pytest.approx(sklearn_metrics.roc_auc_score(*found))


@given(calls())
def test_roc_curve(found: Calls) -> None:
    ours = discrimination.roc_curve(*found)
    theirs = sklearn_metrics.roc_curve(*found, drop_intermediate=False)
    for mine, peer in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, peer)


@given(calls(), SCORES)
def test_f1_and_accuracy(found: Calls, threshold: float) -> None:
    truth, scores = found
    called = scores >= threshold
    assert discrimination.f1(truth, called) == pytest.approx(
        sklearn_metrics.f1_score(truth, called)
    )
    expected = sklearn_metrics.accuracy_score(truth, called)
    assert discrimination.accuracy(truth, called) == pytest.approx(expected)
    patients = [str(n) for n in range(len(truth))]
    together = discrimination.discrimination(truth, scores, patients, threshold)
    assert together.f1.value == pytest.approx(sklearn_metrics.f1_score(truth, called))
    assert together.accuracy.value == pytest.approx(expected)
    assert together.roc_auc.value == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores))


@given(calls())
def test_youden_threshold(found: Calls) -> None:
    truth, scores = found
    benign, malignant, thresholds = sklearn_metrics.roc_curve(truth, scores)
    best = thresholds[1:][np.argmax((malignant - benign)[1:])]
    threshold = discrimination.youden_threshold(truth, scores)
    np.testing.assert_array_equal(scores >= threshold, scores >= best)


@given(calls())
def test_paper_threshold(found: Calls) -> None:
    """F1 by the rule of the authors' notebook, from scikit-learn's ROC curve and F1."""
    truth, scores = found
    benign, malignant, thresholds = sklearn_metrics.roc_curve(truth, scores)
    gain = malignant - benign
    rule = thresholds[np.argmax(gain)] if gain.max() > 0 else 0
    expected = sklearn_metrics.f1_score(truth, scores > rule, zero_division=0.0)
    threshold = discrimination.paper_threshold(truth, scores)
    assert discrimination.f1(truth, scores >= threshold) == pytest.approx(expected)


def test_youden_threshold__equals_that_floats_tell_apart() -> None:
    """Between two corners of the curve J is the same, and by rounding one place higher: not a corner."""
    malignant, benign = (1, 0, 2, 1, 1, 0), (1, 1, 0, 1, 1, 1)
    truth = np.repeat([True, False], 5)
    scores = -np.concatenate([np.repeat(range(6), each) for each in (malignant, benign)]) / 6
    theirs = sklearn_metrics.roc_curve(truth, scores)
    best = theirs[2][np.argmax(theirs[1] - theirs[0])]
    assert discrimination.youden_threshold(truth, scores) == pytest.approx(best - 1 / 12)


@given(calls())
def test_accuracy_above_half(found: Calls) -> None:
    truth, scores = found
    expected = sklearn_metrics.accuracy_score(truth, scores > 0.5)
    assert discrimination.accuracy(truth, scores >= discrimination.ABOVE_HALF) == expected


@given(calls(), st.integers(0, 2**32 - 1))
def test_roc_auc_without_each_patient(found: Calls, seed: int) -> None:
    truth, scores = found
    drawn = np.random.default_rng(seed).integers(0, 6, len(truth))
    cluster = np.unique(drawn, return_inverse=True)[1]
    ours = discrimination._auc_without(truth, scores, cluster)
    for group, auc in enumerate(ours):
        left = cluster != group
        if truth[left].any() and not truth[left].all():
            theirs = sklearn_metrics.roc_auc_score(truth[left], scores[left])
            assert auc == pytest.approx(theirs)
        else:
            assert np.isnan(auc)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_iou_dice_and_confusion(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, classes, (2, 60))
    found = metrics.confusion(truth, prediction, classes)
    labels = range(classes)
    np.testing.assert_array_equal(
        found, sklearn_metrics.confusion_matrix(truth, prediction, labels=labels)
    )
    either = np.isin(labels, [truth, prediction])
    for ours, peer in (
        (metrics.iou_per_class, sklearn_metrics.jaccard_score),
        (metrics.dice_per_class, sklearn_metrics.f1_score),
    ):
        theirs = peer(truth, prediction, labels=labels, average=None, zero_division=0)
        np.testing.assert_allclose(ours(found)[either], theirs[either])
        assert np.isnan(ours(found)[~either]).all()
