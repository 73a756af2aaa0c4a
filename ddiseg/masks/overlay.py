"""Draw a mask over its photograph, for contact sheets and reviews.

The skin keeps its tone and the lesion its texture: a reviewer must see both.

Arrays: photographs (H, W, 3) uint8 RGB, masks (H, W) uint8 class ids.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED, Protocol
from ddiseg.errors import InputError
from ddiseg.masks.mask import Mask, check_mask, stretch

_BACKGROUND, _SKIN, _LESION = "background", "skin", "lesion"

#: Shares of `opacity` that tint a lesion: with an outline, without one. Its colours are a diagnosis.
_LESION_TINT = (0.2, 0.45)

#: Brightness of the background: light and dark bands of the hatching.
_BANDS = (0.75, 0.5)

#: A grey (0 to 255) that the background's own is moved halfway to, so that bands show on any cloth.
_MIDDLE_GREY = 85.0


def draw_overlay(
    photo: NDArray[np.uint8],
    mask: Mask,
    protocol: Protocol,
    opacity: float = 0.5,
    outline: bool = True,
) -> NDArray[np.uint8]:
    """Return the photograph with the classes of `mask` in their colours, (H, W, 3) uint8.

    Skin is left as it is, the background is greyed and hatched, the other classes are tinted (a
    lesion lightly, so that its texture shows) and outlined in their colour on a dark rim. Unlabelled
    pixels are dotted in white.

    Args:
        photo: (H, W, 3) uint8 RGB.
        mask: (h, w) uint8; stretched to the photograph when its size differs.
        protocol: the classes and their colours.
        opacity: 0 leaves the photograph's colours, 1 hides it under marker and ruler.
        outline: draw the lines around the regions.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
        raise InputError(
            f"photo is {photo.dtype} of shape {photo.shape}, not (height, width, 3) uint8; "
            "convert it to RGB first"
        )
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity is {opacity}; give 0 (no colour) to 1 (nothing shows through)")
    size = photo.shape[0], photo.shape[1]
    mask = check_mask(mask, len(protocol.classes), unlabelled=True)
    if mask.shape != size:
        mask = stretch(mask, size)
    canvas = photo.astype(np.float32)
    for entry in protocol.classes:
        region = mask == entry.index
        if not region.any():
            continue
        if entry.name == _BACKGROUND:
            canvas[region] = _hatched(canvas, region, opacity)
        else:
            alpha = np.float32(opacity * _tint(entry.name, outline))
            colour = np.array(entry.rgb, dtype=np.float32)
            canvas[region] += (colour - canvas[region]) * alpha
    dots = (mask == UNLABELLED) & _grid(size)
    canvas[dots] += (255 - canvas[dots]) * np.float32(min(1.0, 2 * opacity))
    if outline:
        _draw_outlines(canvas, mask, protocol)
    return np.asarray(np.clip(canvas + 0.5, 0, 255), dtype=np.uint8)


def _tint(name: str, outline: bool) -> float:
    """Return the share of the opacity that fills a class."""
    if name == _SKIN:
        return 0.0
    return _LESION_TINT[0 if outline else 1] if name == _LESION else 1.0


def _hatched(
    canvas: NDArray[np.float32], region: NDArray[np.bool_], opacity: float
) -> NDArray[np.float32]:
    """Return the pixels of `region` in grey under dark diagonal bands, (pixels, 3)."""
    rows, columns = np.nonzero(region)
    period = 6 * _line_width(region.shape)
    band = np.where((rows + columns) % period < period // 2, _BANDS[0], _BANDS[1])
    grey = (canvas[region].mean(axis=1) + _MIDDLE_GREY) / 2 * band
    # At the usual opacity of one half the hatching is whole; below it fades out.
    alpha = np.float32(min(1.0, 2 * opacity))
    return np.asarray(canvas[region] * (1 - alpha) + grey[:, None] * alpha, dtype=np.float32)


def _grid(size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where dots lie in rows and columns, (H, W): a ninth of all pixels."""
    rows, columns = (np.arange(side) // _line_width(size) % 3 == 0 for side in size)
    return np.asarray(np.logical_and.outer(rows, columns))


def _draw_outlines(canvas: NDArray[np.float32], mask: Mask, protocol: Protocol) -> None:
    """Draw lines just inside lesion, marker and ruler in their colour, with a dark rim outside."""
    width = _line_width(mask.shape)
    outlined = [entry for entry in protocol.classes if entry.name not in (_BACKGROUND, _SKIN)]
    # All rims before any line: a rim may not darken the line of a neighbour.
    for entry in outlined:
        region = mask == entry.index
        canvas[~region & ~_shrunk(~region, max(1, width // 2))] *= np.float32(0.45)
    for entry in outlined:
        region = mask == entry.index
        canvas[region & ~_shrunk(region, width)] = np.array(entry.rgb, dtype=np.float32)


def _shrunk(region: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Return `region` less the pixels within `steps` of its outside; the picture's edge is not outside."""
    for step in range(steps):
        padded = np.pad(region, 1, mode="edge")
        smaller = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1]
        smaller &= padded[1:-1, :-2] & padded[1:-1, 2:]
        if step % 2:  # diamonds and squares in turn keep round corners round
            smaller &= padded[:-2, :-2] & padded[:-2, 2:] & padded[2:, :-2] & padded[2:, 2:]
        region = smaller
    return region


def _line_width(shape: tuple[int, ...]) -> int:
    """Return a width that shows on a contact sheet: about 1/200 of the shorter edge."""
    return max(1, round(min(shape) / 200))
