"""The mean of the tones against scikit-learn's Jaccard score and a jackknife in a few lines of numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, jaccard_score

from annotation_protocol.metrics import confusion
from fedd.dataset import TONES
from fedd.reproduce.means import mean_of_tones, pooled, share

CLASSES = 4
PIXELS = 12


@st.composite
def masks(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str], list[str]]:
    """Truth and prediction (N, pixels), patients and tones; a class may be in no mask of a tone."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tones = [*TONES, *draw(st.lists(st.sampled_from(TONES), max_size=20))]
    shape = len(tones), PIXELS
    highest = rng.integers(1, CLASSES + 1, (len(tones), 1))
    truth, predicted = (rng.integers(0, CLASSES, shape) % highest for _ in range(2))
    patients = [f"p{n}" for n in rng.integers(0, 15, len(tones))]
    return truth, predicted, patients, tones


def _theirs(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Mean over the classes that are in either, as Keras' MeanIoU in the authors' notebook."""
    labels = np.union1d(truth, predicted)
    return float(jaccard_score(truth.ravel(), predicted.ravel(), labels=labels, average="macro"))


def _mean_of_tones(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], tones: NDArray[np.str_]
) -> float:
    """NaN if a tone is missing."""
    of_tone = [tones == tone for tone in TONES]
    if not all(rows.any() for rows in of_tone):
        return float("nan")
    return sum(_theirs(truth[rows], predicted[rows]) for rows in of_tone) / 3


@given(masks())
def test_mean_of_tones(
    found: tuple[NDArray[np.int64], NDArray[np.int64], list[str], list[str]],
) -> None:
    truth, predicted, patients, tones = found
    confusions = np.stack([confusion(t, p, CLASSES) for t, p in zip(truth, predicted, strict=True)])
    ours = mean_of_tones(confusions, patients, tones)
    assert ours.value == pytest.approx(_mean_of_tones(truth, predicted, np.array(tones)))
    assert pooled(confusions, patients).value == pytest.approx(_theirs(truth, predicted))
    for name, without in zip(np.unique(patients), ours.without, strict=True):
        left = np.array(patients) != name
        expected = _mean_of_tones(truth[left], predicted[left], np.array(tones)[left])
        assert without == pytest.approx(expected, nan_ok=True)


@given(masks())
def test_share(found: tuple[NDArray[np.int64], NDArray[np.int64], list[str], list[str]]) -> None:
    truth, predicted, patients, _ = found
    right = truth[:, 0] == predicted[:, 0]
    ours = share(right, patients)
    assert ours.value == accuracy_score(truth[:, 0], predicted[:, 0])
    for name, without in zip(np.unique(patients), ours.without, strict=True):
        left = np.array(patients) != name
        expected = right[left].mean() if left.any() else np.nan
        assert without == pytest.approx(expected, nan_ok=True)


@given(st.integers(0, 2**32 - 1), st.integers(10, 60))
def test_difference__jackknife_by_hand(seed: int, images: int) -> None:
    """Student's interval of the paired difference, without one image after the other."""
    from scipy.stats import t

    from annotation_protocol.intervals import Scale

    one, other = np.random.default_rng(seed).integers(0, 2, (2, images)).astype(bool)
    patients = [f"{n:02d}" for n in range(images)]
    found = share(one, patients).minus(share(other, patients)).estimate(Scale.SIGNED)
    difference = one.astype(float) - other
    without = np.array([np.delete(difference, n).mean() for n in range(images)])
    error = np.sqrt((images - 1) / images * ((without - without.mean()) ** 2).sum())
    half = t.ppf(0.975, images - 1) * error
    assert found.value == pytest.approx(difference.mean())
    assert found.interval == pytest.approx((found.value - half, found.value + half))
