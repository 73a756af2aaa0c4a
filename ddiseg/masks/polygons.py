"""Polygons as regions: the pixels that an outline encloses.

pycocotools rasterises, so that a polygon covers the same pixels here as for everyone who scores COCO
files (https://github.com/cocodataset/cocoapi, common/maskApi.c, rleFrPoly).

Arrays: H rows, W columns; regions (H, W) bool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddiseg.errors import InputError
from ddiseg.masks.composition import Region
from ddiseg.masks.mask import MAX_PIXELS
from ddiseg.masks.rle import decode

#: How far outside the picture a corner may lie, as a multiple of its longer edge. Tools write corners
#: just outside; each pixel of an edge costs memory, so a corner a billion pixels away is refused.
_REACH = 10


def fill_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> Region:
    """Return the pixels in any of `polygons`; what lies outside the picture is cut off.

    Args:
        polygons: each x0, y0, x1, y1, ... in pixels from the top left corner of the picture, three
            corners or more, as COCO has them.
        size: (height, width) of the picture.

    Raises:
        InputError: no polygon, fewer than three corners, half a corner, a coordinate that is no
            number or far away, or a picture of more than MAX_PIXELS.
    """
    height, width = size
    if height * width > MAX_PIXELS:
        raise InputError(
            f"its picture is {width} x {height} pixels large; {MAX_PIXELS:,} pixels at most"
        )
    if not polygons:
        raise InputError("it has no polygon: draw it again, or delete it")
    return rasterise([check_polygon(polygon, size) for polygon in polygons], size)


def rasterise(polygons: Sequence[list[float]], size: tuple[int, int]) -> Region:
    """Return the pixels in any of `polygons`, which `check_polygon` returned."""
    from pycocotools import mask as coco

    return decode(coco.merge(coco.frPyObjects(polygons, *size)))


def check_polygon(polygon: Any, size: tuple[int, int]) -> list[float]:
    """Return the coordinates of a polygon over a picture of `size`; raises as `fill_polygons` does."""
    if not isinstance(polygon, list | tuple) or not all(_is_number(value) for value in polygon):
        raise InputError("a polygon is no list of numbers x, y, x, y, ...: export it again")
    if len(polygon) < 6 or len(polygon) % 2:
        raise InputError(
            f"a polygon has {len(polygon)} coordinates; three corners of x and y are the least"
        )
    if not all(
        abs(value) <= _REACH * max(size) for value in polygon
    ):  # nor is what is no number at all
        raise InputError("a polygon has a corner far outside its picture: export it again")
    return [float(value) for value in polygon]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
