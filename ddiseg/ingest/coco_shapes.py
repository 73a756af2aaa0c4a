"""The segmentation of a COCO annotation: polygons, or run lengths.

Boxes in here are (left, top, right, bottom) in pixels, the right and bottom edge outside.

Arrays: H rows, W columns; regions (H, W) bool.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddiseg.errors import InputError
from ddiseg.json_values import size_of
from ddiseg.masks import rle
from ddiseg.masks.composition import Region
from ddiseg.masks.polygons import check_polygon, rasterise

#: Pairs of polygons of one region that are compared for holes.
_PAIRS = 64

Box = tuple[float, float, float, float]


def read_shape(segmentation: Any, size: tuple[int, int]) -> Polygons | Runs | None:
    """Return polygons or run lengths over a picture of `size`; None for an annotation without either.

    Raises:
        InputError: neither of the two, or of another size.
    """
    if isinstance(segmentation, dict):
        given = segmentation.get("size")
        sides = size_of(*given) if isinstance(given, list | tuple) and len(given) == 2 else None
        if sides != size:
            swapped = sides is not None and sides[::-1] == size
            look = ": it looks like [width, height]" if swapped else ""
            raise InputError(
                f"its RLE has the size {given}, its image {list(size)} (height, width){look}: export "
                "it again"
            )
        return Runs(rle.decode(segmentation))
    if segmentation is not None and not isinstance(segmentation, list):
        raise InputError("its segmentation is no list of polygons and no RLE: export it again")
    segmentation = [part for part in segmentation or () if part != []]
    if not segmentation:
        return None
    if all(isinstance(value, int | float) for value in segmentation):
        segmentation = [segmentation]  # one polygon that is not in a list
    segmentation, points = _from_points(segmentation)
    # What has one or two corners covers nothing; pycocotools would take four numbers for a box.
    long = [part for part in segmentation if not (isinstance(part, list) and len(part) in (2, 4))]
    parts = [check_polygon(part, size) for part in long]
    return Polygons(parts, size, len(segmentation) - len(parts), points)


def _from_points(segmentation: list[Any]) -> tuple[list[Any], bool]:
    """Return polygons as x, y, x, y, ..., and whether they came as points: [[x, y], ...].

    OpenCV has each point in a list of its own, and a polygon may lack the list around it.
    """
    flat = [_flat(part) for part in segmentation]
    points = flat != segmentation
    if len(flat) > 2 and all(_is_point(part) for part in flat):
        return [[value for point in flat for value in point]], True
    return flat, points


def _flat(part: Any) -> Any:
    """Return points as their coordinates, anything else as it is."""
    if not isinstance(part, list) or not part:
        return part
    points = [p[0] if isinstance(p, list) and len(p) == 1 else p for p in part]
    return [v for p in points for v in p] if all(_is_point(p) for p in points) else part


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, int | float) for v in value)
    )


@dataclass(frozen=True, eq=False)
class Runs:
    """A region that came as run lengths."""

    region: Region

    @property
    def fixes(self) -> Iterable[tuple[str, Box | None]]:
        """What the region may look like, with the box that it would then have."""
        rows = self.region.T.ravel().reshape(self.region.shape)
        yield (
            "RLE looks row-major: run lengths go down the columns, one after the other",
            bounds(rows),
        )
        yield "RLE looks inverted: the first run is outside the region", bounds(~self.region)

    outside = False
    corners: Box | None = None
    drawn_area: float | None = None
    rim = 0.0


@dataclass(frozen=True, eq=False)
class Polygons:
    """A region that came as polygons: x0, y0, x1, y1, ..."""

    parts: list[list[float]]  #: of three corners or more
    size: tuple[int, int]
    short: int  #: number of polygons of one or two corners
    from_points: bool = False  #: they came as [[x, y], ...]

    @cached_property
    def region(self) -> Region:
        return rasterise(self.parts, self.size)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """(N, 2) x and y."""
        return np.array([v for part in self.parts for v in part], np.float64).reshape(-1, 2)

    @property
    def corners(self) -> Box:
        return _span(self.points)

    @property
    def outside(self) -> bool:
        """Whether no part of it lies in the picture."""
        height, width = self.size
        left, top, right, bottom = self.corners
        return right <= 0 or bottom <= 0 or left >= width or top >= height

    @property
    def normalised(self) -> bool:
        """Whether all coordinates are 0 to 1, in a picture of more than a few pixels."""
        points = self.points
        return min(self.size) > 2 and bool(((points >= 0) & (points <= 1)).all())

    @property
    def drawn_area(self) -> float | None:
        """Area within the outlines, where they leave the picture too (the shoelace formula)."""
        total = 0.0
        for part in self.parts:
            x, y = np.array(part[::2]), np.array(part[1::2])
            total += abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
        return total

    @property
    def rim(self) -> float:
        """Pixels in a strip of half a pixel along its outlines."""
        lines = (np.array(part + part[:2]).reshape(-1, 2) for part in self.parts)
        return sum(float(np.hypot(*np.diff(line, axis=0).T).sum()) / 2 + 1 for line in lines)

    @cached_property
    def with_holes(self) -> Region:
        """The pixels in an odd number of its polygons."""
        inside = np.zeros(self.size, np.bool_)
        for part in self.parts:
            inside ^= rasterise([part], self.size)
        return inside

    @property
    def nested(self) -> bool:
        """Whether a polygon lies wholly inside another one."""
        boxes = [_span(np.array(part).reshape(-1, 2)) for part in self.parts]
        order = sorted(range(len(boxes)), key=lambda n: boxes[n])
        pairs = (
            (inner, outer)
            for inner in order
            for outer in order
            if inner != outer and _inside(boxes[inner], boxes[outer])
        )
        return any(self._covered(self.parts[a], self.parts[b]) for a, b in islice(pairs, _PAIRS))

    def _covered(self, inner: list[float], outer: list[float]) -> bool:
        """Whether `outer` covers each pixel of `inner`."""
        left, top, right, bottom = _span(np.array(inner).reshape(-1, 2))
        x, y = math.floor(left), math.floor(top)
        window = math.ceil(bottom) - y + 1, math.ceil(right) - x + 1
        one, other = (
            rasterise([(np.array(part).reshape(-1, 2) - (x, y)).ravel().tolist()], window)
            for part in (inner, outer)
        )
        return bool(one.any() and other[one].all())

    @property
    def fixes(self) -> Iterable[tuple[str, Box | None]]:
        height, width = self.size
        yield "x and y are swapped, in the polygons or in the bbox", _span(self.points[:, ::-1])
        percent = self.points * (width / 100, height / 100)
        yield (
            "coordinates look like percent; multiply by width / 100 and height / 100",
            _span(percent),
        )


def _span(points: NDArray[np.float64]) -> Box:
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    return left, top, right, bottom


def _inside(inner: Box, outer: Box) -> bool:
    return (
        inner[0] >= outer[0]
        and inner[1] >= outer[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def bounds(region: Region) -> Box | None:
    """Return the smallest box around the pixels of a region; None without any."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1
