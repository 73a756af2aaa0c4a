"""Pictures of more than 8 bits a channel; the files are written here, byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ddiseg.errors import InputError
from ddiseg.images import open_photograph
from tests.wording import Refusal

Tag = tuple[int, str, Sequence[float]]


def _wide(top: float, channels: int = 3, dtype: str = "u2") -> NDArray[Any]:
    """(5, 7, channels) values from 0 to `top`, both included."""
    values = np.random.default_rng(0).uniform(0, top, (5, 7, channels))
    values[0, 0], values[4, 6] = 0, top
    return values.astype(dtype) if channels > 1 else values[..., 0].astype(dtype)


def _png(values: NDArray[Any]) -> bytes:
    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values[0, 0].size]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _tiff(
    values: NDArray[Any],
    *tags: Tag,
    order: str = "<",
    zipped: bool = False,
    planes: bool = False,
    photometric: int | None = None,
) -> bytes:
    """A TIFF of one strip, or one per plane (TIFF 6.0, part 1)."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    stored = values.astype(values.dtype.newbyteorder(order))
    data = (np.moveaxis(stored, -1, 0) if planes else stored).tobytes()
    data = zlib.compress(data) if zipped else data
    strips = channels if planes else 1
    size = len(data) // strips
    if photometric is None:
        photometric = 2 if channels > 2 else 1
    entries: list[Tag] = [
        (256, "I", [width]), (257, "I", [height]), (258, "H", [8 * values.dtype.itemsize] * channels),
        (259, "H", [8 if zipped else 1]), (262, "H", [photometric]),
        (273, "I", [8 + size * i for i in range(strips)]), (277, "H", [channels]),
        (278, "I", [height]), (279, "I", [size] * strips), (284, "H", [2 if planes else 1]),
        (339, "H", [kind] * channels), *([(338, "H", [2])] if channels == 4 else []), *tags,
    ]  # fmt: skip
    start = 8 + len(data) + len(data) % 2
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    out += data + b"\0" * (len(data) % 2) + struct.pack(order + "H", len(entries))
    heap, heap_start = b"", start + 2 + 12 * len(entries) + 4
    for number, code, content in sorted(entries):
        body = struct.pack(order + code * len(content), *content)
        out += struct.pack(
            order + "HHI", number, {"H": 3, "I": 4, "f": 11, "d": 12}[code], len(content)
        )
        if len(body) > 4:
            body, heap = struct.pack(order + "I", heap_start + len(heap)), heap + body
        out += body.ljust(4, b"\0")
    return out + bytes(4) + heap


def _expected(values: NDArray[Any], top: float) -> NDArray[np.uint8]:
    scaled = (values.astype(float) * 255 / top).round().astype(np.uint8)
    return np.stack([scaled] * 3, -1) if values.ndim == 2 else scaled


GREY12, RGB12, GREY16 = _wide(4095, 1), _wide(4095), _wide(65535, 1)
FLOAT = _wide(1, 1, "f4")


@pytest.mark.parametrize(
    ("data", "values", "top", "change"),
    [
        (_png(GREY12), GREY12, 4095, "0 to 4095, the observed range"),
        (_png(RGB12), RGB12, 4095, "0 to 4095, the observed range"),
        (_tiff(GREY12), GREY12, 4095, "0 to 4095, the observed range"),
        (_tiff(GREY12, order=">"), GREY12, 4095, "0 to 4095, the observed range"),
        (_tiff(GREY12, zipped=True), GREY12, 4095, "0 to 4095, the observed range"),
        (_tiff(RGB12), RGB12, 4095, "0 to 4095, the observed range"),
        (_tiff(RGB12, order=">"), RGB12, 4095, "0 to 4095, the observed range"),
        (_tiff(RGB12, zipped=True), RGB12, 4095, "0 to 4095, the observed range"),
        (_tiff(RGB12, zipped=True, order=">"), RGB12, 4095, "0 to 4095, the observed range"),
        (_tiff(GREY12, (281, "H", [5000])), GREY12, 5000, "0 to 5000, the declared range"),
        (_tiff(RGB12, (281, "H", [4095] * 3)), RGB12, 4095, "0 to 4095, the declared range"),
        (_tiff(GREY12, (281, "H", [65535])), GREY12, 4095, "0 to 4095, the observed range"),
        (_tiff(_wide(9000, 1), (281, "H", [65535])), _wide(9000, 1), 65535, "from 16 to 8 bits"),
        (_tiff(_wide(1000, 1), (281, "H", [65535])), _wide(1000, 1), 1023, "0 to 1023, the observed"),
        (_tiff(GREY12, (281, "H", [100])), GREY12, 4095, "0 to 4095, the observed range"),
        (_png(GREY16), GREY16, 65535, "from 16 to 8 bits"),
        (_tiff(GREY16), GREY16, 65535, "from 16 to 8 bits"),
        (_tiff(_wide(200, 1)), _wide(200, 1), 255, "0 to 255, the observed range"),
        (_tiff(FLOAT), FLOAT, 1, "0 to 1, the observed range"),
        (_tiff(FLOAT, order=">"), FLOAT, 1, "0 to 1, the observed range"),
        (_tiff(FLOAT * 255), FLOAT * 255, 255, "0 to 255, the observed range"),
        (_tiff(FLOAT * 65535), FLOAT * 65535, 65535, "from 16 to 8 bits"),
        (_tiff(FLOAT * 0.01), FLOAT * 0.01, 0.01, "0 to 0.01, the observed range"),
        (_tiff(FLOAT * 1.25), FLOAT * 1.25, 1.25, "0 to 1.25, the observed range"),
        (_tiff(FLOAT * 0.5, (340, "f", [0.0]), (341, "f", [1.0])), FLOAT * 0.5, 1, "the declared"),
        (_tiff(_wide(2e5, 1, "u4")), _wide(2e5, 1, "u4"), 2**24 - 1, "the observed range"),
        (_tiff(_wide(4095, 1, "i2")), GREY12, 4095, "0 to 4095, the observed range"),
    ],
)  # fmt: skip
def test_open__more_than_8_bits(data: bytes, values: NDArray[Any], top: float, change: str) -> None:
    opened = open_photograph(data)
    assert np.abs(opened.pixels.astype(int) - _expected(values, top)).max() <= 1
    assert len(opened.changes) == 1
    assert change in opened.changes[0]


