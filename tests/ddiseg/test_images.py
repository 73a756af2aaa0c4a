"""Hashes of photographs and the pairs that resemble each other. File formats: see test_photographs."""

from __future__ import annotations

import hashlib
import io
import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from ddiseg import images
from ddiseg.errors import InputError
from tests.wording import Refusal

SRGB, LAB = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")

SIDES = st.integers(1, 12)
HASHES = st.lists(
    st.one_of(
        st.integers(0, 2**64 - 1),
        # Few bits set, or all but few: many pairs that are near, in every band.
        st.sets(st.integers(0, 63), max_size=4).map(lambda bits: sum(1 << b for b in bits)),
        st.sets(st.integers(0, 63), max_size=3).map(lambda b: 2**64 - 1 - sum(1 << i for i in b)),
    ).map(lambda value: f"{value:016x}"),
    max_size=40,
)


def _brute_force(hashes: list[str], bits: int) -> list[tuple[int, int, int]]:
    values = [int(h, 16) for h in hashes]
    pairs = (
        (i, j, (values[i] ^ values[j]).bit_count()) for i, j in combinations(range(len(values)), 2)
    )
    return sorted(pair for pair in pairs if pair[2] <= bits)


@pytest.mark.property
@given(HASHES, st.integers(0, 12))
@settings(deadline=None)
def test_near_duplicates__like_comparing_all_pairs(hashes: list[str], bits: int) -> None:
    assert images.near_duplicates(hashes, bits) == _brute_force(hashes, bits)


@pytest.mark.parametrize("bit", range(64))
def test_near_duplicates__any_single_bit(bit: int) -> None:
    hashes = ["0" * 16, f"{1 << bit:016x}"]
    assert images.near_duplicates(hashes) == [(0, 1, 1)]


def test_near_duplicates__just_too_far() -> None:
    far = (1 << (images.NEAR_DUPLICATE_BITS + 1)) - 1
    assert images.near_duplicates(["0" * 16, f"{far:016x}", "f" * 16]) == []


@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_encode_png__round_trip(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = images.encode_png(pixels)
    assert data == images.encode_png(np.asfortranarray(pixels))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    opened = images.open_photograph(data)
    assert np.array_equal(opened.pixels, pixels)
    assert opened.changes == ()
    assert images.content_hash(opened.pixels) == images.content_hash(pixels)


def test_content_hash__stays_what_it_is() -> None:
    """Catalogues name images by it: another value would orphan every stored file."""
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    expected = hashlib.sha256(b"image 2x3\n" + bytes(range(18))).hexdigest()
    assert images.content_hash(pixels) == expected
    assert images.content_hash(np.asfortranarray(pixels)) == expected
    assert images.content_hash(pixels[:, ::-1]) != expected


def test_perceptual_hash__survives_scaling_and_recompression() -> None:
    rows, columns = np.mgrid[0:120, 0:160]
    blob = np.exp(-(((rows - 50) / 30) ** 2 + ((columns - 90) / 45) ** 2))
    wave = 30 * np.sin(rows / 9) * np.cos(columns / 13)
    photo = np.stack([200 - 120 * blob + wave, 160 - 90 * blob, 140 - 80 * blob + wave], -1)
    photo = np.clip(photo, 0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(photo).resize((80, 60), Image.Resampling.LANCZOS))
    hashes = [images.perceptual_hash(p) for p in (photo, small, 255 - photo)]
    assert all(len(h) == 16 for h in hashes)
    assert [(i, j) for i, j, _ in images.near_duplicates(hashes)] == [(0, 1)]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (500, 20)])
def test_perceptual_hash__any_size(size: tuple[int, int]) -> None:
    assert len(images.perceptual_hash(np.zeros((*size, 3), np.uint8))) == 16


