"""Confusion matrix, IoU and Dice of two masks.

Arrays: C classes; a confusion matrix is (C, C) int64, rows the truth, columns the prediction, in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.protocol import UNLABELLED


def confusion(truth: NDArray[Any], prediction: NDArray[Any], n: int) -> NDArray[np.int64]:
    """Return the (n, n) confusion matrix of two masks of one size with classes 0 to n - 1.

    Pixels that are UNLABELLED in either mask are left out.
    """
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth is {truth.shape} and prediction is {prediction.shape}; "
            "stretch one to the other's size"
        )
    if not 1 <= n <= UNLABELLED:
        raise ValueError(f"n is {n}; a mask holds 1 to {UNLABELLED} classes")
    for what, mask in (("truth", truth), ("prediction", prediction)):
        if mask.dtype.kind not in "iub":
            raise ValueError(f"{what} has dtype {mask.dtype}; class ids are whole numbers")
    if any(mask.size and int(mask.max()) == UNLABELLED for mask in (truth, prediction)):
        labelled = (truth != UNLABELLED) & (prediction != UNLABELLED)
        truth, prediction = truth[labelled], prediction[labelled]
    for what, mask in (("truth", truth), ("prediction", prediction)):
        if mask.size and not (int(mask.min()) >= 0 and int(mask.max()) < n):
            raise ValueError(
                f"{what} holds {int(mask.min())} to {int(mask.max())} but class ids are "
                f"0 to {n - 1}; check it with check_mask"
            )
    # Two bytes a pixel are enough for n * n <= 65536 cells, and keep a large pair in the cache.
    cells = truth.astype(np.uint16) * np.uint16(n)
    cells += prediction.astype(np.uint16)
    return np.bincount(cells.ravel(), minlength=n * n).reshape(n, n).astype(np.int64)


def labels_one_class(mask: NDArray[Any], other: NDArray[Any] | None = None) -> bool:
    """Return whether a mask is labelled in part, and what is compared of it holds one class at most.

    No pixel of another class can count as wrong then: IoU and Dice of such a mask are recall, or right
    by construction, and are not defined.

    Args:
        mask: class ids and UNLABELLED.
        other: the mask that it is compared with; its unlabelled pixels are left out too.
    """
    if not mask.size or int(mask.max()) != UNLABELLED:
        return False
    compared = mask != UNLABELLED
    if other is not None:
        compared &= other != UNLABELLED
    values = mask[compared]
    return not values.size or bool((values == values[0]).all())


def iou_per_class(confusion_matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the intersection over union of each class, (..., C, C) -> (..., C); NaN where in neither mask."""
    both, either, _ = overlaps(confusion_matrix)
    return ratio(both, either)


def dice_per_class(confusion_matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Dice coefficient of each class, (..., C, C) -> (..., C); NaN where in neither mask."""
    both, _, total = overlaps(confusion_matrix)
    return ratio(2 * both, total)


def overlaps(
    confusions: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixels of each class in both masks, in either, and in the two added up; (..., C) each."""
    if confusions.ndim < 2 or confusions.shape[-1] != confusions.shape[-2]:
        raise ValueError(
            f"confusion matrix has shape {confusions.shape}; its last two sides must be equal"
        )
    both = np.diagonal(confusions, axis1=-2, axis2=-1)
    total = confusions.sum(axis=-1) + confusions.sum(axis=-2)
    return both, total - both, total


def ratio(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    """Return `top` / `bottom`, NaN where `bottom` is 0."""
    result = np.full(np.shape(top), np.nan)
    np.divide(top, bottom, out=result, where=np.asarray(bottom) > 0)
    return result
