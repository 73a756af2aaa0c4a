"""Read a region of Label Studio's JSON into a layer of a mask.

Its fields: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ddiseg.errors import InputError
from ddiseg.json_values import size_of, whole_numbers
from ddiseg.masks import brush_rle
from ddiseg.masks.composition import Layer, Origin, Region
from ddiseg.masks.polygons import fill_polygons

BRUSH, POLYGON = "brushlabels", "polygonlabels"

#: Largest coordinate, in percent of the picture's width or height.
_FARTHEST = 1000


def read_region(
    region: Mapping[str, Any], size: tuple[int, int], class_id: Callable[[str], int]
) -> Layer:
    """Return the layer of a brush region or a polygon.

    Args:
        region: an entry of an annotation's `result`, of type BRUSH or POLYGON.
        size: (height, width) of the picture that it lies over.
        class_id: the class of a label; what it raises goes through.

    Raises:
        InputError: not exactly one label, another size, or a shape that can't be read.
    """
    kind = str(region.get("type"))
    value = region.get("value")
    value = value if isinstance(value, Mapping) else {}
    labels = value.get(kind)
    labels = labels if isinstance(labels, list) else []
    if len(labels) != 1:
        raise InputError(f"a region has {len(labels)} labels instead of one: give it one")
    height, width = region.get("original_height"), region.get("original_width")
    if size_of(height, width) != size:
        raise InputError(
            f"a region of {labels[0]} is {width} x {height} pixels, the picture is "
            f"{size[1]} x {size[0]}: it can't lie over it and is never resized; delete it and draw "
            "it again"
        )
    index = class_id(str(labels[0]))
    inside = _polygon(value, size) if kind == POLYGON else _brush(value, str(labels[0]), size)
    try:
        origin = Origin(region.get("origin") or Origin.MANUAL)
    except ValueError:
        origin = Origin.MANUAL
    return Layer(index, inside, origin, f"region {region.get('id')}")


def _brush(value: Mapping[str, Any], label: str, size: tuple[int, int]) -> Region:
    if value.get("format") != "rle":
        raise InputError(f"a region of {label} is no brush stroke ({value.get('format')})")
    alpha = brush_rle.decode(whole_numbers(value.get("rle")) or [], size)
    region: Region = alpha >= brush_rle.ALPHA_THRESHOLD
    return region


def _polygon(value: Mapping[str, Any], size: tuple[int, int]) -> Region:
    """Return the pixels of a polygon with corners in percent of the picture's size."""
    points = value.get("points")
    if not isinstance(points, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(_is_percent(share) for share in p)
        for p in points
    ):
        raise InputError("a polygon has no list of corners, [x, y] in percent: export it again")
    height, width = size
    if len(points) < 3:  # somebody clicked once or twice and left it
        return np.zeros(size, np.bool_)
    corners = [
        share * side / 100
        for point in points
        for share, side in zip(point, (width, height), strict=True)
    ]
    return fill_polygons([corners], size)


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= _FARTHEST
