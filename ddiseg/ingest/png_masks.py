"""PNG files, one an image, with its name: class ids, or other values with --classes.

The format `png`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.errors import InputError
from ddiseg.ingest.folder import FoundFile
from ddiseg.ingest.mask_files import MaskFile, find_mask_files, has_mask_files, read_mask_file
from ddiseg.outcomes import Note

MASK_ENDINGS = (".png",)

#: PNG colour types with more than one channel at 8 bits (PNG specification, 11.2.2).
_COLOUR_TYPES = {2: "RGB", 4: "LA", 6: "RGBA"}


def fits(path: Path) -> bool:
    """Return whether a path is a PNG file or a folder with one."""
    return has_mask_files(path, ".png")


def read_masks(path: Path) -> Iterator[MaskFile]:
    """Yield the PNG files under a folder, or one; raises InputError where there is none."""
    classes = tuple(c.index for c in load_protocol().classes)
    for file in find_mask_files(path, ".png"):
        notes: list[Note] = []
        yield MaskFile(file.path, file.path_stem, partial(_load, file, notes), classes, notes=notes)


def _load(file: FoundFile, notes: list[Note]) -> NDArray[Any]:
    data = read_mask_file(file)
    header = data[16:26]
    if len(data) < 33 or header[8] != 8 or header[9] not in _COLOUR_TYPES:
        return masks.decode_png(data)
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    values = _decode_colours(data, width * height)
    notes.append(Note(f"{_COLOUR_TYPES[header[9]]} with equal channels: read as one"))
    return values


def _decode_colours(data: bytes, pixels: int) -> NDArray[np.uint8]:
    """Return the (H, W) values of a PNG whose colour channels are all the same and whose alpha is full."""
    from PIL.PngImagePlugin import PngImageFile

    if pixels > masks.MAX_PIXELS:
        raise InputError(f"is {pixels:,} pixels large; {masks.MAX_PIXELS:,} at most")
    try:
        PngImageFile(io.BytesIO(data)).verify()
        with PngImageFile(io.BytesIO(data)) as image:
            alpha = "A" in image.getbands()
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"mask PNG is damaged or cut short ({error}): export it again") from error
    if alpha and values[..., -1].min() < 255:
        raise InputError("mask PNG is partly transparent: export it without an alpha channel")
    colours = values[..., :-1] if alpha else values
    if (colours != colours[..., :1]).any():
        raise InputError(
            "mask PNG is in colours, which are not class ids: export it as palette or 8-bit grey"
        )
    return np.ascontiguousarray(colours[..., 0])
