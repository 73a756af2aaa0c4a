"""COCO RLE against pycocotools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco

from ddiseg.errors import InputError
from ddiseg.masks import Mask, rle
from tests.wording import Refusal

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)
regions = hnp.arrays(np.bool_, shapes, elements=st.booleans(), fill=st.booleans())
masks = hnp.arrays(np.uint8, shapes, elements=st.integers(0, 4), fill=st.integers(0, 4))


def ring(size: int = 9) -> NDArray[np.bool_]:
    region = np.zeros((size, size), bool)
    region[1:-1, 1:-1] = True
    region[4, 4] = False
    return region


def runs(region: NDArray[np.bool_]) -> list[int]:
    """Run lengths, column by column, one pixel at a time."""
    lengths, inside = [0], False
    for pixel in region.T.ravel().tolist():
        if pixel != inside:
            lengths.append(0)
            inside = pixel
        lengths[-1] += 1
    return lengths


# pycocotools 2.0.11 itself, in decode and toBbox, under numpy 2.
@pytest.mark.property
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(regions)
@example(ring())
@example(np.zeros((1, 7), bool))
@example(np.ones((1, 7), bool))
@example(np.ones((1, 1), bool))
@example(np.arange(600).reshape(1, 600) % 300 == 299)
@example(np.arange(90_000).reshape(300, 300) == 45_000)
def test_rle__round_trip_and_oracle(region: NDArray[np.bool_]) -> None:
    encoded = rle.encode(region)
    assert encoded["size"] == list(region.shape)
    np.testing.assert_array_equal(rle.decode(encoded), region)
    np.testing.assert_array_equal(coco.decode(encoded), region)
    by_coco = coco.encode(np.asfortranarray(region, np.uint8))  # counts are bytes
    np.testing.assert_array_equal(rle.decode(by_coco), region)
    np.testing.assert_array_equal(
        rle.decode({"size": region.shape, "counts": runs(region)}), region
    )
    assert coco.area(encoded) == region.sum()


@pytest.mark.property
@given(masks)
@example(np.arange(5, dtype=np.uint8)[None])
@example(np.asfortranarray(np.arange(30, dtype=np.uint8).reshape(5, 6) % 5))
def test_encode_classes__each_as_pycocotools(mask: Mask) -> None:
    encoded = rle.encode_classes(mask, range(5))
    assert list(encoded) == [0, 1, 2, 3, 4]
    rebuilt = np.full(mask.shape, 255, np.uint8)
    for class_id, region in encoded.items():
        oracle = coco.encode(np.asfortranarray((mask == class_id).astype(np.uint8)))
        assert region == {"size": oracle["size"], "counts": oracle["counts"].decode()}
        assert region == rle.encode(mask == class_id)
        rebuilt[rle.decode(region)] = class_id
    np.testing.assert_array_equal(rebuilt, mask)


@pytest.mark.property
@given(st.binary(max_size=30) | st.text(max_size=30), st.integers(1, 9), st.integers(1, 9))
def test_decode__any_counts_are_read_or_refused(counts: Any, height: int, width: int) -> None:
    try:
        region = rle.decode({"size": [height, width], "counts": counts})
    except InputError:
        return
    assert region.shape == (height, width)


@pytest.mark.parametrize(
    ("given_rle", "message"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "cover 3 pixels but its size 2 x 2 has 4"),
        ({"size": [2, 2], "counts": rle.encode(ring())["counts"]}, "cover 81 pixels"),
        ({"size": [9, 9], "counts": rle.encode(ring())["counts"][:-1]}, "cover 71 pixels"),
        ({"size": [2, 2], "counts": [5, -1]}, "0 or more"),
        ({"size": [2, 2], "counts": "O"}, "negative run length"),
        ({"size": [2, 2], "counts": ""}, "cover 0 pixels"),
        ({"size": [2, 2], "counts": "é"}, "not COCO's"),
        ({"size": [2, 2], "counts": "!"}, "not COCO's"),
        ({"size": [2, 2], "counts": "o" * 9 + "1"}, "longer than any mask"),
        ({"size": [2, 2], "counts": [10**30]}, "cover 1,000"),
        ({"size": [2, 2], "counts": None}, "type NoneType"),
        ({"size": [2, 2]}, "type NoneType"),
        ({"size": [2, 0], "counts": []}, r"size \[2, 0\]"),
        ({"counts": []}, "size None"),
        ({"size": [20_000, 20_000], "counts": [400_000_000]}, "over the limit"),
    ],
)
def test_decode__refused(given_rle: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rle.decode(given_rle)


@pytest.mark.parametrize(
    "call",
    [
        lambda: rle.encode(np.zeros((2, 2), np.uint8)),
        lambda: rle.encode(np.zeros((2, 2, 2), bool)),
        lambda: rle.encode(np.zeros((0, 2), bool)),
        lambda: rle.encode_classes(np.zeros((2, 2), np.int64), [0]),
    ],
)
def test_encode__refused(call: Callable[[], object], refusal: Refusal) -> None:
    with refusal(InputError):
        call()
