"""Masks: checks, identity, PNG and .npy, foreign values, sizes."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from annotation_protocol import UNLABELLED, load_protocol
from ddiseg.errors import InputError
from ddiseg.masks import (
    Mask,
    check_mask,
    classes_in,
    count_unlabelled,
    decode_png,
    encode_png,
    load_npy,
    mask_hash,
    parse_class_mapping,
    remap,
    stretch,
)
from tests.wording import Refusal

PALETTE = load_protocol().palette()
NAMES = load_protocol().class_names

masks = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=24),
    elements=st.integers(0, len(PALETTE) - 1),
)
INTEGER_DTYPES = [np.int8, np.uint16, np.int32, np.int64, np.uint64, ">i4"]


def saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def grey_png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.property
@given(mask=masks, dtype=st.sampled_from(INTEGER_DTYPES))
def test_check_mask__any_integer_dtype(mask: Mask, dtype: Any) -> None:
    checked = check_mask(mask.astype(dtype), 5)
    assert checked.dtype == np.uint8
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, mask)


def test_check_mask__bool_and_column_major() -> None:
    region = np.asfortranarray(np.eye(3, dtype=bool))
    checked = check_mask(region, 2)
    assert checked.flags.c_contiguous
    assert checked.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_mask_hash__is_the_documented_bytes() -> None:
    mask = np.array([[0, 1, 2], [3, 4, 0]], np.uint8)
    expected = hashlib.sha256(b"mask 2x3\n" + bytes([0, 1, 2, 3, 4, 0])).hexdigest()
    assert mask_hash(mask) == expected
    assert mask_hash(np.asfortranarray(mask)) == expected
    assert mask_hash(mask.reshape(3, 2)) != expected


@pytest.mark.property
@given(masks)
def test_classes_in__as_unique(mask: Mask) -> None:
    assert classes_in(mask) == tuple(np.unique(mask).tolist())


@pytest.mark.property
@given(masks)
def test_png__round_trip(mask: Mask) -> None:
    data = encode_png(mask, PALETTE)
    assert data == encode_png(np.asfortranarray(mask), PALETTE)
    decoded = decode_png(data)
    np.testing.assert_array_equal(decoded, mask)
    assert mask_hash(decoded) == mask_hash(mask)


def test_encode_png__colours_and_depth() -> None:
    mask = np.array([[0, 1], [2, 4]], np.uint8)
    data = encode_png(mask, PALETTE)
    assert data[24:26] == bytes([8, 3])  # 8 bits, palette
    rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(rgb, np.array(PALETTE, np.uint8)[mask])


@pytest.mark.property
@given(masks, st.sampled_from(["L", "P", "1"]))
def test_decode_png__other_writers(mask: Mask, mode: str) -> None:
    if mode == "1":
        image, expected = Image.fromarray(mask > 0), (mask > 0).astype(np.uint8)
    else:
        image, expected = Image.fromarray(mask), mask
        if mode == "P":
            image.putpalette(bytes(range(15)))
    np.testing.assert_array_equal(decode_png(saved(image)), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_decode_png__palette_of_few_bits(bits: int) -> None:
    mask = (np.arange(12) % 2**bits).astype(np.uint8).reshape(3, 4)
    image = Image.fromarray(mask)
    image.putpalette(bytes(range(48)))
    data = saved(image, bits=bits)
    assert data[24] == min(bits, 4)  # Pillow takes fewer bits where they are enough
    np.testing.assert_array_equal(decode_png(data), mask)


def test_decode_png__transparent_palette_entry() -> None:
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    image = Image.fromarray(mask)
    image.putpalette(bytes(range(15)))
    np.testing.assert_array_equal(decode_png(saved(image, transparency=0)), mask)


GOOD = encode_png(np.arange(25, dtype=np.uint8).reshape(5, 5) % 5, PALETTE)
JPEG = io.BytesIO()
Image.new("L", (4, 4)).save(JPEG, format="JPEG")


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.new("RGB", (2, 2))),
        saved(Image.new("RGBA", (2, 2))),
        saved(Image.new("LA", (2, 2))),
        saved(Image.new("I;16", (2, 2))),
        grey_png(2, 1, 4, 0, b"\x00\x12"),
        grey_png(0, 1, 8, 0, b"\x00"),
        grey_png(4, 4, 8, 0, b"\x00\x01"),
        GOOD[:-12],
        GOOD[:70] + bytes([GOOD[70] ^ 1]) + GOOD[71:],
        b"",
        b"GIF89a" + bytes(60),
        JPEG.getvalue(),
    ],
)
def test_decode_png__refused(data: bytes, refusal: Refusal) -> None:
    with refusal(InputError):
        decode_png(data)


@pytest.mark.parametrize("length", range(0, len(GOOD), 5))
def test_decode_png__truncated(length: int) -> None:
    with pytest.raises(InputError):
        decode_png(GOOD[:length])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_decode_png__one_byte_changed(position: int, change: int) -> None:
    data = bytearray(GOOD)
    data[position] ^= change
    with pytest.raises(InputError):
        decode_png(bytes(data))


def test_decode_png__bomb(refusal: Refusal) -> None:
    bomb = grey_png(2**31 - 1, 2**31 - 1, 8, 0, bytes(1000))
    with refusal(InputError):
        decode_png(bomb)
    with refusal(InputError):
        decode_png(GOOD, max_pixels=24)
    assert decode_png(GOOD, max_pixels=25).shape == (5, 5)


def test_decode_png__limit_is_ours_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert decode_png(GOOD).shape == (5, 5)


@pytest.mark.property
@given(
    hnp.arrays(
        hnp.integer_dtypes() | hnp.boolean_dtypes() | hnp.floating_dtypes(),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    st.sampled_from(["C", "F"]),
)
def test_load_npy__as_numpy_loads_it(array: Any, order: Any) -> None:
    loaded = load_npy(npy(np.asarray(array, order=order)))
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype
    assert loaded.flags.writeable


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, mask=np.zeros((2, 2), np.uint8))
    return buffer.getvalue()


def npy_with_header(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.property
@given(masks, st.permutations(range(5)))
def test_remap__there_and_back(mask: Mask, order: list[int]) -> None:
    foreign = np.array([-3, 0, 17, 255, 10**12])[mask]
    there = dict(zip([-3, 0, 17, 255, 10**12], order, strict=True))
    back = {target: source for source, target in enumerate(order)}
    np.testing.assert_array_equal(remap(remap(foreign, there), back), mask)


def test_remap__black_and_white() -> None:
    assert remap(np.array([[0, 255]], np.uint8), {0: 4, 255: 1}).tolist() == [[4, 1]]
    assert remap(np.array([[True, False]]), {0: 4, 1: 1}).tolist() == [[1, 4]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0=skin,255=lesion", {0: 4, 255: 1}),
        (" 0 = skin , -1 = lesion ", {0: 4, -1: 1}),
        ("7=marker", {7: 2}),
        ("1=lesion,2=lesion", {1: 1, 2: 1}),
    ],
)
def test_parse_class_mapping(text: str, expected: dict[int, int]) -> None:
    assert parse_class_mapping(text, NAMES) == expected


@pytest.mark.property
@given(masks, st.integers(0, 40), st.integers(0, 40))
def test_stretch__enlarge_and_back(mask: Mask, taller: int, wider: int) -> None:
    height, width = mask.shape
    larger = stretch(mask, (height + taller, width + wider))
    assert larger.shape == (height + taller, width + wider)
    np.testing.assert_array_equal(stretch(larger, (height, width)), mask)


@pytest.mark.property
@given(masks, st.integers(1, 40), st.integers(1, 40))
def test_stretch__turned_over(mask: Mask, height: int, width: int) -> None:
    # Where a target centre falls between two source pixels a side must be chosen; skip those.
    rows, columns = mask.shape
    ties_y = any((2 * i + 1) * rows % (2 * height) == 0 for i in range(height))
    ties_x = any((2 * i + 1) * columns % (2 * width) == 0 for i in range(width))
    turned = stretch(mask[::-1, ::-1], (height, width))[::-1, ::-1]
    if not ties_y and not ties_x:
        np.testing.assert_array_equal(turned, stretch(mask, (height, width)))


def test_stretch__pixel_centres() -> None:
    row = np.array([[1, 2, 3]], np.uint8)
    assert stretch(row, (1, 1)).tolist() == [[2]]
    assert stretch(row, (2, 6)).tolist() == [[1, 1, 2, 2, 3, 3]] * 2
    assert stretch(row, (1, 2)).tolist() == [[1, 3]]
    assert stretch(np.array([[1, 2]], np.uint8), (1, 3)).tolist() == [[1, 2, 2]]


def two_frames() -> bytes:
    frames = [Image.new("L", (2, 2), value) for value in (0, 1)]
    return saved(frames[0], save_all=True, append_images=frames[1:])


U8 = np.zeros((2, 2), np.uint8)
REFUSED: list[tuple[Callable[..., object], tuple[Any, ...]]] = [
    (check_mask, (np.zeros((2, 2)), 5)),
    (check_mask, (np.zeros((2, 2, 3), np.uint8), 5)),
    (check_mask, (np.zeros(4, np.uint8), 5)),
    (check_mask, (np.zeros((0, 4), np.uint8), 5)),
    (check_mask, (np.array([[0, 7], [7, 9]], np.uint8), 5)),
    (check_mask, (np.array([[0, -1]]), 5)),
    (check_mask, (np.array([[0, 70_000]]), 5)),
    (check_mask, (np.arange(5, 20, dtype=np.uint8)[None], 5)),
    (check_mask, (np.array([["a"]]), 5)),
    (check_mask, (np.array([[None]]), 5)),
    (check_mask, (U8, 0)),
    (check_mask, (U8, 257)),
    (mask_hash, (np.zeros((2, 2), np.int32),)),
    (encode_png, (np.full((1, 1), 4, np.uint8), PALETTE[:2])),
    (encode_png, (np.full((1, 1), 4, np.uint8), [(0, 0, 300)] * 5)),
    (encode_png, (np.full((1, 1), 4, np.uint8), [(1, 2)] * 5)),
    (decode_png, (two_frames(),)),
    (remap, (np.array([[0, 254, 254], [255, 3, 0]], np.uint8), {0: 4, 255: 1})),
    (remap, (U8, {0: 256})),
    (stretch, (U8, (0, 4))),
    *((parse_class_mapping, (text, NAMES)) for text in ("", "0=skin,", "skin=0", "0=", "0.5=skin")),
    *((parse_class_mapping, (t, NAMES)) for t in ("0=skin 255=lesion", "0=mole", "0=skin,00=lesion")),
    (load_npy, (pickle.dumps([1, 2]),)),
    (load_npy, (npy(np.array([[None]])),)),
    (load_npy, (npy(np.zeros((4, 4), np.int32))[:-1],)),
    (load_npy, (npy(np.zeros((4, 4), np.int32))[:20],)),
    (load_npy, (b"\x93NUMPY",)),
    (load_npy, (npy(np.zeros((4, 4), np.uint8)) + b"\x00",)),
    (load_npy, (npz(),)),
    (load_npy, (b"",)),
    (load_npy, (b"1,2,3",)),
    (load_npy, (npy(np.zeros(2, np.uint8)).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03"),)),
    (load_npy, (npy_with_header(b"{'descr': 'i4', 'shape': 2}\n"),)),
    (load_npy, (npy_with_header(b"__import__('os')\n"),)),
    (load_npy, (npy_with_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999, 9999999)}\n"),)),
    (load_npy, (npy_with_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -4)}\nabcd"),)),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments"), REFUSED)
def test_refused(
    function: Callable[..., object], arguments: tuple[Any, ...], refusal: Refusal
) -> None:
    with refusal(InputError):
        function(*arguments)


# Masks that are labelled in part

partial_masks = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=24),
    elements=st.sampled_from([*range(len(PALETTE)), UNLABELLED]),
)


@pytest.mark.property
@given(partial_masks)
def test_png__unlabelled_pixels_come_back(mask: Mask) -> None:
    data = encode_png(mask, PALETTE)
    np.testing.assert_array_equal(decode_png(data), mask)
    np.testing.assert_array_equal(check_mask(mask, 5, unlabelled=True), mask)
    assert UNLABELLED not in classes_in(mask)
    assert count_unlabelled(mask) == (mask == UNLABELLED).sum()


def test_encode_png__unlabelled_has_the_colour_of_voc() -> None:
    with Image.open(io.BytesIO(encode_png(np.array([[1, 255]], np.uint8), PALETTE))) as picture:
        assert picture.convert("RGB").getpixel((1, 0)) == (224, 224, 192)
        assert picture.convert("RGB").getpixel((0, 0)) == PALETTE[1]


def test_check_mask__unlabelled_only_where_it_is_expected(refusal: Refusal) -> None:
    with refusal(InputError):
        check_mask(np.array([[0, 255]], np.uint8), 5)
    with refusal(InputError):
        check_mask(np.array([[7, 255]], np.uint8), 5, unlabelled=True)


def test_parse_class_mapping__ignore() -> None:
    assert parse_class_mapping("0=skin,255=ignore,9=unlabelled", NAMES) == {0: 4, 255: 255, 9: 255}


@pytest.mark.property
@given(partial_masks, st.permutations(range(6)))
def test_remap__ignored_values_come_back(mask: Mask, order: list[int]) -> None:
    ids = [*range(len(PALETTE)), UNLABELLED]
    values = {class_id: 40 * place for class_id, place in zip(ids, order, strict=True)}
    foreign = np.vectorize(values.get)(mask)
    back = {value: class_id for class_id, value in values.items()}
    np.testing.assert_array_equal(remap(foreign, back), mask)
