"""Pictures whose pixels are classes: PNG, BMP, TIFF, GIF, WebP and JPEG, in values or in colours.

Arrays: (H, W) values, which are grey levels, palette indices, or colours as 0x1RRGGBB.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Image as Picture
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from annotation_protocol import UNLABELLED, load_protocol
from ddiseg import masks
from ddiseg.errors import InputError
from ddiseg.masks.colours import TOLERANCE, colour_values
from ddiseg.outcomes import Note

#: PNG's colour type of palette indices (PNG specification, 11.2.1).
_PALETTE = 3

#: Pillow's name of a format by the ending of its files; the order in which one is chosen of several.
FORMATS = {
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}

#: Not Image.open: its limit on pixels is a global of the process, and it takes any format.
_READERS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
    "JPEG": JpegImageFile,
}

#: What Pillow raises for a file that is damaged or of another kind.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


def read_values(data: bytes, kind: str, notes: list[Note]) -> NDArray[Any]:
    """Return the values of a picture: indices of a palette, grey levels, else colours.

    Raises:
        InputError: not a whole picture of `kind`, too large, animated, partly transparent, or of more
            than 8 bits a channel.
    """
    if kind == "PNG" and not _is_png_in_channels(data):
        values = masks.decode_png(data)
        return _unpacked_greys(data, values, notes) if data[25] == _PALETTE else values
    mode, pixels, palette = _decode(data, kind)
    if pixels.ndim == 2:
        return pixels if kind == "PNG" else _grey_of_palette(pixels, palette)
    grey = _as_grey(pixels, exact=kind != "JPEG")
    if grey is None:
        return colour_values(pixels)
    notes.append(Note(f"{mode} with equal channels: read as one"))
    return grey


def _unpacked_greys(data: bytes, indices: masks.Mask, notes: list[Note]) -> NDArray[np.uint8]:
    """Return the grey levels of a PNG whose class ids an optimiser moved into a palette.

    Tools that shrink files (optipng, oxipng) store grey levels 0, 1 and 4 as indices 0, 1 and 2. Greys
    as dark as class ids are no colours that somebody chose.
    """
    _, _, palette = _decode(data, "PNG")
    used = np.unique(indices)
    greys = (palette[used] & 255).astype(np.uint8)
    dark = greys < len(load_protocol().classes)
    if (
        np.array_equal(greys, used)
        or not dark[greys != UNLABELLED].all()
        or not (greys[dark] > 0).any()
        or not np.array_equal(palette[used], colour_values(np.stack([greys] * 3, axis=-1)))
    ):
        return indices
    notes.append(Note("grey levels that were moved into a palette: read as the grey levels"))
    return (palette & 255).astype(np.uint8)[indices]


def _grey_of_palette(indices: NDArray[np.uint8], palette: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the grey levels of a palette picture, or its indices where it is in colours.

    GIF has no grey pictures: other values than those that were drawn would be read.
    """
    greys = (palette & 255).astype(np.uint8)
    used = np.unique(indices)
    if np.array_equal(palette[used], colour_values(np.stack([greys] * 3, axis=-1))[used]):
        return greys[indices]
    return indices


def read_colours(data: bytes, kind: str) -> NDArray[Any]:
    """Return the colours of a picture, those of its palette included; grey levels as colours.

    Raises:
        InputError: as `read_values` does.
    """
    if kind == "PNG" and not _is_png_in_channels(data):
        masks.decode_png(data)  # checks more than Pillow does
    _, pixels, palette = _decode(data, kind)
    if pixels.ndim == 2:
        return palette[pixels]
    return colour_values(pixels)


def _is_png_in_channels(data: bytes) -> bool:
    """Return whether a PNG has 8 bits a channel and several (PNG specification, 11.2.2)."""
    return len(data) >= 33 and data[24] == 8 and data[25] in (2, 4, 6)


def _is_lossy_webp(data: bytes) -> bool:
    """Return whether a WebP has a chunk of lossy pixels (WebP container specification)."""
    place = 12  # after RIFF, size and WEBP
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name == b"VP8 ":
            return True
        place += 8 + size + size % 2
    return False


def _decode(data: bytes, kind: str) -> tuple[str, NDArray[np.uint8], NDArray[np.uint32]]:
    """Return mode, pixels (H, W) or (H, W, 3), and the colour of each value of (H, W) pixels."""
    if kind == "WEBP" and _is_lossy_webp(data):
        raise InputError("is a lossy WebP, which changes values: export it lossless, or as PNG")
    try:
        with _READERS[kind](io.BytesIO(data)) as picture:
            width, height = picture.size
            if width * height > masks.MAX_PIXELS:
                raise InputError(
                    f"is {width * height:,} pixels large; {masks.MAX_PIXELS:,} at most"
                )
            if getattr(picture, "n_frames", 1) > 1:
                raise InputError("has several pictures in one file: export a single one")
            if kind == "PNG":
                PngImageFile(io.BytesIO(data)).verify()  # the checksums, which loading passes over
            return (picture.mode, *_pixels(picture))
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"mask {kind} is damaged or cut short ({error}): export it again"
        ) from error


def _pixels(picture: Picture) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    greys = np.arange(256, dtype=np.uint8)
    palette = np.stack([greys] * 3, axis=-1)
    if picture.mode == "1":
        return np.asarray(picture, dtype=np.uint8), colour_values(255 * palette.clip(0, 1))
    if picture.mode == "L":
        return np.asarray(picture), colour_values(palette)
    if picture.mode == "P":
        listed = np.zeros((256, 3), np.uint8)
        own = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
        listed[: len(own)] = own
        return np.asarray(picture), colour_values(listed)
    if picture.mode in ("RGB", "RGBA", "LA"):
        if "A" in picture.getbands():
            if np.asarray(picture)[..., -1].min() < 255:
                raise InputError(
                    "mask picture is partly transparent: export it without an alpha channel"
                )
            return np.asarray(picture.convert("RGB")), colour_values(palette)
        return np.asarray(picture), colour_values(palette)
    raise InputError(f"has pixels of kind {picture.mode}: export it as an 8-bit PNG")


def _as_grey(pixels: NDArray[np.uint8], *, exact: bool) -> NDArray[np.uint8] | None:
    """Return the one value of channels that are all the same (in JPEG: nearly); None where they differ."""
    low, high = pixels.min(axis=-1), pixels.max(axis=-1)
    if int((high - low).max()) > (0 if exact else TOLERANCE):
        return None
    if exact:
        return np.ascontiguousarray(pixels[..., 0])
    return np.asarray(pixels.sum(axis=-1, dtype=np.uint16) // 3, dtype=np.uint8)
