"""Pascal VOC, and CVAT's "Segmentation mask": coloured pictures and a labelmap.txt.

The format `voc`: a folder SegmentationClass with one picture an image, in the colours of a
`labelmap.txt` next to it or above. SegmentationObject, which numbers objects, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ddiseg.errors import InputError
from ddiseg.ingest.label_map import CLASSES, class_folder, is_voc
from ddiseg.ingest.mask_files import MaskFile, find_mask_files
from ddiseg.ingest.png_masks import read_pictures

MASK_ENDINGS = (".png",)

fits = is_voc


def read_masks(path: Path) -> Iterator[MaskFile]:
    """Yield the PNG files of a VOC data set, which are read by their colours.

    Raises:
        InputError: `path` is no folder, or has no PNG files.
    """
    if not path.is_dir():
        raise InputError(f"{path} is no folder: give the folder with {CLASSES}")
    path = class_folder(path)
    for file in read_pictures(path, find_mask_files(path, ".png"), "PNG"):
        if file.labels is None and file.load_colours is not None:
            # Without a labelmap the indices of a palette mean nothing: its colours are listed then.
            yield replace(file, load=file.load_colours)
        else:
            yield file
