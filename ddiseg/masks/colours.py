"""Colours as values of pixels, beside class ids and grey levels: 0x1RRGGBB.

Arrays: (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Added to 0xRRGGBB, so that no colour is a grey level.
COLOUR = 1 << 24

#: A value this far from a known one, in each channel, is still taken for it: soft edges, JPEG.
TOLERANCE = 10


def colour_value(red: int, green: int, blue: int) -> int:
    """Return the value of a colour, channels 0 to 255."""
    return COLOUR | red << 16 | green << 8 | blue


def colour_values(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the values of (H, W, 3) pixels, (H, W)."""
    red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
    return np.uint32(COLOUR) | red << np.uint32(16) | green << np.uint32(8) | blue


def value_text(value: int) -> str:
    """Return a value as people write it: #rrggbb for a colour."""
    return f"#{value - COLOUR:06x}" if value >= COLOUR else str(value)


def nearest_values(
    values: NDArray[Any], known: Collection[int]
) -> tuple[Mapping[int, int], NDArray[Any]]:
    """Find which of a picture's values are near a known one.

    Args:
        values: distinct values, ascending.
        known: values that have a meaning.

    Returns:
        The known value by each value that is it, or is within TOLERANCE of it and of no other known
        one; and the values that are neither.
    """
    channels = _channels(values)
    owner = np.full(len(values), -1, dtype=np.int64)
    claims = np.zeros(len(values), dtype=np.int64)
    for each in known:
        of_kind = (values >= COLOUR) == (each >= COLOUR)
        distance = np.abs(channels - _channels(np.array([each]))).max(axis=1)
        near = of_kind & (distance <= TOLERANCE)
        claims += near
        owner[near] = each
    owner[claims > 1] = -1
    exact = np.isin(values, list(known))
    owner[exact] = values[exact]
    found = owner >= 0
    pairs = zip(values[found].tolist(), owner[found].tolist(), strict=True)
    return dict(pairs), values[~found]


def too_near(known: Collection[int]) -> tuple[int, int] | None:
    """Return two known values that a value within TOLERANCE of both would not tell apart, if any."""
    ordered = sorted(known)
    for place, one in enumerate(ordered):
        for other in ordered[place + 1 :]:
            same_kind = (one >= COLOUR) == (other >= COLOUR)
            distance = np.abs(_channels(np.array([one])) - _channels(np.array([other]))).max()
            if same_kind and distance <= 2 * TOLERANCE:
                return one, other
    return None


def _channels(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return red, green and blue of values, (N, 3); a grey level is in the last."""
    whole = values.astype(np.int64)
    low = np.where(whole >= COLOUR, whole - COLOUR, whole)
    grey = whole < COLOUR
    red = np.where(grey, 0, low >> 16)
    green = np.where(grey, 0, low >> 8 & 255)
    blue = np.where(grey, low, low & 255)
    return np.stack([red, green, blue], axis=1)
