"""The published FEDD masks (sDDI): 256 x 256 .npy files with the names of DDI's photographs.

The format `sddi`: int32 arrays with the protocol's class ids, each drawn on its photograph
stretched to a square. The nested training splits and the test folders repeat files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.errors import InputError
from ddiseg.ingest.folder import FoundFile
from ddiseg.ingest.mask_files import MaskFile, find_mask_files, has_mask_files, read_mask_file

SIDE = 256
MASK_ENDINGS = (".npy",)


def fits(path: Path) -> bool:
    """Return whether a path is an .npy file or a folder with one."""
    return has_mask_files(path, ".npy")


def read_masks(path: Path) -> Iterator[MaskFile]:
    """Yield the `.npy` files under a folder, or one; raises InputError where there is none."""
    classes = tuple(c.index for c in load_protocol().classes)
    for file in find_mask_files(path, ".npy"):
        yield MaskFile(file.path, file.path_stem, partial(_load, file), classes, stretched=True)


def _load(file: FoundFile) -> NDArray[Any]:
    array = masks.load_npy(read_mask_file(file))
    if array.dtype.kind != "i" or array.dtype.itemsize != 4:
        raise InputError(f"holds {array.dtype}; the masks of sDDI are int32")
    if array.shape != (SIDE, SIDE):
        raise InputError(
            f"has shape {array.shape}; the masks of sDDI are {SIDE} x {SIDE}. "
            "For masks of another size, save PNGs and give --as png"
        )
    return array
