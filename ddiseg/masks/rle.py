"""COCO run-length encoding of masks, the compressed form that pycocotools reads and writes.

A region's pixels are read column by column; `counts` holds the lengths of the runs outside and
inside the region in turn, starting outside, each as the difference to the run two before it, in
groups of five bits a character (https://github.com/cocodataset/cocoapi, common/maskApi.c).

pycocotools encodes; decoding is numpy, so that counts from an unknown source cannot write past a C buffer.

Arrays: H rows, W columns; masks (H, W) uint8 class ids, regions (H, W) bool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ddiseg.errors import InputError
from ddiseg.json_values import size_of, whole_numbers
from ddiseg.masks.mask import MAX_PIXELS, Mask, check_region, check_uint8

#: Groups of five bits in one run length; seven hold 35 bits, more than any mask has pixels.
_MAX_GROUPS = 7


class Rle(TypedDict):
    """One region of one mask; `size` is [height, width]."""

    size: list[int]
    counts: str


def encode(binary: NDArray[np.bool_]) -> Rle:
    """Encode a region, (H, W) bool."""
    if check_region(binary).size == 0:
        raise InputError(f"region of shape {binary.shape} has no pixels")
    return _compress(np.asfortranarray(binary))


def encode_classes(mask: Mask, class_ids: Iterable[int]) -> dict[int, Rle]:
    """Encode each of `class_ids` in `mask`; a class that no pixel has gets an empty region.

    The mask is turned to column order once, for all classes: that, not the counting of runs, is
    what encoding each class by itself spends its time on.
    """
    columns = np.ascontiguousarray(check_uint8(mask).T)
    region = np.empty(columns.shape, dtype=np.bool_)
    encoded: dict[int, Rle] = {}
    for class_id in class_ids:
        np.equal(columns, class_id, out=region)
        encoded[class_id] = _compress(region.T)
    return encoded


def decode(rle: Mapping[str, Any], *, max_pixels: float = MAX_PIXELS) -> NDArray[np.bool_]:
    """Decode a region, (H, W) bool; counts may also be bytes or an uncompressed list.

    Raises:
        InputError: malformed counts, counts that do not fill the size, or more than `max_pixels`.
    """
    height, width = _size(rle)
    if height * width > max_pixels:
        raise InputError(
            f"RLE is {height} x {width} = {height * width:,} pixels, over the limit of "
            f"{max_pixels:,.0f}; raise max_pixels if that is right"
        )
    counts = _counts(rle)
    inside = np.zeros(counts.size, dtype=np.bool_)
    inside[1::2] = True
    return np.ascontiguousarray(np.repeat(inside, counts).reshape(width, height).T)


def _compress(region: NDArray[np.bool_]) -> Rle:
    from pycocotools import mask as coco

    height, width = region.shape
    encoded = coco.encode(region.view(np.uint8))
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _size(rle: Mapping[str, Any]) -> tuple[int, int]:
    given = rle.get("size")
    size = size_of(*given) if isinstance(given, list | tuple) and len(given) == 2 else None
    if size is None:
        raise InputError(f"RLE has size {given!r}; it must be [height, width], both 1 or more")
    return size


def _counts(rle: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the lengths of the runs outside and inside in turn, checked against the size."""
    height, width = _size(rle)
    given = whole_numbers(rle.get("counts"))
    if isinstance(given, str):
        counts = _uncompress(given.encode("utf-8", errors="surrogatepass"))
    elif isinstance(given, bytes):
        counts = _uncompress(given)
    elif isinstance(given, list) and all(isinstance(run, int) and run >= 0 for run in given):
        if sum(given) != height * width:  # in Python's integers, before they could overflow
            raise _unfilled(sum(given), height, width)
        counts = np.array(given, dtype=np.int64)
    else:
        raise InputError(
            f"RLE has counts of type {type(given).__name__}; they must be COCO's compressed string "
            "or a list of run lengths, 0 or more"
        )
    if counts.size and int(counts.min()) < 0:
        raise InputError("RLE has a negative run length; the counts are corrupt, export them again")
    if int(counts.sum()) != height * width:
        raise _unfilled(int(counts.sum()), height, width)
    return counts


def _unfilled(total: int, height: int, width: int) -> InputError:
    return InputError(
        f"RLE counts cover {total:,} pixels but its size {height} x {width} has "
        f"{height * width:,}; is the size [height, width]?"
    )


def _uncompress(text: bytes) -> NDArray[np.int64]:
    symbols = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not symbols.size:
        return np.empty(0, dtype=np.int64)
    ends = np.flatnonzero((symbols & 32) == 0)
    if symbols.min() < 0 or symbols.max() > 63 or not ends.size or ends[-1] != symbols.size - 1:
        raise InputError(
            "RLE counts are not COCO's compressed string or stop early; export them again"
        )
    starts = np.concatenate(([0], ends[:-1] + 1))
    groups = ends - starts + 1
    if int(groups.max()) > _MAX_GROUPS:
        raise InputError(
            "RLE has a run longer than any mask; the counts are corrupt, export them again"
        )
    position = np.arange(symbols.size) - np.repeat(starts, groups)
    runs = np.add.reduceat((symbols & 31) << (5 * position), starts)
    runs -= ((symbols[ends] & 16) != 0) * (np.int64(1) << (5 * groups))
    # From the fourth run on, each is stored as its difference to the run two before.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return np.asarray(runs, dtype=np.int64)
