"""Compose one mask from regions without an order: where two lie over each other, the smaller is on top.

COCO files have no order of their regions, and a polygon has no hole: a pen ring around a lesion comes as a
disc. By the protocol's precedence the disc would hide the lesion; by size the lesion stays visible.

Arrays: H rows, W columns; masks (H, W) uint8 class ids, regions (H, W) bool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from annotation_protocol import UNLABELLED, Protocol
from ddiseg.masks import rle
from ddiseg.masks.composition import Region
from ddiseg.masks.mask import Mask

#: Value of a pixel that no region has claimed yet: no class, nor UNLABELLED.
_UNCLAIMED = 256

#: A region is enclosed by a class that lies under at least this share of it.
_ENCLOSED = 0.9


@dataclass(frozen=True, eq=False)
class StackedRegion:
    """A region with the class that it claims."""

    class_id: int
    region: Region
    name: str  #: what its file calls it, for example "annotation 12"
    order: int = 0  #: its z-order, where the file has one: the higher on top, whatever the size


@dataclass(frozen=True)
class Hidden:
    """A class of the file that no pixel of the mask has, and what lies over it."""

    class_id: int
    region: str  #: name of its largest region, which has
    pixels: int
    over: str  #: name of the region that hides the most of that one, of
    over_class_id: int
    over_pixels: int


@dataclass(frozen=True, eq=False)
class Stack:
    """A composed mask, and what lay over what. Pixels by (class on top, class below)."""

    mask: Mask  #: (H, W) uint8
    regions: int  #: number of regions with pixels
    overlaps: Counter[tuple[int, int]]
    #: Of regions that lie wholly on a class of higher precedence.
    enclosed: Counter[tuple[int, int]]
    hidden: Sequence[Hidden]
    empty: Sequence[str]  #: names of the regions without pixels, which are left out


@dataclass(frozen=True)
class _Packed:
    """A region as run lengths: a photograph may have hundreds of them."""

    class_id: int
    runs: rle.Rle
    name: str
    rank: tuple[bool, int, int, int]  #: the lowest is painted first
    pixels: int

    def unpack(self) -> Region:
        return rle.decode(self.runs)


def stack(
    regions: Iterable[StackedRegion], size: tuple[int, int], rest: int, protocol: Protocol
) -> Stack:
    """Compose regions by z-order, then size; of equal regions the one of higher precedence is on top.

    A region of UNLABELLED pixels lies over all others.

    Args:
        regions: each of `size`; one without pixels is ignored.
        size: (height, width) of the mask.
        rest: class of the pixels in no region.
    """
    empty: list[str] = []
    packed = sorted(_packed(regions, protocol, empty), key=lambda each: each.rank)
    claims = np.full(size, _UNCLAIMED, dtype=np.uint16)
    overlaps: Counter[tuple[int, int]] = Counter()
    enclosed: Counter[tuple[int, int]] = Counter()
    for each in packed:
        region = each.unpack()
        below = np.bincount(claims[region], minlength=_UNCLAIMED + 1)[:_UNCLAIMED]
        for other in np.flatnonzero(below).tolist():
            if other == each.class_id:
                continue
            overlaps[each.class_id, other] += int(below[other])
            above = _precedence(other, protocol) > _precedence(each.class_id, protocol)
            if above and below[other] >= _ENCLOSED * each.pixels:
                enclosed[each.class_id, other] += int(below[other])
        np.copyto(claims, each.class_id, where=region)
    claims[claims == _UNCLAIMED] = rest
    mask = claims.astype(np.uint8)
    shown = set(np.flatnonzero(np.bincount(mask.ravel())).tolist())
    missing = sorted({each.class_id for each in packed} - shown)
    return Stack(
        mask, len(packed), overlaps, enclosed, [_hidden(index, packed) for index in missing], empty
    )


def _packed(
    regions: Iterable[StackedRegion], protocol: Protocol, empty: list[str]
) -> Iterable[_Packed]:
    """Yield the regions with pixels; `empty` receives the names of the others."""
    for each in regions:
        pixels = int(np.count_nonzero(each.region))
        if not pixels:
            empty.append(each.name)
        else:
            unlabelled = each.class_id == UNLABELLED
            rank = unlabelled, each.order, -pixels, _precedence(each.class_id, protocol)
            yield _Packed(each.class_id, rle.encode(each.region), each.name, rank, pixels)


def _precedence(class_id: int, protocol: Protocol) -> int:
    return 0 if class_id == UNLABELLED else protocol.class_at(class_id).precedence


def _hidden(class_id: int, packed: Sequence[_Packed]) -> Hidden:
    place = max(
        (n for n, each in enumerate(packed) if each.class_id == class_id),
        key=lambda n: packed[n].pixels,
    )
    largest = packed[place]
    region = largest.unpack()
    over = max(
        (each for each in packed[place + 1 :] if each.class_id != class_id),
        key=lambda each: np.count_nonzero(region & each.unpack()),
    )
    return Hidden(class_id, largest.name, largest.pixels, over.name, over.class_id, over.pixels)
