"""Read a CSV file as Excel, LibreOffice, R and pandas write it: encoding, separator, formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from annotation_protocol.csv_files import unescape_cell
from ddiseg.errors import InputError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
#: The line with which Excel announces the separator.
_ANNOUNCED = re.compile(r'(?:\r?\n)*"?sep=([,;|\t])"?[,;|\t]*(?:\r\n|\r|\n|$)', re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """The header and the rows of a CSV file, not read yet."""

    header: list[str]
    rows: Iterator[tuple[int, list[str]]]  #: (line in the file, from 1; cells)
    notes: list[str]  #: what was tolerated


def read_table(path: Path) -> Table:
    """Read a CSV file. UTF-8 is expected, commas between cells; what else was found is noted.

    Raises:
        InputError: no file, or no CSV; also while the rows are read.
    """
    text, notes = _decode(path)
    skipped, separator = 0, None
    if announced := _ANNOUNCED.match(text):
        separator = announced[1]
        skipped = len(re.findall(r"\r\n|\r|\n", announced[0]))
        text = text[announced.end() :]
    separator = separator or _separator(text)
    if separator != ",":
        notes.append(f"{path.name}: cells are separated by {_SEPARATORS[separator]}")
    lines = _lines(path, text, separator, skipped)
    _, header = next(lines, (0, []))
    return Table([" ".join(name.split()) for name in header], lines, notes)


def _lines(path: Path, text: str, separator: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that are not blank, with the number of their first line in the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    before = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield skipped + before + 1, [_plain_cell(cell) for cell in cells]
            before = reader.line_num
    except csv.Error as error:
        raise InputError(
            f"{path}, line {skipped + reader.line_num}: {error}; correct that line, or save the file "
            "as CSV again"
        ) from error


def _plain_cell(cell: str) -> str:
    """Return the text that a cell stands for: ="017" and '=x are how programs keep text as it is."""
    if formula := re.fullmatch(r'\s*="(.*)"\s*', cell, re.DOTALL):
        return formula[1].replace('""', '"')
    return unescape_cell(cell)


def _separator(text: str) -> str:
    """Return the separator that the header has most of, outside quotes."""
    header = next((line for line in re.split(r"[\r\n]+", text) if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_SEPARATORS, key=bare.count)


def _decode(path: Path) -> tuple[str, list[str]]:
    if not path.exists():
        raise InputError(
            f"metadata {path.absolute()} does not exist: give the path of the CSV file with --metadata"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"metadata {path} can't be read: {error.strerror}") from error
    if data[:4] == b"PK\x03\x04" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise InputError(f"metadata {path} is a spreadsheet: save it as CSV (UTF-8)")
    marked = (name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark))
    encodings = [found] if (found := next(marked, None)) else _without_mark(data)
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8-sig":
            return text, []
        return text.removeprefix("\ufeff"), [f"{path.name} is not UTF-8: read as {encoding}"]
    raise InputError(f"metadata {path} is not text: save it as CSV in UTF-8")


def _without_mark(data: bytes) -> list[str]:
    """Return the encodings to try. Windows' cp1252 is latin-1 with the euro sign and dashes."""
    if data[1:40:2].count(0) > 10:
        return ["utf-16-le"]
    if data[:40:2].count(0) > 10:
        return ["utf-16-be"]
    return ["utf-8-sig", "cp1252", "latin-1"]