def _saved(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


BLOCKS = Image.new("RGB", (16, 16), (200, 120, 90))
BLOCKS.paste((60, 30, 20), (4, 4, 12, 12))


def test_open__heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    pillow_heif.register_heif_opener()
    opened = images.open_photograph(_saved(BLOCKS, "HEIF", quality=100))
    assert np.abs(opened.pixels.astype(int) - np.asarray(BLOCKS)).mean() < 6


def test_open__heic_of_two_pictures(refusal: Refusal) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    pillow_heif.register_heif_opener()
    with refusal(InputError):
        images.open_photograph(
            _saved(BLOCKS, "HEIF", save_all=True, append_images=[BLOCKS.rotate(90)])
        )


@pytest.mark.skipif(not features.check("avif"), reason="needs Pillow with AVIF")
def test_open__avif() -> None:
    opened = images.open_photograph(_saved(BLOCKS, "AVIF", quality=100))
    assert np.abs(opened.pixels.astype(int) - np.asarray(BLOCKS)).mean() < 6


HEIC_HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
AVIF_HEADER = b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif" + bytes(40)


@pytest.mark.parametrize("data", [HEIC_HEADER, AVIF_HEADER], ids=["heic", "avif"])
def test_open__without_a_decoder(
    data: bytes, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(features, "check", lambda _feature: False)
    with refusal(InputError):
        images.open_photograph(data)


@pytest.mark.parametrize(
    "data",
    [HEIC_HEADER, b"\0\0\0\x18ftypqt  \0\0\0\0qt  qt  " + bytes(40)],
    ids=["damaged heic", "film"],
)
def test_open__other_container(data: bytes, refusal: Refusal) -> None:
    pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    with refusal(InputError):
        images.open_photograph(data)


@pytest.mark.parametrize(
    "data",
    [
        _saved(BLOCKS.convert("CMYK"), "TIFF"), _saved(BLOCKS.convert("CMYK"), "JPEG", quality=100),
        _saved(BLOCKS.convert("YCbCr"), "TIFF"), _saved(BLOCKS.quantize(4), "PNG"),
        _saved(BLOCKS.quantize(4), "GIF"), _saved(BLOCKS, "JPEG", quality=100),
        _saved(BLOCKS.convert("RGBA").convert("RGBa").convert("RGBA"), "TIFF"),
        _saved(ImageCms.profileToProfile(BLOCKS, SRGB, LAB, outputMode="LAB"), "TIFF"),  # type: ignore[union-attr]
    ],
    ids=["cmyk tiff", "cmyk jpeg", "ycbcr", "palette", "gif", "jpeg", "rgba", "lab"],
)  # fmt: skip
def test_open__colour_models(data: bytes) -> None:
    opened = images.open_photograph(data)
    assert np.abs(opened.pixels.astype(int) - np.asarray(BLOCKS)).mean() < 4


def test_open__premultiplied_alpha() -> None:
    """TIFF's associated alpha (ExtraSamples 1): colours are stored multiplied by it."""
    half = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    opened = images.open_photograph(_saved(half, "TIFF", tiffinfo={338: 1}))
    assert "transparency laid on white" in opened.changes


@pytest.mark.parametrize("transparency", [3, bytes([255, 0, 255])], ids=["index", "table"])
def test_open__palette_with_transparency(transparency: Any) -> None:
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    palette.putdata([0, 1, 2, 3])
    opened = images.open_photograph(_saved(palette, "PNG", transparency=transparency))
    gone = [255, 255, 255]
    table = isinstance(transparency, bytes)
    assert opened.pixels.reshape(4, 3).tolist() == [
        [255, 0, 0], gone if table else [0, 255, 0], [0, 0, 255], [9, 9, 9] if table else gone,
    ]  # fmt: skip
    assert opened.changes == ("transparency laid on white",)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "BMP"])
def test_open__one_bit(format_name: str) -> None:
    bits = Image.fromarray(np.eye(4, dtype=np.uint8) * 255).convert("1")
    opened = images.open_photograph(_saved(bits, format_name))
    assert np.array_equal(opened.pixels[..., 0], np.eye(4) * 255)


def test_open__mpo_takes_the_first_picture() -> None:
    data = _saved(BLOCKS, "MPO", save_all=True, append_images=[BLOCKS.rotate(90)], quality=100)
    assert np.abs(images.open_photograph(data).pixels.astype(int) - np.asarray(BLOCKS)).mean() < 4


@pytest.mark.parametrize("format_name", ["TIFF", "GIF", "WEBP", "PNG"])
def test_open__several_pictures(format_name: str, refusal: Refusal) -> None:
    other = Image.new("RGB", (16, 16))
    with refusal(InputError):
        images.open_photograph(_saved(BLOCKS, format_name, save_all=True, append_images=[other]))
