"""A data set in a folder: photographs, masks and a table, in DDI's layout or any other.

Masks are found by the photograph's stem in a folder of masks, at any depth (as the published sDDI masks
are). A mask is (H, W) uint8 class ids of the protocol; 255 is a pixel of unknown class.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from annotation_protocol import UNLABELLED
from annotation_protocol.csv_files import unescape_cell
from annotation_protocol.metrics import confusion
from fedd.errors import DatasetError

#: Class id of a pixel of unknown class.
UNKNOWN = UNLABELLED

TONES = ("I-II", "III-IV", "V-VI")

#: Name of the tone of an image whose tone nobody noted.
UNKNOWN_TONE = "unknown"

#: Name of all tones together.
ALL = "all"

#: Endings of photographs' files.
PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")

#: DDI's table, in the folder of its photographs.
DDI_TABLE = "ddi_metadata.csv"

#: Names of a column in DDI, PAD-UFES-20, Fitzpatrick17k and our exports.
COLUMNS = {
    "file": ("DDI_file", "file", "image", "img_id", "filename"),
    "tone": ("tone", "skin_tone", "fitspatrick", "fitzpatrick", "fitzpatrick_scale"),
    "malignant": ("malignant",),
    "patient": ("patient", "patient_id"),
    "diagnosis": ("diagnosis", "disease", "diagnostic"),
}

#: DDI's groups, single Fitzpatrick types, and values for unknown.
_TONE_OF = (
    {"12": TONES[0], "34": TONES[1], "56": TONES[2]}
    | {str(kind): TONES[(kind - 1) // 2] for kind in range(1, 7)}
    | dict.fromkeys(("", "unknown", "-1"), "unknown")
)


@dataclass(frozen=True)
class DatasetImage:
    """A photograph of a data set with its metadata."""

    path: Path
    tone: str = "unknown"
    patient: str = ""  #: never empty: by default the photograph's stem
    malignant: bool | None = None
    mask: Path | None = None
    diagnosis: str = ""  #: as the table spells it

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.path.stem)

    @property
    def stem(self) -> str:
        return self.path.stem

    def photograph(self) -> NDArray[np.uint8]:
        """Return the photograph, (H, W, 3) uint8 RGB, upright; raises DatasetError if it can't be opened."""
        try:
            with Image.open(self.path) as picture:
                return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            why = _why(error, "a picture")
            raise DatasetError(f"{self.path} can't be opened as a photograph: {why}") from error

    def class_ids(self, class_count: int) -> NDArray[np.uint8]:
        """Return the mask, (H, W) uint8; raises DatasetError if there is none or it holds other numbers."""
        if self.mask is None:
            raise DatasetError(f"{self.path} has no mask")
        found = _read_mask(self.mask)
        strange = np.setdiff1d(found, [*range(class_count), UNKNOWN])
        if found.ndim != 2 or strange.size:
            raise DatasetError(
                f"{self.mask} is not a mask of {class_count} classes: shape {found.shape}, "
                f"holds {strange[:5].tolist()}; expected (H, W) class ids 0 to {class_count - 1}, or 255"
            )
        return found.astype(np.uint8)

    def confusion(self, predicted: NDArray[np.uint8], class_count: int) -> NDArray[np.int64]:
        """Return the confusion matrix of a predicted mask of any size, over pixels of known class."""
        truth = self.class_ids(class_count)
        predicted = resized_mask(predicted, truth.shape)
        return confusion(truth, predicted, class_count)


def read_dataset(
    folder: Path,
    table: Path | None = None,
    masks: Path | None = None,
    *,
    partial: bool = False,
) -> list[DatasetImage]:
    """Return the photographs of `folder`, by stem; `table` is a CSV, by default DDI's if present.

    With a table, those that it names; without, all, of unknown tone. Raises DatasetError if a table
    names missing photographs (they are left out with `partial`) or has invalid values, if two files
    share a stem, and if there are no photographs or no masks for them.
    """
    found = _by_stem(_files(folder, PHOTOGRAPHS), "photographs")
    of_stem = mask_files(masks) if masks else {}
    if table is None and (folder / DDI_TABLE).is_file():
        table = folder / DDI_TABLE
    rows = _rows(table) if table else {stem: {} for stem in found}
    missing = sorted(set(rows) - set(found))
    if partial:
        rows = {stem: row for stem, row in rows.items() if stem in found}
    elif missing:
        raise DatasetError(
            f"{table} names {len(missing)} photographs that are not in {folder}, first {missing[0]}"
        )
    if not rows:
        raise DatasetError(f"no photographs in {folder}: give the folder that holds them")
    if masks and not set(rows) & set(of_stem):
        raise DatasetError(
            f"no mask in {masks} has the name of a photograph of {folder}: expected the photographs' "
            "names, ending in .npy or .png"
        )
    return [
        DatasetImage(
            found[stem],
            _tone(row.get("tone", ""), stem),
            row.get("patient", ""),
            _flag(row.get("malignant", ""), stem),
            of_stem.get(stem),
            row.get("diagnosis", ""),
        )
        for stem, row in sorted(rows.items())
    ]


