"""Agreement of two people's masks of one image: Cohen's kappa and the distance of boundaries.

IoU and Dice are in `annotation_protocol.metrics`, for they serve predictions as well.

Arrays: C classes; a confusion matrix is (C, C) int64 pixels, rows the one reader, columns the
other; regions are (H, W) bool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddiseg.errors import InputError
from ddiseg.masks.mask import check_region


@dataclass(frozen=True)
class BoundaryDistance:
    """The distance of the boundaries of two regions, in pixels; NaN where a region is empty."""

    mean: float  #: average symmetric surface distance
    hd95: float  #: 95 % Hausdorff distance


def cohen_kappa(confusion: NDArray[np.int64]) -> float:
    """Return Cohen's kappa of two readers over pixels: 1 is full agreement, 0 what chance would give.

    (p_o - p_e) / (1 - p_e), with p_o the share of pixels to which both give the same class and p_e
    the same expected of two readers who assign classes at random (Cohen 1960, Educational and
    Psychological Measurement 20, 37-46). NaN where chance alone agrees fully: both readers gave
    one and the same class to every pixel, or there is no pixel.
    """
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise InputError(
            f"confusion matrix has shape {confusion.shape}; it must be (classes, classes)"
        )
    # In Python's integers: products of pixel counts stay exact, however many pixels there are.
    rows: list[int] = confusion.sum(axis=1).tolist()
    columns: list[int] = confusion.sum(axis=0).tolist()
    pixels = sum(rows)
    agreed = int(np.trace(confusion)) * pixels
    by_chance = sum(row * column for row, column in zip(rows, columns, strict=True))
    if by_chance == pixels**2:
        return math.nan
    return (agreed - by_chance) / (pixels**2 - by_chance)


def boundary_distance(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> BoundaryDistance:
    """Return the symmetric distance of the boundaries of two regions of one size.

    The boundary of a region is its pixels that have one of their four neighbours outside it; the
    picture's edge is outside. From each boundary pixel of either region the Euclidean distance to
    the nearest boundary pixel of the other is taken. `mean` is the mean of all of them, ASSD
    (Heimann et al. 2009, IEEE Trans. Med. Imaging 28, 1251-1265); `hd95` is the greater of the
    two regions' 95th percentiles, HD95. Both as in Metrics Reloaded (Maier-Hein et al. 2024,
    Nature Methods 21, 195-212), but for two empty regions, which have no distance here, not 0.

    Raises:
        InputError: not (H, W) bool both, or of different sizes.
    """
    if check_region(a).shape != check_region(b).shape:
        raise InputError(f"regions are {a.shape} and {b.shape}; stretch one to the other's size")
    if not (a.any() and b.any()):
        return BoundaryDistance(math.nan, math.nan)
    window = _bounding_box(a | b)
    a, b = _boundary(a[window]), _boundary(b[window])
    from_a, from_b = _distances(a, b), _distances(b, a)
    return BoundaryDistance(
        mean=float((from_a.sum() + from_b.sum()) / (from_a.size + from_b.size)),
        hd95=float(max(np.percentile(from_a, 95), np.percentile(from_b, 95))),
    )


def _bounding_box(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _boundary(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(region, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inner


def _distances(source: NDArray[np.bool_], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance from each pixel of `source` to the nearest of `target`."""
    from scipy.ndimage import distance_transform_edt

    distances: NDArray[np.float64] = distance_transform_edt(~target)[source]
    return distances
