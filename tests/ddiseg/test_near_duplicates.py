"""Copies of one picture are confirmed in all turns and crops; other pictures are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ddiseg.near_duplicates import (
    MAX_DISTANCE,
    MIN_CORRELATION,
    SIDE,
    Change,
    Index,
    compare,
    describe,
    signatures,
    thumbnail,
)

Photograph = NDArray[np.uint8]


def lesion(seed: int, side: int = 200) -> Image.Image:
    """A dark spot on skin with hairs and grain: alike from afar, different near by."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side
    centre = rng.uniform(0.4, 0.6, 2)
    spot = np.exp(-(((rows - centre[0]) / 0.18) ** 2 + ((columns - centre[1]) / 0.2) ** 2))
    coarse = Image.fromarray(rng.integers(0, 255, (14, 14), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = Image.fromarray(rng.integers(0, 255, (60, 60), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    texture = 0.15 * np.asarray(coarse, float) + 0.08 * np.asarray(grain, float)
    grey = np.clip(170 - 110 * spot + texture, 0, 255)
    picture = np.stack([grey, grey * 0.8, grey * 0.7], -1).astype(np.uint8)
    return Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1))


def recompressed(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


def cropped(
    picture: Image.Image, left: float, top: float, right: float, bottom: float
) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (
            round(left * width),
            round(top * height),
            round((1 - right) * width),
            round((1 - bottom) * height),
        )
    )


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], Change]] = {
    "recompressed": (recompressed, Change.SAME),
    "resized": (lambda p: p.resize((70, 70)), Change.SAME),
    "stretched": (lambda p: p.resize((300, 100)), Change.SAME),
    "brightened": (lambda p: ImageEnhance.Brightness(p).enhance(1.2), Change.SAME),
    "cropped": (lambda p: cropped(p, 0.05, 0.05, 0.05, 0.05), Change.CROPPED),
    "cropped at a corner": (lambda p: cropped(p, 0.05, 0.05, 0, 0), Change.CROPPED),
    "mirrored": (ImageOps.mirror, Change.TURNED),
    "flipped": (ImageOps.flip, Change.TURNED),
    "turned by 90": (lambda p: p.rotate(90), Change.TURNED),
    "turned by 180": (lambda p: p.rotate(180), Change.TURNED),
    "turned by 270": (lambda p: p.rotate(270), Change.TURNED),
    "mirrored, turned and cropped": (
        lambda p: cropped(ImageOps.mirror(p).rotate(90), 0.05, 0.05, 0.05, 0.05),
        Change.TURNED,
    ),
}


def small(picture: Image.Image) -> NDArray[np.uint8]:
    return thumbnail(np.asarray(picture))


@pytest.mark.parametrize("name", COPIES)
def test_compare__copies(name: str) -> None:
    copy, change = COPIES[name]
    for seed in range(3):
        picture = lesion(seed)
        for pair in ((picture, copy(picture)), (copy(picture), picture)):
            correlation, found = compare(*map(small, pair))
            assert correlation >= MIN_CORRELATION
            assert found is change


def test_compare__other_pictures() -> None:
    pictures = [small(lesion(seed)) for seed in range(12)]
    for a, first in enumerate(pictures):
        for second in pictures[:a]:
            assert compare(first, second)[0] < MIN_CORRELATION - 0.1


def _dark_skin(seed: int) -> NDArray[np.uint8]:
    """Smooth dark skin with a bright ruler along an edge, the same ruler for every seed."""
    skin = np.random.default_rng(seed).integers(30, 55, (6, 6, 3), np.uint8)
    picture = np.asarray(Image.fromarray(skin).resize((240, 240), Image.Resampling.BICUBIC)).copy()
    picture[:, :28] = 230
    picture[8::20, 16:28] = 20
    return picture


@pytest.mark.parametrize("turn", range(4))
def test_compare__a_ruler_on_dark_skin_makes_no_pair(turn: int) -> None:
    first = thumbnail(_dark_skin(1))
    other = np.ascontiguousarray(np.rot90(_dark_skin(2), turn))
    copy = np.ascontiguousarray(np.rot90(_dark_skin(1), turn))
    assert compare(first, thumbnail(other))[0] < MIN_CORRELATION
    assert compare(first, thumbnail(copy))[0] > 0.95


def test_compare__without_any_structure() -> None:
    flat = np.full((SIDE, SIDE), 90, np.uint8)
    assert compare(flat, flat)[0] == 0


@pytest.mark.parametrize("name", COPIES)
def test_index__proposes_the_original(name: str) -> None:
    copy, _ = COPIES[name]
    originals = [lesion(seed) for seed in range(20)]
    index = Index(signatures(np.stack([small(p) for p in originals])))
    copies = signatures(np.stack([small(copy(p)) for p in originals]))
    assert all(place in near for place, near in enumerate(index.near(copies)))


def test_signatures__the_same_for_all_turns() -> None:
    turns = [np.rot90(small(lesion(1)), k)[:, ::flip] for k in range(4) for flip in (1, -1)]
    found = signatures(np.stack(turns)).astype(int)
    assert np.abs(found - found[0]).max() <= 1


@pytest.mark.parametrize("searched", [1, 4, 5])
def test_index__finds_all_within_the_distance(searched: int) -> None:
    rng = np.random.default_rng(5)
    known = rng.integers(0, 60, (40_000, 72), np.uint8)
    asked = rng.integers(0, 60, (searched, 72), np.uint8)
    # Copies of both halves, changed at one number each by as much as may be, and by one more.
    limit = int(MAX_DISTANCE * 255)
    expected: list[set[int]] = [set() for _ in asked]
    for n, signature in enumerate(asked):
        for k, half in enumerate((0, 1, 2, 7, 21, 35)):
            for way, (ours, theirs) in enumerate(((0, 0), (0, 36), (36, 0))):
                for beyond in (0, 1):
                    place = (
                        int(rng.integers(0, 40_000 // 256)) * 256
                        + n * 36
                        + k * 6
                        + way * 2
                        + beyond
                    )
                    known[place, theirs : theirs + 36] = signature[ours : ours + 36]
                    known[place, theirs + half] += limit + beyond
                    if not beyond:
                        expected[n].add(place)
    index = Index()
    for start in range(0, len(known), 7_000):
        index.add(known[start : start + 7_000])
    for near, signature, planted in zip(index.near(asked), asked, expected, strict=True):
        a, b = known.astype(float), signature.astype(float)
        distance = np.min(
            [
                np.linalg.norm(a[:, theirs : theirs + 36] - b[ours : ours + 36], axis=1)
                for ours, theirs in ((0, 0), (0, 36), (36, 0))
            ],
            axis=0,
        )
        close = np.flatnonzero(distance <= MAX_DISTANCE * 255)
        assert planted <= set(close.tolist())
        ordered = close[np.lexsort((close, distance[close]))]
        assert near.tolist() == ordered[:16].tolist()


def test_index__of_none() -> None:
    empty = np.empty((0, 72), np.uint8)
    one = signatures(small(lesion(0))[None])
    assert [near.tolist() for near in Index(empty).near(one)] == [[]]
    assert list(Index(one).near(empty)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (700, 20)])
def test_describe__any_size(size: tuple[int, int]) -> None:
    signature, pixels = describe(np.zeros((*size, 3), np.uint8))
    assert (len(signature), len(pixels)) == (72, SIDE * SIDE)


def test_thumbnail__in_strips_as_in_one_piece() -> None:
    photograph = np.asarray(lesion(3, side=700))
    whole = Image.fromarray(photograph).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.abs(thumbnail(photograph).astype(int) - np.asarray(whole)).max() <= 1
