"""Outlines of a mask as SVG paths, to lie over the photograph.

Arrays: masks (H, W) uint8 class ids of the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray
from PIL import Image as Picture

from annotation_protocol import Protocol

#: Classes that are outlined; skin and background are what is left, and stay as they are.
OUTLINED = ("lesion", "marker", "ruler")

#: Units of the paths in a pixel of the picture.
UNITS = 2


def outlines(
    mask: NDArray[np.uint8], size: tuple[int, int], protocol: Protocol, coarse: int = 1
) -> dict[str, str]:
    """Return the path data of the outline of each outlined class that the mask has, by class name.

    Args:
        mask: at any size; it is shrunk to the picture's, with outlines between its pixels.
        size: (height, width) of the picture, whose units are UNITS a pixel.
        protocol: the classes.
        coarse: pixels of the picture that an outline treats as one.
    """
    height, width = (max(1, side // coarse) for side in size)
    found = {}
    for name in OUTLINED:
        region = mask == protocol.class_named(name).index
        if region.any():
            lines = _contours(region, (height, width))
            found[name] = "".join(_path(line * coarse) for line in lines)
    return found


def _contours(region: NDArray[np.bool_], size: tuple[int, int]) -> Iterator[NDArray[np.float64]]:
    """Closed lines around a region, (N, 2) x and y in pixels of the picture."""
    height, width = size
    shrunk = Picture.fromarray(region.astype(np.float32)).resize(
        (width, height), Picture.Resampling.BOX
    )
    # Outside the picture is outside the region, so that every line is closed.
    covered = np.pad(np.asarray(shrunk, dtype=np.float64), 1)
    # A region that fills no pixel by half is still shown.
    level = min(0.5, covered.max() / 2)
    generator = contour_generator(z=covered, line_type=LineType.Separate)
    for line in generator.lines(level):
        yield np.clip(np.asarray(line) - 0.5, 0, (width, height))


def _path(line: NDArray[np.float64]) -> str:
    """A closed line in whole units, each point relative to the one before, straight parts as one."""
    points = np.rint(line * UNITS).astype(int)
    steps = np.diff(points, axis=0)
    steps = steps[steps.any(axis=1)]
    merged: list[NDArray[np.int_]] = []
    for step in steps:
        if merged and _same_direction(merged[-1], step):
            merged[-1] = merged[-1] + step
        else:
            merged.append(step)
    moves = "".join(f"l{x} {y}" for x, y in merged)
    return f"M{points[0][0]} {points[0][1]}{moves}z"


def _same_direction(one: NDArray[np.int_], other: NDArray[np.int_]) -> bool:
    return bool(one[0] * other[1] == one[1] * other[0] and one @ other > 0)
