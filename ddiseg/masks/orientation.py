"""EXIF orientations: turn a mask as its photograph is turned to stand upright.

Source: Exif 2.32 (CIPA DC-008), 4.6.4.A, tag 274; the same turns as Pillow's `ImageOps.exif_transpose`.

Arrays: H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Orientation of a photograph whose file is upright already.
UPRIGHT = 1


def turn_upright(mask: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an (H, W) mask, or an (H, W, 3) photograph, of the file's raw pixels as it lies over the upright photograph.

    Args:
        orientation: 1 to 8; 5 to 8 swap the sides.

    Raises:
        ValueError: not 1 to 8.
    """
    if not 1 <= orientation <= 8:
        raise ValueError(f"EXIF orientation {orientation}: 1 to 8")
    turned = {
        1: mask,
        2: mask[:, ::-1],
        3: mask[::-1, ::-1],
        4: mask[::-1],
        5: mask.swapaxes(0, 1),
        6: np.rot90(mask, -1),
        7: mask[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(mask),
    }[orientation]
    return np.ascontiguousarray(turned)


def raw_size(upright: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the (height, width) of the file of a photograph that is `upright` after its turn."""
    height, width = upright
    return (width, height) if orientation >= 5 else (height, width)
