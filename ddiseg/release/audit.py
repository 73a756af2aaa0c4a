"""Search of a release for what identifies a person: names, ids and moments of the catalogue, and
metadata inside pictures (EXIF, GPS, XMP, IPTC, comments).

File names, JSON, CSV and other texts are read whole; of pictures the blocks of metadata are read, not
the pixels. Nothing says what a photograph itself shows. Files of other kinds are named, not searched.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ddiseg.errors import InputError
from ddiseg.outcomes import Progress, silent, track
from ddiseg.release.file_text import text_of
from ddiseg.release.identifiers import Identifiers, Occurrence
from ddiseg.release.own_words import FIELDS
from ddiseg.release.picture_metadata import metadata_of
from ddiseg.workspace.pseudonym_key import KEY_FILE, TABLE_FILE
from ddiseg.workspace.pseudonyms import TABLE_COLUMNS

_TABLES = (".csv", ".tsv")
_JSON = (".json", ".jsonl", ".geojson")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".heic", ".avif")

#: Fields without words, unless they hold any: lossless masks of COCO, and hashes.
_CODED_FIELDS = ("counts", "sha256", "content_hash", "mask_hash", "parent")
_CODED = re.compile(r"[0-9a-f]{64}|[0-o]{8,}")

#: Numbers of our own files, which are no ids of a person.
_NUMBERS = frozenset([
    "image_id", "category_id", "license", "width", "height", "area", "bbox", "iscrowd", "size", "bytes",
    "fitzpatrick", "uncertainty", "expected_iou", "unlabelled", "unlabelled_pixels", "images", "accepted", "predictions",
    "year", "color", "rgb", "index",
])  # fmt: skip
_COUNTS = ("with_class", "by_tone", "images", "annotations", "categories", "licenses")

#: Where a dataset's licence and source are written, which are public.
_FACT_FIELDS = ("licence", "source", "licenses.name", "licenses.url", "licenses.source")
_FACT_LINE = re.compile(r"\s*(licence|source):\s+")


@dataclass(frozen=True)
class Hit:
    """Something that identifies a person."""

    file: str  #: relative to the release
    field: str  #: "file name", a column, a path in JSON, a block of metadata
    kind: str  #: of the identifier, or "metadata"
    value: str


@dataclass
class Audit:
    """What was searched, and what was found."""

    searched: Counter[str] = field(default_factory=Counter)  #: files by kind
    unread: list[str] = field(default_factory=list)  #: files that can't be searched
    hits: list[Hit] = field(default_factory=list)
    public: list[Hit] = field(
        default_factory=list
    )  #: in the licence or source of a dataset: no hits
    values: int = 0  #: values, cells and lines compared


def audit_privacy(identifiers: Identifiers, folder: Path, progress: Progress = silent) -> Audit:
    """Search a folder for `identifiers` and for metadata of pictures.

    Raises:
        InputError: there is no such folder, or it is empty.
    """
    if not folder.is_dir():
        raise InputError(f"{folder.absolute()} is no folder: give the folder of a release")
    paths = sorted(
        Path(at, name) for at, inside, names in os.walk(folder) for name in (*inside, *names)
    )
    if not paths:
        raise InputError(f"{folder.absolute()} is empty: give the folder of a release")
    audit = Audit()
    for path in track(paths, progress):
        _Searched(identifiers, audit, path.relative_to(folder).as_posix()).search(path)
    return audit


@dataclass(frozen=True)
class _Searched:
    """A file or folder that is searched."""

    identifiers: Identifiers
    audit: Audit
    name: str

    def search(self, path: Path) -> None:
        if path.is_symlink():
            self.look(Path(self.name).stem, "file name")
            self.audit.unread.append(f"{self.name} (a link)")
            return
        if path.is_dir():
            self.look(path.name, "folder name")
            return
        self.look(Path(self.name).stem, "file name")
        if path.name in (KEY_FILE, TABLE_FILE):
            self._secret("file name", path.name)
        try:
            if not path.is_file():
                self.audit.unread.append(self.name)
            elif path.suffix.lower() in _PICTURES:
                self._picture(path)
            elif path.suffix.lower() == ".npy":
                self._array(path)
            elif (text := text_of(path)) is None:
                self.audit.unread.append(self.name)
            else:
                self._text(text, path.suffix.lower())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; make it readable") from error

    def look(self, text: str, field_name: str) -> None:
        """Compare one value, and what it says where it is written for the web."""
        self.audit.values += 1
        seen: set[tuple[str, str]] = set()
        for spelling in _spellings(text):
            for found in self.identifiers.find(spelling, field_name):
                if (found.kind, found.value) not in seen:
                    seen.add((found.kind, found.value))
                    hit = Hit(self.name, field_name, found.kind.value, found.value)
                    is_public = self._is_public(text, field_name, found)
                    (self.audit.public if is_public else self.audit.hits).append(hit)

    def _is_public(self, text: str, field_name: str, found: Occurrence) -> bool:
        """Return whether a value is the licence or the source of a dataset."""
        if field_name.startswith("line ") and (begin := _FACT_LINE.match(text)):
            text = text[begin.end() :]
        elif not any(_last(field_name, each) == each for each in _FACT_FIELDS):
            return False
        return text.strip() in self.identifiers.facts

    def _secret(self, field_name: str, value: str) -> None:
        self.audit.hits.append(Hit(self.name, field_name, "secret", value))

    def _text(self, text: str, ending: str) -> None:
        if ending in _JSON:
            self._json(text, ending)
        elif ending in _TABLES:
            self._table(text, ending)
        else:
            self._lines(text)

    def _json(self, text: str, ending: str) -> None:
        try:
            documents = (
                [json.loads(line) for line in text.splitlines() if line.strip()]
                if ending == ".jsonl"
                else [json.loads(text)]
            )
        except (ValueError, RecursionError):
            self._lines(text)
            return
        self.audit.searched["JSON file"] += 1
        for document in documents:
            for field_name, value in _leaves(document):
                self.look(value, field_name)

    def _table(self, text: str, ending: str) -> None:
        self.audit.searched["table"] += 1
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), **_dialect(text, ending)))
        except csv.Error:  # a cell of more than 128 KiB
            self._lines(text)
            return
        header = rows[0] if rows else []
        if header == list(TABLE_COLUMNS):
            self._secret("header", TABLE_FILE)
        for column in header:
            if column not in FIELDS:
                self.look(column, "header")
        for row in rows[1:]:
            for position, cell in enumerate(row):
                column = header[position] if position < len(header) else f"column {position + 1}"
                if not _is_own(column, cell):
                    self.look(cell, column)

    def _lines(self, text: str) -> None:
        self.audit.searched["text"] += 1
        for number, line in enumerate(text.splitlines(), 1):
            self.look(line, f"line {number}")

    def _picture(self, path: Path) -> None:
        self.audit.searched["picture"] += 1
        for block, text in metadata_of(path):
            self.audit.hits.append(Hit(self.name, block, "metadata", text[:80]))
            self.look(text, block)

    def _array(self, path: Path) -> None:
        """Search the texts and the large numbers of an array; one of objects can't be read safely."""
        import numpy as np

        try:
            with open(path, "rb") as file:
                array = np.load(file, allow_pickle=False)
                more = file.read(1)
        except (ValueError, EOFError, MemoryError):
            self.audit.unread.append(self.name)
            return
        if not isinstance(array, np.ndarray):  # an archive with another ending
            self.audit.unread.append(self.name)
            return
        self.audit.searched["array"] += 1
        if more:
            self.audit.hits.append(
                Hit(
                    self.name, "after the end of the array", "metadata", "data that no reader shows"
                )
            )
        for column in array.dtype.names or ("",):
            self.look(column, "field of the array")
            values = array[column] if column else array
            if values.dtype.kind == "S":
                texts = [each.decode("utf-8", "replace") for each in np.unique(values).tolist()]
            elif values.dtype.kind == "U":
                texts = np.unique(values).tolist()
            elif values.dtype.kind in "iuf":
                texts = [_number(each) for each in np.unique(values[abs(values) >= 1e5]).tolist()]
            else:
                texts = [str(each) for each in np.unique(values.ravel().astype(str)).tolist()]
            for text in texts:
                self.look(text, column or "array")


