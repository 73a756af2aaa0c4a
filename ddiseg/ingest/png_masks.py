"""PNG files, one an image, with its name: class ids, or other values and colours with --classes.

The format `png`. BMP, TIFF, GIF, lossless WebP and JPEG are read as well, one kind in a folder. Where a
`labelmap.txt` lies above the files, their colours are its labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.ingest.folder import FoundFile, list_folder
from ddiseg.ingest.label_map import class_folder, find_label_map, is_voc, read_label_map
from ddiseg.ingest.mask_files import MaskFile, find_mask_files, has_mask_files, read_mask_file
from ddiseg.ingest.mask_pictures import FORMATS, read_colours, read_values
from ddiseg.ingest.own_release import has_own_masks
from ddiseg.outcomes import Note

MASK_ENDINGS = (".png",)


def fits(path: Path) -> bool:
    """Return whether a path is a PNG file, or a folder with one or with nothing but other pictures."""
    if is_voc(path):
        return False
    if path.is_file():
        return has_mask_files(path, *FORMATS)
    if has_mask_files(path, ".png"):
        return True
    listing = list_folder(path, tuple(FORMATS))
    return bool(listing.files) and not listing.others


def read_masks(path: Path) -> Iterator[MaskFile]:
    """Yield the pictures under a folder, or one; raises InputError where there is none.

    Of several kinds the first of `FORMATS` is read: photographs often lie among masks.
    """
    path = class_folder(path)
    files = find_mask_files(path, *FORMATS)
    kind = min((kind_of(file) for file in files), key=list(FORMATS.values()).index)
    chosen = [file for file in files if kind_of(file) == kind]
    yield from read_pictures(path, chosen, kind)
    others = [file for file in files if kind_of(file) != kind]
    yield from _others(others, {file.stem for file in chosen}, kind)


def read_pictures(path: Path, files: Sequence[FoundFile], kind: str) -> Iterator[MaskFile]:
    """Yield the masks in files of one kind, with the labels of the labelmap above each."""
    classes = tuple(c.index for c in load_protocol().classes)
    top = path if path.is_dir() else path.parent
    labels: dict[Path | None, dict[int, str] | None] = {None: None}
    own = {folder: has_own_masks(folder, top) for folder in {file.place.parent for file in files}}
    for file in files:
        notes: list[Note] = []
        label_map = find_label_map(file.place.parent, top)
        if label_map not in labels and label_map is not None:
            labels[label_map] = read_label_map(label_map)
        yield MaskFile(
            file.path,
            file.path_stem,
            partial(_load, file, kind, notes),
            classes,
            notes=notes,
            load_colours=partial(_load_colours, file, kind),
            labels=labels[label_map],
            inexact=kind == "JPEG",
            own=own[file.place.parent],
            unlabelled=own[file.place.parent],
        )


def kind_of(file: FoundFile) -> str:
    """Return the kind of a picture by its ending; PNG for any other ending that a person gave."""
    return FORMATS.get("." + file.name.lower().rsplit(".", 1)[-1], "PNG")


def _load(file: FoundFile, kind: str, notes: list[Note]) -> NDArray[Any]:
    return read_values(read_mask_file(file), kind, notes)


def _load_colours(file: FoundFile, kind: str) -> NDArray[Any]:
    return read_colours(read_mask_file(file), kind)


def _others(files: Sequence[FoundFile], stems: set[str], kind: str) -> Iterator[MaskFile]:
    """Yield pictures of other kinds than the masks: left out as photographs, or with a fault."""
    for file in files:
        if any(stem.startswith(file.stem) for stem in stems):
            why = f"pictures left out, which have the name of a {kind} mask: photographs"
            yield MaskFile(
                file.path, file.path_stem, partial(_load, file, kind, []), (), left_out=why
            )
            continue
        fault = (
            f"is a {kind_of(file)} among {kind} masks: put masks of another kind into a folder of "
            "their own"
        )
        faulty = FoundFile(file.path, file.place, file.fault or fault)
        yield MaskFile(file.path, file.path_stem, partial(_load, faulty, kind, []), ())