def test_open__negative_floats_within_the_declared_range() -> None:
    data = _tiff(FLOAT * 2 - 1, (340, "f", [-1.0]), (341, "f", [1.0]))
    opened = open_photograph(data)
    assert np.abs(opened.pixels.astype(int) - _expected(FLOAT, 1)).max() <= 1


def test_open__white_is_zero() -> None:
    opened = open_photograph(_tiff(GREY12, photometric=0))
    assert np.abs(opened.pixels.astype(int) - (255 - _expected(GREY12, 4095))).max() <= 1


def test_open__16_bit_colours_are_the_upper_bytes() -> None:
    """The pixels name the image: a file that was imported must stay the image that it was."""
    values = _wide(65535)
    for data in (_png(values), _tiff(values), _tiff(values, zipped=True)):
        opened = open_photograph(data)
        assert np.array_equal(opened.pixels, values >> 8)
        assert opened.changes == ("brought from 16 to 8 bits",)


@pytest.mark.parametrize("top", [4095, 65535])
def test_open__16_bit_colours_with_alpha(top: int) -> None:
    values = _wide(top, 4)
    values[..., 3] = top
    opened = open_photograph(_tiff(values))
    assert np.abs(opened.pixels.astype(int) - _expected(values[..., :3], top)).max() <= 1
    assert len(opened.changes) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_open__12_bit_colours_are_turned_once(orientation: int) -> None:
    opened = open_photograph(_tiff(RGB12, (274, "H", [orientation])))
    upright = Image.fromarray(_expected(RGB12, 4095))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = orientation
    upright.save(turned, "PNG", exif=exif)
    reference = open_photograph(turned.getvalue())
    assert opened.pixels.shape == reference.pixels.shape
    assert np.abs(opened.pixels.astype(int) - reference.pixels).max() <= 1
    assert ("turned upright" in opened.changes) == (orientation > 1)


@pytest.mark.parametrize(
    "data",
    [
        _tiff(_wide(100, 1, "i2") - np.int16(50)), _tiff(FLOAT - 0.5),
        _tiff(np.where(FLOAT > 0.5, np.nan, FLOAT).astype("f4")),
        _tiff(np.where(FLOAT > 0.5, np.inf, FLOAT).astype("f4")),
        _tiff(_wide(1, 3, "f4")), _tiff(RGB12, planes=True), _tiff(RGB12, planes=True, zipped=True),
    ],
    ids=["signed", "negative float", "not a number", "infinite", "float colours", "planes", "zipped planes"],
)  # fmt: skip
def test_open__refused(data: bytes, refusal: Refusal) -> None:
    with refusal(InputError):
        open_photograph(data)


@pytest.mark.property
@given(
    top=st.integers(64, 65535),
    channels=st.sampled_from([1, 3]),
    kind=st.sampled_from(["png", "tiff", "float"]),
)
@settings(deadline=None)
def test_open__never_black(top: int, channels: int, kind: str) -> None:
    if kind == "float":
        data = _tiff((_wide(1, 1, "f4") * (top / 1000)).astype("f4"))
    else:
        data = (_png if kind == "png" else _tiff)(_wide(top, channels))
    assert open_photograph(data).pixels.max() >= 63
