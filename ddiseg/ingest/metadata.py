"""Image metadata from a CSV file: its columns and the meaning of their values."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath, PureWindowsPath

from annotation_protocol import load_protocol
from ddiseg.catalogue import FROM_DIAGNOSIS, Details
from ddiseg.errors import InputError

#: The longest diagnosis, patient or lesion that the catalogue holds.
MAX_LENGTH = 200

_BLANK = {"", "na", "n/a", "nan", "none", "null", "unknown"}
_TRUE = {"true", "t", "yes", "y", "1", "1.0", "malignant"}
_FALSE = {"false", "f", "no", "n", "0", "0.0", "benign"}
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}
_DASH = r"\s*[-/\u2010-\u2015\u2212]\s*"
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class Key(StrEnum):
    """The uses of a column."""

    IMAGE = "image"  #: file name, with or without its folder or its ending
    TONE = "tone"
    DIAGNOSIS = "diagnosis"
    PATIENT = "patient"
    LESION = "lesion"
    MALIGNANT = "malignant"


Columns = Mapping[Key, str]


@dataclass(frozen=True)
class MetadataRow:
    """A row and, where it can't be used, its fault."""

    line: int  #: in the file, from 1
    image: str | None  #: as written; None where it is no name of a file in the folder
    details: Details
    fault: str | None = None


@dataclass(frozen=True)
class Metadata:
    """The rows of a CSV file and what was tolerated when it was read."""

    name: str
    rows: tuple[MetadataRow, ...]
    notes: tuple[str, ...]


def parse_columns(text: str) -> dict[Key, str]:
    """Parse "image=img_id,tone=fitspatrick"; a name with a comma goes in quotes.

    Raises:
        InputError: a part that is not KEY=COLUMN, a key that does not exist or occurs twice, or no
            image column.
    """
    keys = ", ".join(Key)
    found: dict[Key, str] = {}
    for part in split_option("--columns", text):
        name, equals, column = (p.strip() for p in part.partition("="))
        if not equals or not column:
            raise InputError(f"--columns: '{part}' is not KEY=COLUMN; the keys are {keys}")
        if name not in set(Key):
            raise InputError(f"--columns: there is no key '{name}'; the keys are {keys}")
        if Key(name) in found:
            raise InputError(f"--columns: '{name}' occurs twice: keep one of them")
        found[Key(name)] = column
    if Key.IMAGE not in found:
        raise InputError("--columns: name the column with the file names: image=COLUMN")
    return found


def split_option(option: str, text: str) -> list[str]:
    """Split the value of `option` at its commas; a part with a comma goes in quotes.

    Raises:
        InputError: text of several lines, or longer than CSV allows.
    """
    text = text.strip()
    if "\n" in text or "\r" in text:
        raise InputError(f"{option} has several lines: write it in one line, with commas between")
    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"{option} can't be read: {error}") from error


def read_metadata(path: Path, columns: Columns) -> Metadata:
    """Read the rows of a CSV file. UTF-8 is expected, commas between cells; what else was found is noted.

    A row that can't be used carries its fault; the others are not touched by it.

    Raises:
        InputError: no file, no CSV, a column that is missing or occurs twice.
    """
    text, notes = _decode(path)
    first_line = text.lstrip("\r\n").partition("\n")[0]
    separator = max(_SEPARATORS, key=first_line.count)
    if separator != ",":
        notes.append(f"{path.name}: cells are separated by {_SEPARATORS[separator]}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [cell.strip() for cell in next((cells for cells in reader if cells), [])]
        positions = _positions(path, header, columns)
        rows = []
        before = reader.line_num
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(path.name, before + 1, cells, len(header), positions, columns))
            before = reader.line_num
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: {error}; correct that line, or save the file as CSV again"
        ) from error
    return Metadata(path.name, tuple(rows), tuple(notes))


def read_details(values: Mapping[Key, str], tone_source: str, malignant_source: str) -> Details:
    """Parse the metadata of a photograph.

    Args:
        values: texts by their meaning; a blank is unknown.
        tone_source: where the tone comes from.
        malignant_source: where malignancy comes from.

    Raises:
        InputError: a value that can't be used.
    """
    tone, fitzpatrick = parse_tone(values.get(Key.TONE, ""))
    malignant = parse_malignant(values.get(Key.MALIGNANT, ""))
    if malignant_source.startswith(FROM_DIAGNOSIS):  # a file of that name is no diagnosis
        malignant_source = f"./{malignant_source}"
    return Details(
        tone=tone,
        tone_source=tone_source[:MAX_LENGTH] if tone != "unknown" else None,
        fitzpatrick=fitzpatrick,
        malignant=malignant,
        malignant_source=malignant_source[:MAX_LENGTH] if malignant is not None else None,
        diagnosis=_text(Key.DIAGNOSIS, values),
        patient=_text(Key.PATIENT, values),
        lesion=_text(Key.LESION, values),
    )


