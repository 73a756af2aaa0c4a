"""Regions against their own box and area: what contradicts is refused, what leaves no doubt is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ddiseg.errors import FileError, InputError
from ddiseg.ingest import coco_regions
from ddiseg.ingest.coco_regions import read_region
from ddiseg.masks import rle

HEIGHT, WIDTH = SIZE = (60, 90)
BOX = [18, 12, 36, 30]
#: BOX as a polygon.
OUTLINE = [18, 12, 54, 12, 54, 42, 18, 42]
REGION = np.zeros(SIZE, bool)
REGION[12:42, 18:54] = True
#: A ring of a pen, 3 pixels wide, and its two outlines as cv2.findContours has them.
RING = np.zeros(SIZE, bool)
RING[10:50, 20:60] = True
RING[13:47, 23:57] = False
OUTER = [20, 10, 20, 49, 59, 49, 59, 10]
INNER = [22, 12, 57, 12, 57, 47, 22, 47]


def runs(region: NDArray[np.bool_], **changes: Any) -> dict[str, Any]:
    return {**rle.encode(region), **changes}


def read(segmentation: Any, bbox: Any = None, area: Any = None) -> coco_regions.CocoRegion:
    return read_region({"segmentation": segmentation, "bbox": bbox, "area": area}, SIZE)


@pytest.mark.parametrize("segmentation", [[OUTLINE], OUTLINE, runs(REGION)])
@pytest.mark.parametrize(
    ("bbox", "area", "remarks"),
    [
        (BOX, 1080, ()),
        (BOX, None, ()),
        (BOX, 0, ()),
        (None, 1080, ()),
        (None, None, ()),
        ([], float("nan"), ()),
        ([0, 0, 0, 0], "", ()),
        ([17, 11, 37.5, 31], 1100.0, ()),
        (["18", "12", "36", "30"], "1080", ()),
        (BOX, 1120, ()),
        (BOX, 1080 / (90 * 60), (coco_regions.AREA_SHARE_OF_PICTURE,)),
        ([18, 12, 54, 42], 1080, (coco_regions.CORNER_BOX,)),
        ([0.2, 0.2, 0.4, 0.5], 1080, (coco_regions.NORMALISED_BOX,)),
    ],
)
def test_read_region__agrees(segmentation: Any, bbox: Any, area: Any, remarks: Any) -> None:
    found = read(segmentation, bbox, area)
    np.testing.assert_array_equal(found.region, REGION)
    assert found.remarks == remarks


def test_read_region__area_of_the_box() -> None:
    """As Roboflow and supervision write it."""
    corner = [18, 12, 54, 12, 18, 42]
    assert read([corner], BOX, 1080).remarks == (coco_regions.AREA_OF_BOX,)


SWAPPED = [v for x, y in zip(OUTLINE[::2], OUTLINE[1::2], strict=True) for v in (y, x)]
SHARES = [v / side for v, side in zip(OUTLINE, [WIDTH, HEIGHT] * 4, strict=True)]
PERCENT = [100 * v for v in SHARES]
HALF = [v / 2 for v in OUTLINE]
ROW_MAJOR = {"size": [60, 90], "counts": np.diff(
    np.flatnonzero(np.diff(REGION.ravel(), prepend=False, append=False)), prepend=0, append=5400
).tolist()}  # fmt: skip
INVERTED = runs(~REGION)


@pytest.mark.parametrize(
    ("segmentation", "bbox", "area", "look"),
    [
        ([SHARES], BOX, 1080, "coordinates look normalised (0..1)"),
        ([SHARES], [0.2, 0.2, 0.4, 0.5], 0.2, "coordinates look normalised (0..1)"),
        ([SHARES], None, None, "coordinates look normalised (0..1)"),
        ([[0, 0, 1, 0, 1, 1, 0, 1]], [0, 0, 1, 1], 1, "coordinates look normalised (0..1)"),
        ([PERCENT], BOX, 1080, "coordinates look like percent"),
        ([SWAPPED], BOX, 1080, "x and y are swapped"),
        ([OUTLINE], [12, 18, 30, 36], 1080, "x and y are swapped"),
        (runs(REGION), [12, 18, 30, 36], 1080, "box looks like y, x, height, width"),
        ([HALF], BOX, 1080, "the box is 2.00 times as large"),
        (ROW_MAJOR, BOX, 1080, "RLE looks row-major"),
        (INVERTED, BOX, 1080, "RLE looks inverted"),
        (INVERTED, None, 1080, "RLE looks inverted"),
        ([OUTER], [20, 10, 40, 40], 444, "lost its hole"),
        ([OUTLINE], [50, 12, 36, 30], 1080, "box or area contradict"),
        ([OUTLINE], BOX, 1300, "box or area contradict"),
        (runs(REGION), BOX, 980, "box or area contradict"),
        (runs(np.zeros(SIZE, bool)), None, 1400, "box or area contradict"),
    ],
)
def test_read_region__contradiction(segmentation: Any, bbox: Any, area: Any, look: str) -> None:
    with pytest.raises(FileError, match="its region covers") as raised:
        read(segmentation, bbox, area)
    assert look in str(raised.value)
    assert look in raised.value.kind
    assert "pixels" not in raised.value.kind


@pytest.mark.parametrize(
    ("segmentation", "bbox", "area", "why"),
    [
        ([], BOX, 1080, coco_regions.NO_SEGMENTATION),
        ([[]], [40, 40, 1, 1], 0, coco_regions.NO_SEGMENTATION),
        (None, BOX, 1080, coco_regions.NO_SEGMENTATION),
        ([[5, 5, 9, 9]], None, 4, coco_regions.FEW_CORNERS),
        ([[100, 5, 120, 5, 120, 9]], [100, 5, 20, 4], 40, coco_regions.OUTSIDE),
        ([[-9, -9, -5, -9, -5, -5]], None, None, coco_regions.OUTSIDE),
        ([[5, 5, 9, 5, 7, 5]], [5, 5, 4, 0], 0, coco_regions.NO_PIXELS),
        (runs(np.zeros(SIZE, bool)), [0, 0, 0, 0], 0, coco_regions.NO_PIXELS),
    ],
)
def test_read_region__left_out(segmentation: Any, bbox: Any, area: Any, why: str) -> None:
    found = read(segmentation, bbox, area)
    assert (found.region, found.remarks) == (None, (why,))


def test_read_region__partly_outside() -> None:
    """Its box and area are those of the whole outline, or of what is in the picture."""
    outline = [80, 12, 110, 12, 110, 42, 80, 42]
    for bbox, area in (([80, 12, 30, 30], 900), ([80, 12, 10, 30], 300)):
        found = read([outline], bbox, area)
        assert found.region is not None
        assert (found.region.sum(), found.remarks) == (300, ())


def test_read_region__hole_by_the_area() -> None:
    """Nested polygons are one region to COCO; where the area is that of the ring they are its hole."""
    found = read([OUTER, INNER], [20, 10, 40, 40], int(RING.sum()))
    assert found.remarks == (coco_regions.HOLES,)
    assert found.region is not None
    assert not found.region[15:45, 25:55].any()
    assert found.region[RING].mean() > 0.6
    filled = read([OUTER, INNER], [20, 10, 40, 40])
    assert filled.remarks == (coco_regions.NESTED,)
    assert filled.region is not None
    assert filled.region[30, 40]


def test_read_region__polygons_beside_each_other_are_no_holes() -> None:
    other = [60, 12, 80, 12, 80, 42, 60, 42]
    assert read([OUTLINE, other], [18, 12, 62, 30], 1680).remarks == ()
    bay = [18, 12, 54, 12, 54, 42, 18, 42, 18, 36, 48, 36, 48, 18, 18, 18]
    assert read([bay, [20, 20, 40, 20, 40, 30, 20, 30]]).remarks == ()


def test_read_region__some_polygons_too_short() -> None:
    found = read([OUTLINE, [70, 50], [70, 50, 71, 50]], BOX, 1080)
    assert found.remarks == (coco_regions.FEW_CORNERS,)
    np.testing.assert_array_equal(found.region, REGION)


@pytest.mark.parametrize("size", [[60.0, 90.0], ["60", "90"]])
def test_read_region__sizes_as_floats_and_texts(size: Any) -> None:
    counts = [float(n) for n in coco_uncompressed(REGION)]
    for segmentation in (runs(REGION, size=size), {"size": size, "counts": counts}):
        np.testing.assert_array_equal(read(segmentation, BOX, 1080).region, REGION)


def coco_uncompressed(region: NDArray[np.bool_]) -> list[int]:
    flat = region.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    return np.diff(edges, prepend=0, append=flat.size).tolist()


def test_read_region__rle_of_width_and_height() -> None:
    with pytest.raises(InputError, match=r"looks like \[width, height\]"):
        read(runs(REGION.T.copy()))


@pytest.mark.property
@given(arrays(np.bool_, (7, 9)))
def test_read_region__box_and_area_of_pycocotools_agree(region: NDArray[np.bool_]) -> None:
    encoded = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
    annotation = {
        "segmentation": {"size": [7, 9], "counts": encoded["counts"].decode()},
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "area": float(coco_mask.area(encoded)),
    }
    found = read_region(annotation, (7, 9))
    if region.any():
        np.testing.assert_array_equal(found.region, region)
        assert found.remarks == ()
    else:
        assert found.remarks == (coco_regions.NO_PIXELS,)


@pytest.mark.property
@given(
    points=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=3, max_size=8),
    as_drawn=st.booleans(),
)
def test_read_region__polygons_with_the_box_and_area_of_pycocotools_agree(
    points: list[tuple[int, int]], *, as_drawn: bool
) -> None:
    """Outlines of any shape, also those that cross themselves; their box as drawn or as filled."""
    polygon = [float(v) for point in points for v in point]
    encoded = coco_mask.frPyObjects([polygon], 30, 40)[0]
    xs, ys = polygon[::2], polygon[1::2]
    drawn = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    box = drawn if as_drawn else coco_mask.toBbox(encoded).tolist()
    annotation = {"segmentation": [polygon], "bbox": box, "area": float(coco_mask.area(encoded))}
    if max(polygon) > 1:
        read_region(annotation, (30, 40))


@pytest.mark.parametrize("shape", ["listed", "bare", "contour"])
def test_read_region__nested_points(shape: str) -> None:
    """[[x, y], ...] with and without the list around it, and as OpenCV's contours are."""
    corners = [[6, 4], [12, 4], [12, 8], [6, 8]]
    given = {"listed": [corners], "bare": corners, "contour": [[[c] for c in corners]]}[shape]
    flat = read([[value for corner in corners for value in corner]], [6, 4, 6, 4], 24)
    points = read(given, [6, 4, 6, 4], 24)
    assert points.region is not None
    assert flat.region is not None
    np.testing.assert_array_equal(points.region, flat.region)
    assert points.remarks == (coco_regions.FROM_POINTS,)
