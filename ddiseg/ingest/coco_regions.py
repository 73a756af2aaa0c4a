"""The region of one COCO annotation, compared with its own box and area.

A file may contradict itself: polygons in shares of the picture, run lengths in row order. Its box and area
then tell, and the region is refused rather than stored. Deviations that leave no doubt about the region
are tolerated and told: an area of 0 or that of the box, a box of corners.

Boxes in here are (left, top, right, bottom) in pixels, the right and bottom edge outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddiseg.errors import FileError
from ddiseg.ingest.coco_shapes import Box, Polygons, Runs, bounds, read_shape
from ddiseg.ingest.labelled_masks import NO_PIXELS
from ddiseg.json_values import finite_number
from ddiseg.masks.composition import Region
from ddiseg.outcomes import counted

#: Largest distance of the edges of two boxes that agree, in pixels and as a share of the longer side.
BOX_PIXELS, BOX_SHARE = 2.0, 0.01

#: Largest difference of two areas that agree.
AREA_SHARE = 0.05

NO_SEGMENTATION = "a box or keypoints without a segmentation: left out"
OUTSIDE = "wholly outside the picture: left out"
FEW_CORNERS = "a polygon of fewer than three corners: left out"
FROM_POINTS = "a polygon of points [[x, y], ...]: read as x, y, x, y, ..."
AREA_OF_BOX = "area is that of the box"
AREA_SHARE_OF_PICTURE = "area is a share of the picture"
CORNER_BOX = "box is x1, y1, x2, y2 instead of x, y, width, height"
NORMALISED_BOX = "box is in shares of the picture (0..1)"
HOLES = "polygons inside another polygon were read as holes, as the area says"
NESTED = "a polygon lies inside another of the same region: if it is a hole, export masks (RLE), which keep it"


@dataclass(frozen=True, eq=False)
class CocoRegion:
    """The pixels of an annotation, (H, W) bool; None where it has none and is left out."""

    region: Region | None
    remarks: tuple[str, ...] = ()  #: why it is left out, or what was tolerated


def read_region(annotation: Mapping[str, Any], size: tuple[int, int]) -> CocoRegion:
    """Read the region of an annotation over a picture of `size`, (height, width).

    Raises:
        InputError: a segmentation that can't be read, or one that its box or area contradicts; says what
            it looks like.
    """
    shape = read_shape(annotation.get("segmentation"), size)
    if shape is None:
        return CocoRegion(None, (NO_SEGMENTATION,))
    return _Comparison(shape, _box(annotation.get("bbox")), _area(annotation), size).run()


def has_box(annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation has a box that its region can be compared with."""
    return _box(annotation.get("bbox")) is not None