def parse_tone(text: str) -> tuple[str, int | None]:
    """Return the tone group and, where it is given, the exact Fitzpatrick type.

    12, 34, 56, 1 to 6, floats of these, roman numerals, groups such as I-II, each with or without
    'Fitzpatrick' and 'type' before it; a blank is unknown.

    Raises:
        InputError: anything else.
    """
    plain = _plain(text)
    if plain in _BLANK:
        return "unknown", None
    value = re.sub(r"^(fitzpatrick|fst)?\s*(skin)?\s*(type)?\s*", "", plain)
    value = "-".join(_ROMAN.get(part, part) for part in re.split(_DASH, value))
    if exact := re.fullmatch(r"([1-6])(\.0*)?", value):
        group = next(t for t in load_protocol().tones if exact[1] in str(t.code))
        return group.name, int(exact[1])
    if code := re.fullmatch(r"(1-?2|3-?4|5-?6)(\.0*)?", value):
        return load_protocol().tone_coded(int(code[1].replace("-", ""))).name, None
    raise InputError(
        f"tone '{text.strip()}' is none of 12, 34, 56, 1 to 6, I to VI, I-II, III-IV, V-VI or blank"
    )


def parse_malignant(text: str) -> bool | None:
    """Return True, False, or None for a blank; raises InputError for anything else."""
    plain = _plain(text)
    if plain in _BLANK:
        return None
    if plain in _TRUE or plain in _FALSE:
        return plain in _TRUE
    raise InputError(
        f"malignant '{text.strip()}' is none of TRUE, FALSE, yes, no, 1, 0, malignant, benign or blank"
    )


def _decode(path: Path) -> tuple[str, list[str]]:
    if not path.exists():
        raise InputError(
            f"metadata {path.absolute()} does not exist: give the path of the CSV file with --metadata"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"metadata {path} can't be read: {error.strerror}") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    else:
        try:
            return data.decode("utf-8-sig"), []
        except UnicodeDecodeError:
            encoding = "latin-1"
    try:
        return data.decode(encoding), [f"{path.name} is not UTF-8: read as {encoding}"]
    except UnicodeDecodeError as error:
        raise InputError(f"metadata {path} is not text: save it as CSV in UTF-8") from error


def _positions(path: Path, header: list[str], columns: Columns) -> dict[Key, int]:
    """Return the position of each column in a row."""
    named = [name for name in header if name]
    if not named:
        raise InputError(f"{path} has no header: its first line must name the columns")
    doubled = sorted({name for name in named if named.count(name) > 1})
    if doubled:
        raise InputError(
            f"{path}: column {_quoted(doubled)} occurs more than once: rename or remove one"
        )
    missing = sorted({name for name in columns.values() if name not in named})
    if missing:
        raise InputError(
            f"{path} has no column {_quoted(missing)}; its columns are {', '.join(named)}"
        )
    return {key: header.index(name) for key, name in columns.items()}


def _row(
    file: str, line: int, cells: list[str], width: int, positions: dict[Key, int], columns: Columns
) -> MetadataRow:
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    values = {key: cells[position] for key, position in positions.items() if position < len(cells)}
    image = values.get(Key.IMAGE, "").strip()
    try:
        _check_name(image)
    except InputError as error:
        return MetadataRow(line, None, Details(), str(error))
    if len(cells) != width:
        return MetadataRow(line, image, Details(), f"{len(cells)} cells, but {width} columns")
    try:
        tone_source, malignant_source = (
            f"{file}: {columns.get(key, '')}" for key in (Key.TONE, Key.MALIGNANT)
        )
        details = read_details(values, tone_source, malignant_source)
    except InputError as error:
        return MetadataRow(line, image, Details(), str(error))
    return MetadataRow(line, image, details)


def _check_name(image: str) -> None:
    """Refuse a name that could mean a file outside the imported folder, on any system."""
    if not image:
        raise InputError("names no image")
    posix, windows = PurePosixPath(image), PureWindowsPath(image)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        raise InputError(f"image '{image}' is an absolute path: name a file of the folder")
    if ".." in posix.parts or ".." in windows.parts:
        raise InputError(f"image '{image}' leads out of the folder: name a file of the folder")


def _text(key: Key, values: Mapping[Key, str]) -> str | None:
    value = values.get(key, "").strip()
    if _plain(value) in _BLANK:
        return None
    if len(value) > MAX_LENGTH:
        raise InputError(f"{key} is {len(value)} characters long; {MAX_LENGTH} at most")
    return value


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().lower()


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
