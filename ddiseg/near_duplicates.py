"""Find photographs that were made from the same picture: recompressed, resized, brightened, cropped, turned.

Three steps, each cheaper by image and dearer by pair than the one before:

1. A signature, 72 bytes: magnitudes of the lowest DCT coefficients of the picture and of its inner
   nine tenths. Mirroring and turning only change signs of coefficients and swap them, so all eight
   turns have one signature. Pairs with near signatures are proposed.
2. The signed coefficients say which of the eight turns would fit; most proposals fit none.
3. Thumbnails, 48 x 48 grey levels, are laid over each other in the turns and crops that remain, first
   at a third of their size. The correlation of their gradients confirms a pair. Gradients, because
   all photographs of a dark spot on light skin resemble each other in their grey levels; and none counts
   for more than their mean, because on dark skin the edge of a ruler outweighs everything else.

Arrays: thumbnails (N, 48, 48) uint8; signatures (N, 72) uint8.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

#: Side of a thumbnail, in pixels.
SIDE = 48

#: Side of the thumbnails that are compared first.
_SMALL = 16

#: DCT coefficients along each axis of a signature.
_LOW = 6

#: Part of each side that the inner picture of a signature leaves out.
_INNER = 0.05

#: Largest distance of the signatures of a proposed pair.
MAX_DISTANCE = 0.25

#: Smallest correlation of low coefficients of a pair that is laid over each other.
MIN_COARSE = 0.9

#: Smallest correlation of gradients of a confirmed pair; see docs/decisions/0024 and docs/benchmarks.md.
MIN_CORRELATION = 0.75

#: The same at a third of the size, where different pictures resemble each other more.
_MIN_SMALL = 0.65

#: Parts of a side that a crop may leave out at one edge.
_CROPS = (0.0, 0.025, 0.05)

#: Proposals of one photograph that are compared, the nearest first.
_PROPOSED = 16

#: Signatures that are compared at a time.
_SLICE = 16_384

#: Signatures that are searched for by some of their numbers first; more of them would find most parts.
_FEW = 4

#: Numbers of half a signature that differ most between pictures: of the lowest coefficients but the mean.
_FIRST = np.array([1, 2, 3, 6, 7, 21])

Thumbnails = NDArray[np.uint8]
Signatures = NDArray[np.uint8]
_Halves = tuple[NDArray[np.float32], NDArray[np.float32]]


class Change(StrEnum):
    """How the second photograph of a pair differs from the first, as far as thumbnails show it."""

    SAME = "same"  #: recompressed, resized, brightened
    CROPPED = "cropped"
    TURNED = "turned"  #: turned, mirrored or both; it may be cropped too


def thumbnail(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the (48, 48) uint8 grey levels of a photograph (H, W, 3), stretched to a square."""
    rows = []
    for top in range(0, len(photograph), 256):  # in strips: a photograph may fill the memory
        strip = Image.fromarray(photograph[top : top + 256]).convert("L")
        rows.append(np.asarray(strip.resize((SIDE, strip.height), Image.Resampling.LANCZOS)))
    tall = Image.fromarray(np.concatenate(rows))
    return np.asarray(tall.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def describe(photograph: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Return the signature and the thumbnail of a photograph (H, W, 3) as they are stored."""
    small = thumbnail(photograph)
    return signatures(small[None])[0].tobytes(), small.tobytes()


def signatures(thumbnails: Thumbnails) -> Signatures:
    """Return the signatures of thumbnails, (N, 72)."""
    parts = [_magnitudes(_low(thumbnails)), _magnitudes(_low(_inner(thumbnails)))]
    return (np.concatenate(parts, axis=1).clip(0, 1) * 255).round().astype(np.uint8)


class Index:
    """Signatures of many photographs, to be searched for those near some others.

    Every signature is compared, a part of them at a time: 72 bytes each stay in memory. Distances are
    those of whole numbers below 2^24, which float32 holds exactly.
    """

    def __init__(self, known: Signatures | None = None) -> None:
        self._parts: list[Signatures] = []
        self._size = 0
        if known is not None:
            self.add(known)

    def __len__(self) -> int:
        return self._size

    def add(self, known: Signatures) -> None:
        """Add signatures (n, 72), at the positions after those that are there."""
        self._parts.append(known)
        self._size += len(known)
        # Few parts, like a binary counter; large ones are searched as fast on their own.
        while len(self._parts) > 1 and len(self._parts[-2]) <= len(self._parts[-1]) < _SLICE:
            self._parts[-2:] = [np.concatenate(self._parts[-2:])]

    def near(self, signature: Signatures) -> Iterator[NDArray[np.intp]]:
        """Yield for each signature the positions of near ones, the nearest first, at most 16."""
        for start in range(0, len(signature), 64):
            yield from self._near(_halves(signature[start : start + 64]))

    def _near(self, halves: _Halves) -> list[NDArray[np.intp]]:
        """Return the positions for up to 64 signatures, given as halves (n, 36) each."""
        whole, inner = halves
        queries, found = [], []
        for position, part in self._slices():
            places = _candidates(halves, part) if len(whole) <= _FEW else np.arange(len(part))
            known_whole, known_inner = _halves(part[places] if len(whole) <= _FEW else part)
            near = _near(whole, known_whole) | _near(whole, known_inner) | _near(inner, known_whole)
            query, other = np.nonzero(near)
            queries.append(query)
            found.append(places[other] + position)
        query, other = (np.concatenate([np.empty(0, np.intp), *each]) for each in (queries, found))
        other_halves = _halves(self._at(other))
        distance = np.minimum(
            _apart(whole[query], other_halves[0]),
            np.minimum(
                _apart(whole[query], other_halves[1]), _apart(inner[query], other_halves[0])
            ),
        )
        # Equally near ones in the order of their positions.
        order = np.lexsort((other, distance, query))
        ends = np.searchsorted(query[order], np.arange(len(whole) + 1))
        return [other[order[first:end]][:_PROPOSED] for first, end in pairwise(ends.tolist())]

    def _slices(self) -> Iterator[tuple[int, Signatures]]:
        """Yield all signatures in parts that fit the processor's cache, each after its first position."""
        position = 0
        for part in self._parts:
            for start in range(0, len(part), _SLICE):
                yield position + start, part[start : start + _SLICE]
            position += len(part)

    def _at(self, positions: NDArray[np.intp]) -> Signatures:
        found = np.empty((len(positions), 72), np.uint8)
        first = 0
        for part in self._parts:
            here = (positions >= first) & (positions < first + len(part))
            found[here] = part[positions[here] - first]
            first += len(part)
        return found


def compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[float, Change]:
    """Return the correlation of the gradients of two thumbnails, laid over each other best.

    It is 0 where a cheaper comparison shows that they are no pair.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    turned = [_turned(b, turn) for turn in range(8)]
    coarse = np.array([_coarse(a, each) for each in turned])
    best, change = 0.0, Change.SAME
    for turn in np.argsort(-coarse, kind="stable")[:2]:
        if coarse[turn] < MIN_COARSE or _best(_reduced(a), _reduced(turned[turn]))[0] < _MIN_SMALL:
            continue
        correlation, cropped = _best(a, turned[turn])
        if correlation > best:
            best = correlation
            change = Change.TURNED if turn else Change.CROPPED if cropped else Change.SAME
    return best, change


def _halves(signature: Signatures) -> _Halves:
    """Return the parts of signatures (N, 72) of whole and inner pictures, each (N, 36)."""
    numbers = signature.astype(np.float32)
    return numbers[:, :36], numbers[:, 36:]


def _candidates(halves: _Halves, part: Signatures) -> NDArray[np.intp]:
    """Return the positions in `part` of all near signatures, and of some others.

    Two are as far apart as in some of their numbers, or farther.
    """
    places = np.arange(len(part))
    known_whole, known_inner = (part[:, c].astype(np.float32) for c in (_FIRST, _FIRST + 36))
    whole, inner = (half[:, _FIRST] for half in halves)
    near = _near(whole, known_whole) | _near(whole, known_inner) | _near(inner, known_whole)
    return places[near.any(0)]


def _near(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which are near, (N, M): |a - b|^2 <= d^2, where 2ab - |b|^2 >= |a|^2 - d^2."""
    double = np.concatenate([2 * b, -(b**2).sum(1)[:, None]], axis=1)
    bound = (a**2).sum(1) - np.float32((MAX_DISTANCE * 255) ** 2)
    products = np.concatenate([a, np.ones((len(a), 1), np.float32)], axis=1) @ double.T
    return np.asarray(products >= bound[:, None])


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared distances of pairs, (N,)."""
    return np.asarray(((a - b) ** 2).sum(1), np.float32)


def _best(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, bool]:
    """Return the largest correlation of gradients of one and a crop of the other, and if it is cropped."""
    scores = [_cropped_scores(a, b), _cropped_scores(b, a)]
    place = int(np.argmax(scores))
    return float(np.max(scores)), place % scores[0].size > 0


def _reduced(thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = SIDE // _SMALL
    blocks = thumbnail.reshape(_SMALL, factor, _SMALL, factor)
    return np.asarray(blocks.mean((1, 3)), np.float32)


def _low(thumbnails: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the lowest DCT coefficients without the mean, of length 1, (N, 6, 6)."""
    found = dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho")[:, :_LOW, :_LOW].copy()
    found[:, 0, 0] = 0
    length = np.linalg.norm(found, axis=(1, 2), keepdims=True)
    return np.asarray(found / np.maximum(length, 1e-6), np.float32)


def _magnitudes(low: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what no turn changes, (N, 36): means and differences of mirrored magnitudes."""
    size = np.abs(low)
    mirrored = size.transpose(0, 2, 1)
    upper, strict = np.triu_indices(_LOW), np.triu_indices(_LOW, 1)
    weight = np.where(upper[0] == upper[1], 1, np.sqrt(2)).astype(np.float32)
    means = ((size + mirrored) / 2)[:, *upper] * weight
    differences = (np.abs(size - mirrored) / 2)[:, *strict] * np.float32(np.sqrt(2))
    return np.concatenate([means, differences], axis=1)


def _inner(thumbnails: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return thumbnails without their borders, (N, 48, 48)."""
    crop = _crop(_INNER, _INNER, SIDE)
    return crop @ thumbnails.astype(np.float32) @ crop.T


def _turned(thumbnail: NDArray[np.float32], turn: int) -> NDArray[np.float32]:
    """Return one of the eight turns of a thumbnail; 0 leaves it as it is."""
    turned = np.rot90(thumbnail, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def _coarse(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the largest correlation of low coefficients, whole or one of the two without borders."""
    both = np.stack([a, b])
    (whole_a, whole_b), (inner_a, inner_b) = _low(both), _low(_inner(both))
    pairs = ((whole_a, whole_b), (inner_a, whole_b), (whole_a, inner_b))
    return max(float((x * y).sum()) for x, y in pairs)


@lru_cache
def _crop(start: float, end: float, side: int) -> NDArray[np.float32]:
    """Return the matrix (side, side) that stretches a part of the samples to all, linearly between them."""
    places = side * (start + (np.arange(side) + 0.5) / side * (1 - start - end)) - 0.5
    places = places.clip(0, side - 1)
    left = np.minimum(places.astype(int), side - 2)
    matrix = np.zeros((side, side), np.float32)
    rows = np.arange(side)
    matrix[rows, left] = 1 - (places - left)
    matrix[rows, left + 1] = places - left
    return matrix


@lru_cache
def _crops(side: int) -> NDArray[np.float32]:
    """Return all crops of one side, (9, side, side), the whole first."""
    return np.stack([_crop(start, end, side) for start in _CROPS for end in _CROPS])


def _cropped_scores(whole: NDArray[np.float32], part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation of gradients of every crop of `whole` with `part`, (9, 9)."""
    crops = _crops(len(whole))
    rows = crops @ whole  # (9, side, side)
    cropped = np.asarray(rows[:, None] @ crops.transpose(0, 2, 1)[None], np.float32)
    return np.asarray(_gradients(cropped) @ _gradients(part), np.float32)


def _gradients(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return central differences along both axes, none above their mean, of length 1; no finest grain."""
    across = (pictures[..., 2:] - pictures[..., :-2])[..., 1:-1, :]
    down = (pictures[..., 2:, :] - pictures[..., :-2, :])[..., :, 1:-1]
    both = np.stack([across, down], -3).reshape(*pictures.shape[:-2], -1)
    mean = np.abs(both).mean(axis=-1, keepdims=True)
    both = np.clip(both, -mean, mean)
    length = np.linalg.norm(both, axis=-1, keepdims=True)
    return np.asarray(both / np.maximum(length, 1e-6), np.float32)
