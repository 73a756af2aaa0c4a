"""Bring pictures of more than 8 bits a channel to 8: 16-bit, 12-in-16-bit, 32-bit and floating point.

Cameras and microscopes write 10, 12 or 14 bits into 16, and floats from 0 to 1 or to anything. Scaled
by what the format could hold, such a picture is black. So the range is the one that the file declares
(TIFF 6.0: BitsPerSample, MaxSampleValue, SMinSampleValue, SMaxSampleValue, PhotometricInterpretation)
or, where it declares none or wrong ones, that of its values.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddiseg.errors import InputError

#: TIFF tags (TIFF 6.0, part 2).
_BITS, _PHOTOMETRIC, _MAX_SAMPLE, _PLANAR, _SMIN, _SMAX = 258, 262, 281, 284, 340, 341

#: Largest values of usual depths; the smallest that holds all values of a picture is taken.
_TOPS = tuple((1 << bits) - 1 for bits in (8, 10, 12, 14, 16, 24, 31))

#: Below this, floats of a picture are not from 0 to 1, 255 or 65535, but from 0 to their maximum.
_DARK = 0.25

Values = NDArray[Any]


def scale_grey(picture: Image.Image) -> tuple[Image.Image, str]:
    """Return a picture of one wide channel (modes I, I;16 and F) in mode L, and the change in words.

    Raises:
        InputError: values that are negative, infinite or not a number.
    """
    declared = _declared_range(picture)
    inverted = _tags(picture).get(_PHOTOMETRIC) == 0 and not picture.mode.startswith("F")
    values = np.asarray(picture)
    low, high, how = _range_of(values, declared)
    scaled = _to_bytes(values, low, high)
    if inverted:  # white is zero
        np.subtract(255, scaled, out=scaled)
    return Image.fromarray(scaled), _in_words(low, high, how)


def refuse_separate_planes(picture: Image.Image) -> None:
    """Raise InputError for 16-bit colours in separate planes, which Pillow reads as noise of 8 bits."""
    tags = _tags(picture)
    bits = _first(tags.get(_BITS))
    if tags.get(_PLANAR) == 2 and bits is not None and bits > 8:
        raise InputError(
            "is a TIFF with 16-bit colours in separate planes: export it interleaved, or as PNG"
        )


def has_wide_colours(picture: Image.Image) -> bool:
    """Return whether a picture that is not loaded yet has 16 bits in each of several channels."""
    return picture.mode not in ("I", "F") and ";16" in "".join(map(_raw_mode, _tiles(picture)))


def scale_colours(
    picture: Image.Image, reopen: Callable[[], AbstractContextManager[Image.Image]]
) -> tuple[Image.Image, str]:
    """Return a picture of 16-bit colours with 8 bits a channel, and the change in words.

    Pillow reads the upper byte of each value. Where all of these are small, the lower bytes are read
    too: Pillow's raw modes of the other byte order give them.

    Args:
        reopen: opens the same file again.

    Raises:
        InputError: dark values whose lower bytes can't be read.
    """
    declared = _declared_range(picture)
    upper = np.asarray(picture)
    alpha = upper[..., 3:] if picture.mode == "RGBA" else None
    colours = upper[..., :3] if picture.mode == "RGBA" else upper
    if int(colours.max(initial=0)) > _TOPS[3] >> 8 and declared is None:
        return picture, _in_words(0, 65535, "")
    with reopen() as again:
        lower = _lower_bytes(again)
    if lower is None:
        if int(colours.max(initial=0)) > _TOPS[3] >> 8:
            return picture, _in_words(0, 65535, "")
        raise InputError(
            "has 16 bits a channel and only dark values, perhaps of 12 bits: export it with 8 bits"
        )
    wide = colours.astype(np.uint16) << 8 | lower[..., : colours.shape[-1]]
    low, high, how = _range_of(wide, declared)
    if (low, high) == (0, 65535):
        return picture, _in_words(0, 65535, "")
    scaled = _to_bytes(wide, low, high)
    if alpha is not None:
        top = max(1, int(high) >> 8) if int(alpha.max(initial=0)) <= int(high) >> 8 else 255
        full = np.minimum(alpha.astype(np.uint16) * 255 // top, 255).astype(np.uint8)
        scaled = np.concatenate([scaled, full], axis=-1)
    return Image.fromarray(scaled, picture.mode), _in_words(low, high, how)


def _declared_range(picture: Image.Image) -> tuple[float, float] | None:
    """Return the smallest and largest value that a TIFF declares, where it declares one."""
    tags = _tags(picture)
    low, high = (_first(tags.get(tag)) for tag in (_SMIN, _SMAX))
    if high is not None:
        return ((low or 0.0), high) if high > (low or 0.0) else None
    if (high := _first(tags.get(_MAX_SAMPLE))) is not None:
        return (0.0, high) if high > 0 else None
    bits = _first(tags.get(_BITS))
    return (0.0, float((1 << int(bits)) - 1)) if bits in (9, 10, 11, 12, 13, 14, 15) else None


def _tags(picture: Image.Image) -> Any:
    return getattr(picture, "tag_v2", {})


def _first(value: Any) -> float | None:
    """Return the first of a tag's values, which has one a channel."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if np.isfinite(number) else None


