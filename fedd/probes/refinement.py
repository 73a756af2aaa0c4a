"""Refinement of a predicted region along the photograph's colour edges: GrabCut.

Rother, Kolmogorov and Blake, "GrabCut: interactive foreground extraction using iterated graph cuts",
SIGGRAPH 2004, as in OpenCV. What the probes are sure of, inside and outside, is given; GrabCut decides
in between. It works on the region's surroundings at a bounded size, so that its time and memory do not
grow with the photograph.

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids, probabilities (K, h, w) float32.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Probability of the class below which a pixel is surely outside, and above which it is surely inside.
OUTSIDE, INSIDE = 0.3, 0.7

#: Longest side of what GrabCut sees, in pixels, and its iterations: more of either gains nothing
#: (docs/decisions/0036).
SIDE, ITERATIONS = 128, 2

#: Margin of the surroundings around the region that may be inside, in lengths of that region.
MARGIN = 0.5

#: A result outside these multiples of the predicted area is refused.
SMALLEST, LARGEST = 0.5, 2.0

#: Fewest pixels that are surely inside and surely outside: GrabCut fits five Gaussians to each.
FEWEST = 25

#: OpenCV's random numbers are one for the process: its seed and its use must not be interrupted.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Part:
    """A part of a photograph (H, W): its rows and columns in pixels."""

    rows: slice
    columns: slice
    shape: tuple[int, int]  #: (H, W)

    @property
    def slices(self) -> tuple[slice, slice]:
        return self.rows, self.columns

    def positions(self, shape: Sequence[int], grid: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return where the rows and columns of the part, resized to `shape`, are on a grid of the whole.

        In positions of the grid, whose first one is centred at 0.
        """
        found = []
        for part, length, n, m in zip(self.slices, self.shape, shape, grid, strict=True):
            at = part.start + (np.arange(n) + 0.5) / n * (part.stop - part.start)
            found.append((at * (m / length) - 0.5).astype(np.float32))
        return found


def grabcut(
    mask: NDArray[np.uint8],
    photograph: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    class_id: int,
    kept: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Return a mask (H, W) whose region of a class follows the photograph's colour edges.

    The mask itself is returned where it is not safe: no pixel is surely inside or surely outside, or
    the region would shrink or grow beyond SMALLEST and LARGEST times its area. Pixels of the classes
    `kept` stay. What leaves the region gets the most probable other class.
    """
    area = np.count_nonzero(mask == class_id)
    part = _surroundings(probabilities[class_id], mask.shape)
    if not area or part is None:
        return mask
    before = mask[part.slices]
    inside = _cut(photograph[part.slices], before, probabilities[class_id], part, kept)
    if inside is None:
        return mask
    was = before == class_id
    grows, leaves = inside & ~was & ~np.isin(before, kept), was & ~inside
    after = area + np.count_nonzero(grows) - np.count_nonzero(leaves)
    if not SMALLEST * area <= after <= LARGEST * area:
        return mask
    result = mask.copy()
    changed = result[part.slices]
    changed[grows] = class_id
    changed[leaves] = _others(probabilities, class_id, part, before.shape)[leaves]
    return result


def _surroundings(probability: NDArray[np.float32], shape: tuple[int, ...]) -> _Part | None:
    """Return the part of a photograph around what may be inside (h, w); None if nothing may."""
    spans = []
    for axis, length in zip((1, 0), shape, strict=True):
        (found,) = np.nonzero((probability >= OUTSIDE).any(axis))
        if not len(found):
            return None
        low, high = int(found[0]), int(found[-1]) + 1
        margin, scale = max(MARGIN * (high - low), 2), length / probability.shape[1 - axis]
        first = min(length - 1, max(0, int((low - margin) * scale)))
        spans.append(slice(first, max(first + 1, min(length, math.ceil((high + margin) * scale)))))
    return _Part(spans[0], spans[1], (shape[0], shape[1]))


def _cut(
    photograph: NDArray[np.uint8],
    before: NDArray[np.uint8],
    probability: NDArray[np.float32],
    part: _Part,
    kept: Sequence[int],
) -> NDArray[np.bool_] | None:
    """Return what GrabCut takes for the class in a part of a photograph; None where it can't begin."""
    import cv2  # here: who refines nothing need not load it

    height, width = before.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(np.ascontiguousarray(photograph), size, interpolation=cv2.INTER_AREA)
    classes = cv2.resize(np.ascontiguousarray(before), size, interpolation=cv2.INTER_NEAREST)
    rows, columns = part.positions(size[::-1], probability.shape)
    x, y = np.meshgrid(columns, rows)
    p = cv2.remap(probability, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seeds = np.where(p > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seeds[p > INSIDE] = cv2.GC_FGD
    seeds[(p < OUTSIDE) | np.isin(classes, kept)] = cv2.GC_BGD
    counts = np.bincount(seeds.ravel(), minlength=4)
    if min(counts[cv2.GC_BGD], counts[cv2.GC_FGD]) < FEWEST or not counts[2:].any():
        return None
    with _LOCK:
        cv2.setRNGSeed(0)
        outside, own = np.zeros((1, 65)), np.zeros((1, 65))  # where OpenCV keeps its Gaussians
        unused = 0, 0, 1, 1  # a rectangle instead of seeds
        cv2.grabCut(small, seeds, unused, outside, own, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    inside: NDArray[np.bool_] = (
        cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    )
    return inside


def _others(
    probabilities: NDArray[np.float32], class_id: int, part: _Part, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return the most probable class but one, (H, W), of each pixel of a part."""
    without = probabilities.copy()
    without[class_id] = -1
    rows, columns = (
        np.clip(np.rint(at).astype(int), 0, n - 1)
        for at, n in zip(part.positions(shape, without.shape[1:]), without.shape[1:], strict=True)
    )
    found: NDArray[np.uint8] = without.argmax(0).astype(np.uint8)[np.ix_(rows, columns)]
    return found
