"""Image metadata from a CSV file: its columns and the meaning of their values."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath, PureWindowsPath

from ddiseg.catalogue import FROM_DIAGNOSIS, Details
from ddiseg.catalogue.identifiers import is_placeholder, normalise_id
from ddiseg.catalogue.images import UNKNOWN_ID
from ddiseg.errors import InputError
from ddiseg.ingest.coded_values import is_blank, parse_malignant, parse_tone
from ddiseg.ingest.csv_table import read_table
from ddiseg.outcomes import counted, is_storable, one_file

#: The longest diagnosis, patient or lesion that the catalogue holds.
MAX_LENGTH = 200

#: Values of a column listed in a line.
LISTED = 5


class Key(StrEnum):
    """The uses of a column."""

    IMAGE = "image"  #: file name, with or without its folder or its ending
    TONE = "tone"
    DIAGNOSIS = "diagnosis"
    PATIENT = "patient"
    LESION = "lesion"
    MALIGNANT = "malignant"


#: The columns that hold ids.
IDS = (Key.PATIENT, Key.LESION)

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
    """Read the rows of a CSV file; see `ddiseg.ingest.csv_table` for what is tolerated.

    A row that can't be used carries its fault; the others are not touched by it. Codes that mean
    unknown are counted in one note per column.

    Raises:
        InputError: no file, no CSV, a column that is missing or occurs twice.
    """
    table = read_table(path)
    positions = _positions(path, table.header, columns)
    unknown: dict[Key, Counter[str]] = defaultdict(Counter)
    rows = []
    for line, cells in table.rows:
        row, values = _row(path.name, line, cells, len(table.header), positions, columns)
        rows.append(row)
        if row.fault is None:
            for key, text in read_as_unknown(values).items():
                unknown[key][text] += 1
    notes = [
        f"{path.name}: {unknown_in_words(columns[key], texts)}"
        for key, texts in sorted(unknown.items())
    ]
    return Metadata(path.name, tuple(rows), (*table.notes, *notes))


def read_details(values: Mapping[Key, str], tone_source: str, malignant_source: str) -> Details:
    """Parse the metadata of a photograph.

    Args:
        values: texts by their meaning; a blank is unknown.
        tone_source: where the tone comes from.
        malignant_source: where malignancy comes from.

    Raises:
        InputError: a value that can't be used.
    """
    for key, text in values.items():
        if not is_storable(text):
            raise InputError(f"{key} holds characters that can't be stored: write it anew")
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
        patient=_id(Key.PATIENT, values),
        lesion=_id(Key.LESION, values),
    )


def read_as_unknown(values: Mapping[Key, str]) -> dict[Key, str]:
    """Return the texts of a photograph that are no blank and yet mean that a value is unknown.

    The values are ones that `read_details` took.
    """
    tone, malignant = (values.get(key, "").strip() for key in (Key.TONE, Key.MALIGNANT))
    found = {}
    if not is_blank(tone) and parse_tone(tone)[0] == "unknown":
        found[Key.TONE] = tone
    if not is_blank(malignant) and parse_malignant(malignant) is None:
        found[Key.MALIGNANT] = malignant
    found |= {key: values[key].strip() for key in IDS if is_placeholder(values.get(key, ""))}
    return found


def unknown_in_words(column: str, texts: Mapping[str, int]) -> str:
    """Return the line that says how often values of a column were read as unknown."""
    ordered = sorted(texts.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"'{text}'" for text, _ in ordered[:LISTED])
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return f"{counted(sum(texts.values()), 'row')}: {column} {listed}{more} read as unknown"


def _positions(path: Path, header: list[str], columns: Columns) -> dict[Key, int]:
    """Return the position of each column in a row."""
    named = [name for name in header if name]
    if not named:
        raise InputError(f"{path} has no header: its first line must name the columns")
    doubled = sorted({name for name in columns.values() if named.count(name) > 1})
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
) -> tuple[MetadataRow, Mapping[Key, str]]:
    """Return a row, and the texts of its cells by their meaning."""
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    values = {key: cells[position] for key, position in positions.items() if position < len(cells)}
    image = values.get(Key.IMAGE, "").strip()
    try:
        _check_name(image)
    except InputError as error:
        return MetadataRow(line, None, Details(), str(error)), values
    if len(cells) != width:
        fault = f"{counted(len(cells), 'cell')}, but {counted(width, 'column')}"
        return MetadataRow(line, image, Details(), fault), values
    try:
        tone_source, malignant_source = (
            f"{file}: {columns.get(key, '')}" for key in (Key.TONE, Key.MALIGNANT)
        )
        with one_file():
            details = read_details(values, tone_source, malignant_source)
    except InputError as error:
        return MetadataRow(line, image, Details(), str(error)), values
    return MetadataRow(line, image, details), values


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
    return None if is_blank(value) else _short(key, value)


def _id(key: Key, values: Mapping[Key, str]) -> str | None:
    """Return an id in its one spelling, UNKNOWN_ID for a placeholder, None for a blank."""
    text = values.get(key, "")
    if is_placeholder(text):
        return UNKNOWN_ID
    value = normalise_id(text)
    return None if value is None else _short(key, value)


def _short(key: Key, value: str) -> str:
    if len(value) > MAX_LENGTH:
        raise InputError(f"{key} is {len(value)} characters long; {MAX_LENGTH} at most")
    return value


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