def _range_of(values: Values, declared: tuple[float, float] | None) -> tuple[float, float, str]:
    """Return the values that become 0 and 255, and whether they are declared or observed."""
    smallest, largest = (values.min(), values.max()) if values.size else (0, 0)
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        raise InputError("holds values that are infinite or not a number: export it with 8 bits")
    if declared and declared[0] <= smallest and largest <= declared[1]:
        low, high = declared
        if largest - low >= (high - low) / 16:  # else it was written down and not measured
            return low, high, "declared"
    if smallest < 0:
        raise InputError(
            f"holds values from {smallest:g} to {largest:g}: negative ones are no brightness; export "
            "it with 8 or 16 bits a channel, from 0"
        )
    if values.dtype.kind == "f":
        for top in (1.0, 255.0, 65535.0):
            if top * _DARK <= largest <= top:
                return 0.0, top, "observed"
        return 0.0, float(largest) or 1.0, "observed"
    return 0.0, float(next((top for top in _TOPS if largest <= top), largest)), "observed"


def _to_bytes(values: Values, low: float, high: float) -> NDArray[np.uint8]:
    """Scale values from `low` to `high` to 0 to 255, a part at a time: little memory is used."""
    scaled = np.empty(values.shape, np.uint8)
    if values.dtype in (np.dtype("u2"), np.dtype(">u2")):
        table = ((np.arange(1 << 16) - low) * (255 / (high - low))).clip(0, 255)
        np.take(table.round().astype(np.uint8), values, out=scaled)
        return scaled
    for row in range(0, len(values), 64):
        part = (values[row : row + 64].astype(np.float64) - low) * (255 / (high - low))
        scaled[row : row + 64] = part.clip(0, 255).round()
    return scaled


def _in_words(low: float, high: float, how: str) -> str:
    if (low, high) == (0, 65535):
        return "brought from 16 to 8 bits"
    return f"brought to 8 bits: {low:g} to {high:g}, the {how} range, became 0 to 255"


def _tiles(picture: Image.Image) -> list[Any]:
    return list(getattr(picture, "tile", []))


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _lower_bytes(picture: Image.Image) -> NDArray[np.uint8] | None:
    """Return the lower byte of each value of a picture not loaded yet, None where it can't be had."""
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    tiles = []
    for tile in _tiles(picture):
        found = re.fullmatch(r"(.*;16)([BLN])", _raw_mode(tile))
        if not found or "a" in found[1]:  # RGBa: premultiplied, which would be undone bytewise
            return None
        raw = found[1] + other[found[2]]
        arguments = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
        tiles.append(tile._replace(args=arguments))
    picture.tile = tiles  # type: ignore[attr-defined]
    try:
        return np.asarray(picture)
    except (ValueError, OSError, SystemError, KeyError):  # no such raw mode
        return None
