"""Hashes of photographs and the pairs that resemble each other. File formats: see test_photographs."""

from __future__ import annotations

import hashlib
import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddiseg import images

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