def has_area(annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation has an area that its region can be compared with."""
    return _area(annotation) is not None


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A shape against the box and the area that its annotation names."""

    shape: Polygons | Runs
    named_box: tuple[float, ...] | None  #: four numbers as they are in the file
    area: float | None
    size: tuple[int, int]

    def run(self) -> CocoRegion:
        shape, remarks = self.shape, []
        if isinstance(shape, Polygons):
            if not shape.parts:
                return CocoRegion(None, (FEW_CORNERS,))
            remarks += [FEW_CORNERS] if shape.short else []
            remarks += [FROM_POINTS] if shape.from_points else []
            if shape.normalised:
                raise self._fault(
                    "coordinates look normalised (0..1); multiply by width and height"
                )
        region = shape.region
        if isinstance(shape, Polygons) and len(shape.parts) > 1:
            region, told = self._holes(shape)
            remarks += told
        if self.named_box is not None:
            remarks += self._check_box(region)
        if not region.any():
            if self.area is not None and not shape.outside and self._area_remark(region) is None:
                raise self._fault(self._look(region))
            return CocoRegion(None, (OUTSIDE if shape.outside else NO_PIXELS,))
        if self.area is not None:
            remark = self._area_remark(region)
            if remark is None:
                raise self._fault(self._look(region))
            remarks += [remark] if remark else []
        return CocoRegion(region, tuple(remarks))

    def _holes(self, shape: Polygons) -> tuple[Region, list[str]]:
        """Return the region with holes where its area says so; COCO itself unites polygons."""
        contradicted = self.area is not None and self._area_remark(shape.region) is None
        if contradicted and self._near_area(shape.with_holes, self.area or 0):
            return shape.with_holes, [HOLES]
        return shape.region, [NESTED] if shape.nested else []

    def _check_box(self, region: Region) -> list[str]:
        """Return what is unusual about the box; raises where it contradicts the region."""
        assert self.named_box is not None
        height, width = self.size
        x, y, w, h = self.named_box
        readings: list[tuple[str, Box]] = [
            ("", (x, y, x + w, y + h)),
            (CORNER_BOX, (x, y, w, h)),
            (NORMALISED_BOX, (x * width, y * height, (x + w) * width, (y + h) * height)),
        ]
        for remark, box in readings:
            if any(self._near_box(box, known) for known in (bounds(region), self.shape.corners)):
                return [remark] if remark else []
        raise self._fault(self._look(region))

    def _look(self, region: Region) -> str | None:
        """Return what a region looks like that its box or area contradicts; None: nothing known."""
        if self.named_box is not None:
            x, y, w, h = self.named_box
            box = (x, y, x + w, y + h)
            ours = bounds(region)
            if not self._near_box(box, ours):
                for look, fixed in self.shape.fixes:
                    if self._near_box(box, fixed):
                        return look
                if self._near_box((y, x, y + h, x + w), ours):
                    return "box looks like y, x, height, width"
                if factor := _factor(box, ours):
                    return f"drawn on the picture at another size: the box is {factor:.2f} times as large"
                return None
        if self.area is None:
            return None
        count = np.count_nonzero(region)
        if isinstance(self.shape, Runs):
            other = region.size - count
            if abs(other - self.area) <= AREA_SHARE * self.area:
                return "RLE looks inverted: the first run is outside the region"
        elif self.area < count:
            return "a polygon that lost its hole; export masks (RLE), which keep it"
        return None

    def _fault(self, look: str | None) -> FileError:
        ours = bounds(self.shape.region)
        pixels = int(np.count_nonzero(self.shape.region))
        facts = [
            f"its region covers {counted(pixels, 'pixel')}" + (f", {_words(ours)}" if ours else "")
        ]
        if self.named_box is not None:
            facts.append(f"its bbox says {', '.join(f'{v:g}' for v in self.named_box)}")
        if self.area is not None:
            facts.append(f"its area {self.area:,g}")
        kind = look or "box or area contradict the region: export it again"
        return FileError(f"{kind} ({', '.join(facts)})", kind)

    def _area_remark(self, region: Region) -> str | None:
        """Return what is unusual about the area, "" for nothing; None where it contradicts the region."""
        assert self.area is not None
        height, width = self.size
        drawn = self.shape.drawn_area
        if self._near_area(region, self.area) or (
            drawn is not None and abs(drawn - self.area) <= max(AREA_SHARE * self.area, 1)
        ):
            return ""
        if self.named_box is not None:
            x, y, w, h = self.named_box
            areas = (w * h, (w - x) * (h - y), width * height * w * h)
            if any(abs(a - self.area) <= max(AREA_SHARE * self.area, 1) for a in areas):
                return AREA_OF_BOX
        if self._near_area(region, self.area * height * width):
            return AREA_SHARE_OF_PICTURE
        return None

    def _near_area(self, region: Region, area: float) -> bool:
        """Whether a region has an area, to 5 % or, of a polygon, half a pixel along its outline.

        An outline through the centres of the outermost pixels encloses half of each (Pick's theorem).
        """
        count = int(np.count_nonzero(region))
        slack = self.shape.rim + 1
        return abs(count - area) <= max(AREA_SHARE * max(count, area), slack)

    def _near_box(self, box: Box, known: Box | None) -> bool:
        """Whether two boxes agree, as they are or what lies of them in the picture."""
        if known is None:
            return False
        slack = max(BOX_PIXELS, BOX_SHARE * max(known[2] - known[0], known[3] - known[1]))
        pairs = ((box, known), (self._clip(box), self._clip(known)))
        return any(max(abs(p - q) for p, q in zip(a, b, strict=True)) <= slack for a, b in pairs)

    def _clip(self, box: Box) -> Box:
        height, width = self.size
        left, top, right, bottom = box
        return (
            min(max(left, 0), width),
            min(max(top, 0), height),
            min(max(right, 0), width),
            min(max(bottom, 0), height),
        )


def _box(given: Any) -> tuple[float, ...] | None:
    """Return the four numbers of a box; None where it is missing or has no size."""
    if not isinstance(given, list | tuple) or len(given) != 4:
        return None
    box = tuple(v for value in given if (v := finite_number(value)) is not None)
    return box if len(box) == len(given) and any(box) else None


def _area(annotation: Mapping[str, Any]) -> float | None:
    """Return the area; None where it is missing, 0 or no number, as some tools write it."""
    area = finite_number(annotation.get("area"))
    return area if area is not None and area > 0 else None


def _factor(box: Box, ours: Box | None) -> float | None:
    """Return by how much a box is larger than the region's, where all of it is; else None."""
    if ours is None or min(ours[2] - ours[0], ours[3] - ours[1]) < 1:
        return None
    wide, high = (box[2] - box[0]) / (ours[2] - ours[0]), (box[3] - box[1]) / (ours[3] - ours[1])
    if min(wide, high) <= 0 or abs(wide / high - 1) > 0.1 or abs(wide - 1) < 0.05:
        return None
    slack = max(BOX_PIXELS, BOX_SHARE * max(box)) * max(1, wide)
    moved = (abs(b - o * wide) > slack for b, o in zip(box, ours, strict=True))
    return None if any(moved) else wide


def _words(box: Box) -> str:
    left, top, right, bottom = box
    return f"x {left:g} to {right:g}, y {top:g} to {bottom:g}"
