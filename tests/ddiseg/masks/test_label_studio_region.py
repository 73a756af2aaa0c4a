"""Brush strokes are tested where annotations are read, tests/ddiseg/labelstudio/test_parse.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddiseg.errors import InputError
from ddiseg.masks import Origin, brush_rle
from ddiseg.masks.label_studio_region import BRUSH, POLYGON, read_region
from tests.wording import Refusal

SIZE = (6, 10)
SQUARE = [[20, 50], [50, 50], [50, 100], [20, 100]]  # percent of width and height


def polygon(points: Any = SQUARE, **columns: Any) -> dict[str, Any]:
    value = {"points": points, "polygonlabels": ["nevus"]}
    region = {"type": POLYGON, "original_height": 6, "original_width": 10, "value": value}
    return {**region, **columns}


def test_read_region__polygon_in_percent() -> None:
    layer = read_region(polygon(), SIZE, {"nevus": 1}.__getitem__)
    expected = np.zeros(SIZE, bool)
    expected[3:6, 2:5] = True
    np.testing.assert_array_equal(layer.region, expected)
    assert (layer.class_id, layer.origin) == (1, Origin.MANUAL)


@pytest.mark.parametrize("origin", list(Origin))
def test_read_region__brush_and_origin(origin: Origin) -> None:
    drawn = np.arange(60).reshape(SIZE) % 7 == 0
    value = {"format": "rle", "rle": brush_rle.encode(drawn), "brushlabels": ["pen"]}
    size = {"original_height": 6, "original_width": 10}
    layer = read_region(
        {"type": BRUSH, "origin": origin.value, "value": value, **size}, SIZE, lambda _label: 2
    )
    np.testing.assert_array_equal(layer.region, drawn)
    assert (layer.class_id, layer.origin) == (2, origin)


@pytest.mark.parametrize("points", [[], [[1, 2]], [[1, 2], [3, 4]]])
def test_read_region__too_few_corners_cover_nothing(points: list[list[int]]) -> None:
    layer = read_region(polygon(points), SIZE, lambda _label: 1)
    assert layer.region.shape == SIZE
    assert not layer.region.any()


@pytest.mark.parametrize(
    "region",
    [
        polygon([[1, 2], [3]]),
        polygon("1,2"),
        polygon([[1, 2], [3, 4], [5, 10**400]]),
        polygon(original_width=11),
        polygon(value=None),
        polygon(value=[1]),
        polygon(value={"polygonlabels": {"a": 1}}),
        polygon(value={"polygonlabels": ["a", "b"]}),
        polygon(type=BRUSH, value={"brushlabels": ["a"], "format": "png"}),
        polygon(type=BRUSH, value={"brushlabels": ["a"], "format": "rle", "rle": [1]}),
    ],
)  # fmt: skip
def test_read_region__refused(region: dict[str, Any], refusal: Refusal) -> None:
    with refusal(InputError):
        read_region(region, SIZE, lambda _label: 1)