def _last(field_name: str, wanted: str) -> str:
    """Return as many of the last parts of a path in JSON as another path has."""
    return ".".join(field_name.split(".")[-(wanted.count(".") + 1) :])


def _dialect(text: str, ending: str) -> dict[str, Any]:
    first = text.partition("\n")[0]
    if ending == ".tsv" or ("\t" in first and "," not in first):
        return {"delimiter": "\t"}
    return {"delimiter": ";" if first.count(";") > first.count(",") else ","}


def _spellings(text: str) -> Iterator[str]:
    """Yield a text, and what it stands for in HTML, in an address and with escapes of JSON."""
    yield text
    if "&" in text and (plain := html.unescape(text)) != text:
        yield plain
    if "%" in text:
        yield from {unquote(text), unquote(text, "cp1252", "replace")} - {text}
    if "\\u" in text:
        yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)


def _is_own(field_name: str, value: str) -> bool:
    """Return whether a value of one of our fields is a count, a hash or a coded mask."""
    if field_name in _NUMBERS:
        return value.replace(".", "", 1).isdigit()
    return field_name in _CODED_FIELDS and bool(_CODED.fullmatch(value))


def _leaves(document: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts and numbers of a JSON document with the keys that lead there."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        at, value = waiting.pop()
        own_name = at.rpartition(".")[2]
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in FIELDS:
                    yield "key", str(key)
                waiting.append((f"{at}.{key}" if at else str(key), inner))
        elif isinstance(value, list):
            waiting += [(at, inner) for inner in value]
        elif isinstance(value, str):
            if not _is_own(own_name, value):
                yield at or "value", value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            counted = own_name in _NUMBERS or "with_class" in at or at in _IDS
            if not counted:
                yield at or "value", _number(value)


#: Ids of our own COCO file.
_IDS = tuple(f"{each}.id" for each in _COUNTS)


def _number(value: float) -> str:
    return str(int(value)) if value == value and abs(value) < 1e18 and value == int(value) else str(value)  # fmt: skip
