"""Outlines of masks as SVG paths."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.report.outlines import UNITS, outlines

PROTOCOL = load_protocol()
LESION, MARKER, RULER, SKIN = (
    PROTOCOL.class_named(name).index for name in ("lesion", "marker", "ruler", "skin")
)


def enclosed(path: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a picture of (height, width) whose centre lies within the lines."""
    from matplotlib.path import Path

    height, width = size
    centres = [(x + 0.5, y + 0.5) for y in range(height) for x in range(width)]
    inside = np.zeros(height * width, dtype=bool)
    for line in filter(None, path.split("z")):
        numbers = [int(text) for text in re.findall(r"-?[0-9]+", line)]
        corners = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0) / UNITS
        inside ^= Path(np.concatenate([corners, corners[:1]])).contains_points(centres)
    return inside.reshape(size)


def mask_of(
    *regions: tuple[int, slice, slice], size: tuple[int, int] = (40, 60)
) -> NDArray[np.uint8]:
    mask = np.full(size, SKIN, np.uint8)
    for index, rows, columns in regions:
        mask[rows, columns] = index
    return mask


def test_outlines__lesion_marker_and_ruler_but_not_skin_and_background() -> None:
    mask = mask_of(
        (LESION, slice(5, 20), slice(5, 20)),
        (MARKER, slice(5, 20), slice(30, 33)),
        (RULER, slice(35, 40), slice(0, 60)),
        (0, slice(0, 3), slice(0, 60)),
    )
    assert list(outlines(mask, mask.shape, PROTOCOL)) == ["lesion", "marker", "ruler"]
    assert outlines(mask_of(), (40, 60), PROTOCOL) == {}


def test_outlines__enclose_exactly_the_region_with_its_hole_and_its_parts() -> None:
    mask = mask_of(
        (LESION, slice(5, 25), slice(5, 25)),
        (SKIN, slice(12, 18), slice(12, 18)),
        (LESION, slice(30, 40), slice(50, 60)),
    )
    path = outlines(mask, mask.shape, PROTOCOL)["lesion"]
    np.testing.assert_array_equal(enclosed(path, mask.shape), mask == LESION)
    assert path.count("z") == 3


@pytest.mark.parametrize("size", [(20, 30), (80, 120), (20, 60)])
def test_outlines__at_the_pictures_size(size: tuple[int, int]) -> None:
    mask = mask_of((LESION, slice(8, 24), slice(12, 36)))
    found = enclosed(outlines(mask, size, PROTOCOL)["lesion"], size)
    height, width = size
    expected = np.zeros(size, dtype=bool)
    expected[height * 8 // 40 : height * 24 // 40, width * 12 // 60 : width * 36 // 60] = True
    np.testing.assert_array_equal(found, expected)


def test_outlines__a_region_smaller_than_a_pixel_of_the_picture_is_still_shown() -> None:
    mask = mask_of((LESION, slice(10, 11), slice(10, 11)), size=(400, 600))
    assert outlines(mask, (40, 60), PROTOCOL)["lesion"].count("z") == 1


def test_outlines__all_of_the_picture() -> None:
    mask = np.full((40, 60), LESION, np.uint8)
    assert enclosed(outlines(mask, (40, 60), PROTOCOL)["lesion"], (40, 60)).all()
