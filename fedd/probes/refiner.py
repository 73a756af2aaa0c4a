"""The refinement pass: the predicted lesion's surroundings are predicted again, enlarged.

A small lesion covers a few positions of the network's coarse grids, and its prediction spills over its
edge. In a window around the first prediction, stretched to the network's full size, the edge gets many
more positions (docs/decisions/0010).

Arrays: photographs (H, W, 3) uint8, masks (h, w) uint8 class ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedd.dataset import UNKNOWN
from fedd.probes.pixels import Example

#: Length of a window in lengths of the lesion: in prediction, and in training (from, to).
REACH, TRAINED_REACH = 1.5, (1.3, 3.2)

#: Shortest window, as a share of the photograph's width and height.
SHORTEST = 0.2

#: Windows of each training mask, and their largest shift, in lengths of the window.
WINDOWS, SHIFT = 2, 0.15

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True)
class Window:
    """A part of a photograph with the photograph's aspect ratio; in shares of height and width, 0 to 1."""

    top: float
    left: float
    length: float

    def slices(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the window's rows and columns in an array of this size; at least one of each."""
        return _slice(self.top, self.length, height), _slice(self.left, self.length, width)

    def of(self, array: NDArray[_Number]) -> NDArray[_Number]:
        """Return this part of a photograph or a mask of any size."""
        return np.ascontiguousarray(array[self.slices(*array.shape[:2])])


def window_around(
    lesion: NDArray[np.bool_], reach: float, shift: tuple[float, float] = (0.0, 0.0)
) -> Window | None:
    """Return the window around the largest connected part of `lesion` (h, w); None if it is empty.

    It is `reach` times as long as that part and shifted by `shift` (down, right) of its own length, but
    stays inside the photograph.
    """
    from scipy import ndimage  # here: who has no refinement pass needs no scipy

    parts, count = ndimage.label(lesion)
    if not count:
        return None
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    bounds = ndimage.find_objects(parts)[largest - 1]
    spans = [(b.start / size, b.stop / size) for b, size in zip(bounds, lesion.shape, strict=True)]
    length = min(1.0, max(reach * max(stop - start for start, stop in spans), SHORTEST))
    top, left = (
        min(max((start + stop - length) / 2 + away * length, 0.0), 1.0 - length)
        for (start, stop), away in zip(spans, shift, strict=True)
    )
    return Window(top, left, length)


def lesion_windows(example: Example, lesion: int, name: str) -> Iterator[Example]:
    """Yield windows around an example's lesion, if it shows one; `name` seeds their reach and shift.

    A mask that is labelled in part may show strokes of the lesion: their window is around them all.
    """
    shown = _extent(example.mask, lesion)
    seed = int.from_bytes(hashlib.sha256(f"close-ups {name}".encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    for _ in range(WINDOWS):
        down, right = rng.uniform(-SHIFT, SHIFT, 2)
        window = window_around(shown, rng.uniform(*TRAINED_REACH), (down, right))
        if window is not None:
            yield replace(
                example,
                photograph=window.of(example.photograph),
                mask=window.of(example.mask),
                corrected=None if example.corrected is None else window.of(example.corrected),
            )


def _extent(mask: NDArray[np.uint8], lesion: int) -> NDArray[np.bool_]:
    """Return the lesion of a mask (h, w); its bounding box where other pixels are unknown."""
    shown: NDArray[np.bool_] = mask == lesion
    if shown.any() and (mask == UNKNOWN).any():
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return shown


def _slice(start: float, length: float, size: int) -> slice:
    first = min(round(start * size), size - 1)
    return slice(first, min(size, first + max(1, round(length * size))))