def mask_files(folder: Path) -> dict[str, Path]:
    """Return the files of masks in a folder, at any depth, by stem; raises DatasetError if two differ."""
    return _by_stem(_files(folder, (".npy", ".png")), "masks")


def resized_mask(mask: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a mask at `shape`: the published masks are square, whatever the photograph."""
    if mask.shape == shape:
        return mask
    return np.array(Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def rows_by_tone(tones: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of all images as "all", then those of each tone, in sorted order."""
    rows = {ALL: list(range(len(tones)))}
    for tone in sorted(set(tones)):
        rows[tone] = [row for row, each in enumerate(tones) if each == tone]
    return rows


def _read_mask(path: Path) -> NDArray[np.generic]:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as picture:
            return np.array(picture)
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        why = _why(error, "an array of numbers" if path.suffix == ".npy" else "a picture")
        raise DatasetError(f"{path} can't be read as a mask: {why}") from error


def _why(error: Exception, expected: str) -> str:
    """Return why a file can't be read; a library's own text may recommend to open it unsafely."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        return "it has too many pixels"
    return f"it is damaged, or not {expected}"


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    # Names that begin with a dot are files of an operating system.
    return sorted(p for p in folder.rglob("[!.]*") if p.suffix.lower() in endings and p.is_file())


def _by_stem(files: Iterable[Path], what: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        other = found.setdefault(path.stem, path)
        # The published masks hold some files twice, byte for byte.
        if other != path and other.read_bytes() != path.read_bytes():
            raise DatasetError(f"two {what} called {path.stem}: {other} and {path}; keep one")
    return found


def _rows(table: Path) -> dict[str, dict[str, str]]:
    """Return the known columns' cells by stem of the photograph's file."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            lines = [{k: unescape_cell(v or "") for k, v in row.items() if k} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise DatasetError(f"{table} can't be read as a CSV table: {why}") from error
    columns = {
        key: name for key, names in COLUMNS.items() for name in reversed(names) if name in header
    }
    if "file" not in columns:
        raise DatasetError(
            f"{table} has no column with the photographs' names: "
            f"expected one of {', '.join(COLUMNS['file'])}, found {', '.join(header)}"
        )
    rows: dict[str, dict[str, str]] = {}
    for line, row in enumerate(lines, 2):
        cells = _cells(row, columns)
        stem = Path(cells.pop("file")).stem
        if not stem:
            raise DatasetError(
                f"{table}, row {line}: no photograph is named in '{columns['file']}'"
            )
        if rows.setdefault(stem, cells) != cells:
            raise DatasetError(f"{table}, row {line}: {stem} has another row with other values")
    return rows


def _cells(row: Mapping[str, str | None], columns: Mapping[str, str]) -> dict[str, str]:
    return {key: (row.get(name) or "").strip() for key, name in columns.items()}


def _tone(cell: str, stem: str) -> str:
    if cell in TONES:
        return cell
    tone = _TONE_OF.get(cell.removesuffix(".0"))
    if tone is None:
        raise DatasetError(
            f"{stem}: tone is '{cell}'; expected {', '.join(TONES)}, a Fitzpatrick type 1 to 6, "
            "DDI's 12, 34 or 56, or unknown"
        )
    return tone


def _flag(cell: str, stem: str) -> bool | None:
    known = {"true": True, "1": True, "false": False, "0": False, "": None}
    if cell.lower() not in known:
        raise DatasetError(f"{stem}: malignant is '{cell}'; expected TRUE, FALSE or nothing")
    return known[cell.lower()]
