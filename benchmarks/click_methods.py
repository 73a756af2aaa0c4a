"""Three ways from clicks to a region: ours, GrabCut and the random walker.

GrabCut: Rother et al., SIGGRAPH 2004, as in OpenCV. Random walker: Grady, "Random walks for image
segmentation", PAMI 28(11), 2006, with Gaussian weights of the colour difference. Both see the clicks
alone, as discs; the photograph's edge counts as outside, unless it was clicked.

Arrays: photographs (H, W, 3) uint8; clicks are in the photograph's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from fedd.clicks import Click, ClickSegmenter

Region = NDArray[np.bool_]

#: Longest side in pixels at which GrabCut and the random walker work, and GrabCut's iterations.
GRABCUT_SIDE, WALKER_SIDE, ITERATIONS = 256, 128, 3

#: Radius of a click's disc, and of what may be inside around a positive one, as shares of the side.
DISC, MAYBE = 0.015, 0.2

#: Strength of a colour edge to the random walker: scikit-image's default.
BETA = 130.0


class Method(Protocol):
    """A photograph prepared for clicks."""

    def region(self, clicks: Sequence[Click]) -> Region: ...


class Ours:
    """The probes' prediction, shifted by the clicks (`fedd.clicks`)."""

    def __init__(self, segmenter: ClickSegmenter, class_id: int) -> None:
        self._segmenter, self._class_id = segmenter, class_id

    def region(self, clicks: Sequence[Click]) -> Region:
        return self._segmenter.region(clicks, self._class_id)


class GrabCut:
    """GrabCut from discs around the clicks."""

    def __init__(self, photograph: NDArray[np.uint8]) -> None:
        self._shape = photograph.shape[:2]
        self._small = shrunk(photograph, GRABCUT_SIDE)

    def region(self, clicks: Sequence[Click]) -> Region:
        import cv2

        shape = self._small.shape[:2]
        mask = np.full(shape, cv2.GC_PR_BGD, np.uint8)
        inside = [c for c in clicks if c.positive]
        mask[discs(inside, self._shape, shape, MAYBE)] = cv2.GC_PR_FGD
        mask[edge(shape)] = cv2.GC_BGD
        mask[discs([c for c in clicks if not c.positive], self._shape, shape, DISC)] = cv2.GC_BGD
        mask[discs(inside, self._shape, shape, DISC)] = cv2.GC_FGD
        cv2.setRNGSeed(0)
        state = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(self._small, mask, None, *state, ITERATIONS, cv2.GC_INIT_WITH_MASK)
        found = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
        return enlarged(clicked_parts(found, inside, self._shape), self._shape)


class RandomWalker:
    """The random walker from discs around the clicks."""

    def __init__(self, photograph: NDArray[np.uint8]) -> None:
        self._shape = photograph.shape[:2]
        small = shrunk(photograph, WALKER_SIDE)
        self._grid = small.shape[:2]
        self._laplacian = laplacian(small)

    def region(self, clicks: Sequence[Click]) -> Region:
        inside = discs([c for c in clicks if c.positive], self._shape, self._grid, DISC)
        outside = discs([c for c in clicks if not c.positive], self._shape, self._grid, DISC)
        outside = (outside | edge(self._grid)) & ~inside
        known = (inside | outside).ravel()
        free = ~known
        among, between = self._laplacian[free][:, free], self._laplacian[free][:, known]
        probability = inside.ravel().astype(float)
        probability[free] = spsolve(among.tocsc(), -between @ probability[known])
        found = probability.reshape(self._grid) > 0.5
        return enlarged(found, self._shape)


def laplacian(photograph: NDArray[np.uint8]) -> sparse.csr_matrix:
    """Return the graph Laplacian (P, P) of the pixels' 4-neighbourhood."""
    height, width = photograph.shape[:2]
    colour = photograph.reshape(-1, 3) / 255.0
    index = np.arange(height * width).reshape(height, width)
    pairs = np.concatenate(
        [
            np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], 1),
            np.stack([index[:-1].ravel(), index[1:].ravel()], 1),
        ]
    )
    squares = ((colour[pairs[:, 0]] - colour[pairs[:, 1]]) ** 2).sum(1)
    # As scikit-image: the strength is relative to the photograph's own contrast.
    weights = np.exp(-BETA * squares / (10 * colour.std())) + 1e-6
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    graph = sparse.csr_matrix((np.tile(weights, 2), (rows, columns)), (index.size, index.size))
    return sparse.csr_matrix(sparse.diags(np.asarray(graph.sum(1)).ravel()) - graph)


def shrunk(photograph: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a photograph whose longest side has at most `side` pixels."""
    import cv2

    scale = side / max(photograph.shape[:2])
    if scale >= 1:
        return photograph
    size = [max(2, round(n * scale)) for n in photograph.shape[1::-1]]
    found: NDArray[np.uint8] = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA).astype(
        np.uint8
    )
    return found


def enlarged(region: Region, shape: Sequence[int]) -> Region:
    """Return a region at the photograph's size."""
    import cv2

    size = (shape[1], shape[0])
    full: Region = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return full


def discs(
    clicks: Sequence[Click], shape: Sequence[int], grid: Sequence[int], radius: float
) -> Region:
    """Return where clicks on an array of `shape` are on a grid, with a radius in shares of its longest side."""
    found = np.zeros(tuple(grid), bool)
    rows, columns = np.ogrid[: grid[0], : grid[1]]
    for click in clicks:
        row, column = (
            (click.y + 0.5) * grid[0] / shape[0] - 0.5,
            (click.x + 0.5) * grid[1] / shape[1] - 0.5,
        )
        far = max(0.75, radius * max(grid))  # at least the nearest position
        found |= (rows - row) ** 2 + (columns - column) ** 2 <= far**2
    return found


def edge(grid: Sequence[int]) -> Region:
    """Return the outermost positions of a grid."""
    found = np.ones(tuple(grid), bool)
    found[1:-1, 1:-1] = False
    return found


def clicked_parts(region: Region, clicks: Sequence[Click], shape: Sequence[int]) -> Region:
    """Return the connected parts of a region on a grid that positive clicks are in."""
    parts, count = ndimage.label(region)
    chosen = np.zeros(count + 1, bool)
    chosen[np.unique(parts[discs(clicks, shape, region.shape, DISC)])] = True
    chosen[0] = False
    found: Region = chosen[parts]
    return found
