from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from ddiseg.errors import InputError
from ddiseg.masks.mask import MAX_PIXELS
from ddiseg.masks.polygons import fill_polygons
from tests.wording import Refusal

corners = st.floats(-3, 15, allow_nan=False).map(lambda value: round(value, 2))
polygons = st.lists(corners, min_size=6, max_size=16).filter(lambda values: len(values) % 2 == 0)


@pytest.mark.property
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(st.lists(polygons, min_size=1, max_size=3))
def test_fill_polygons__as_pycocotools_reads_them(drawn: list[list[float]]) -> None:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": 9, "width": 12}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": drawn}],
    }
    coco.imgs = {1: coco.dataset["images"][0]}
    expected = coco.annToMask(coco.dataset["annotations"][0])
    np.testing.assert_array_equal(fill_polygons(drawn, (9, 12)), expected == 1)


def test_fill_polygons__rectangle_and_what_lies_outside() -> None:
    inside = fill_polygons([[2, 1, 5, 1, 5, 4, 2, 4], [9, 0, 99, 0, 99, 2, 9, 2]], (6, 10))
    expected = np.zeros((6, 10), bool)
    expected[1:4, 2:5] = expected[0:2, 9] = True
    np.testing.assert_array_equal(inside, expected)
    assert inside.dtype == np.bool_


@pytest.mark.parametrize(
    "drawn",
    [
        [],
        [[1, 1, 2, 2]],  # pycocotools would take it for a box
        [[1, 1, 2, 2, 3, 3, 4]],
        [[1, 1, 2, 2, 3, math.inf]],
        [[1, 1, 2, 2, 3, math.nan]],
        [[1, 1, 2, 2, 3, 1e15]],
        [[1, 1, 2, 2, 3, 10**400]],
        [[1, 1, 2, 2, 3, "3"]],
        [[1, 1, 2, 2, 3, True]],
        [1, 1, 2, 2, 3, 3],
        ["1,1,2,2,3,3"],
    ],
)
def test_fill_polygons__refused(drawn: Any, refusal: Refusal) -> None:
    with refusal(InputError) as raised:
        fill_polygons(drawn, (6, 10))
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="pixels at most"):
        fill_polygons([[0, 0, 1, 1, 2, 2]], (1, MAX_PIXELS + 1))
