"""Search of a release for what identifies a person: names, ids and moments of the catalogue, and
metadata inside pictures (EXIF, GPS, XMP, IPTC, comments).

File names, JSON, CSV and other texts are read whole; of pictures the blocks of metadata are read, not
the pixels. Nothing says what a photograph itself shows.
"""

from __future__ import annotations

import csv
import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddiseg.errors import InputError
from ddiseg.outcomes import Progress, silent, track
from ddiseg.png import SIGNATURE
from ddiseg.release.identifiers import Identifiers

_TEXTS = (".txt", ".md", ".html", ".xml", ".yaml", ".yml", ".toml")
_TABLES = (".csv", ".tsv")
_JSON = (".json", ".jsonl", ".geojson")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".heic", ".avif")

#: Chunks of a PNG that hold pixels or how to show them; any other is metadata (PNG specification, 11).
_PLAIN_CHUNKS = frozenset(
    (
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"pHYs",
        b"sBIT",
        b"bKGD",
    )
)

#: Fields without words: lossless masks of COCO, and hashes.
_SKIPPED_FIELDS = ("counts", "sha256", "content_hash", "mask_hash", "parent")

#: Columns of numbers of our own tables, whose values are no ids of a person.
_NUMBERS = ("image_id", "width", "height", "fitzpatrick", "uncertainty", "unlabelled")


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
    unread: list[str] = field(default_factory=list)  #: files of kinds that can't be searched
    hits: list[Hit] = field(default_factory=list)
    values: int = 0  #: values, cells and lines compared


def audit_privacy(identifiers: Identifiers, folder: Path, progress: Progress = silent) -> Audit:
    """Search a folder for `identifiers` and for metadata of pictures.

    Raises:
        InputError: there is no such folder, or it is empty.
    """
    if not folder.is_dir():
        raise InputError(f"{folder.absolute()} is no folder: give the folder of a release")
    paths = sorted(Path(at, name) for at, _, names in os.walk(folder) for name in names)
    if not paths:
        raise InputError(f"{folder.absolute()} is empty: give the folder of a release")
    audit = Audit()
    for path in track(paths, progress):
        _Searched(identifiers, audit, path.relative_to(folder).as_posix()).search(path)
    return audit


@dataclass(frozen=True)
class _Searched:
    """A file that is searched."""

    identifiers: Identifiers
    audit: Audit
    name: str

    def search(self, path: Path) -> None:
        self.look(Path(self.name).stem, "file name")
        for part in Path(self.name).parent.parts:
            self.look(part, "folder name")
        ending = path.suffix.lower()
        try:
            if ending in _JSON:
                self._json(path)
            elif ending in _TABLES:
                self._table(path)
            elif ending in _PICTURES:
                self._picture(path, ending)
            elif ending in _TEXTS or not ending:
                self._lines(path.read_text("utf-8", errors="replace"))
            elif ending == ".npy":
                self.audit.searched["array"] += 1  # numbers alone, no metadata
            else:
                self.audit.unread.append(self.name)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; make it readable") from error

    def look(self, text: str, field_name: str) -> None:
        """Compare one value."""
        self.audit.values += 1
        for kind, found in self.identifiers.find(text, field_name):
            self.audit.hits.append(Hit(self.name, field_name, kind.value, found))

    def _json(self, path: Path) -> None:
        text = path.read_text("utf-8", errors="replace")
        try:
            documents = (
                [json.loads(line) for line in text.splitlines() if line.strip()]
                if path.suffix.lower() == ".jsonl"
                else [json.loads(text)]
            )
        except (ValueError, RecursionError):
            self._lines(text)
            return
        self.audit.searched["JSON file"] += 1
        for document in documents:
            for field_name, value in _leaves(document):
                self.look(value, field_name)

    def _table(self, path: Path) -> None:
        self.audit.searched["table"] += 1
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter)
            header = next(rows, [])
            for column in header:
                self.look(column, "header")
            for row in rows:
                for position, cell in enumerate(row):
                    column = (
                        header[position] if position < len(header) else f"column {position + 1}"
                    )
                    if column not in _NUMBERS and column not in _SKIPPED_FIELDS:
                        self.look(cell, column)

    def _lines(self, text: str) -> None:
        self.audit.searched["text"] += 1
        for number, line in enumerate(text.splitlines(), 1):
            self.look(line, f"line {number}")

    def _picture(self, path: Path, ending: str) -> None:
        self.audit.searched["picture"] += 1
        with open(path, "rb") as file:
            is_png = file.read(len(SIGNATURE)) == SIGNATURE
        blocks = _png_blocks(path) if is_png else _blocks(path)
        for block, text in blocks:
            self.audit.hits.append(Hit(self.name, block, "metadata", text[:80]))
            self.look(text, block)


def _leaves(document: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts of a JSON document with the keys that lead there; numbers identify nobody."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in _SKIPPED_FIELDS:
                    yield "key", str(key)
                    waiting.append((f"{at}.{key}" if at else str(key), inner))
        elif isinstance(value, list):
            waiting += [(at, inner) for inner in value]
        elif isinstance(value, str):
            yield at or "value", value


def _png_blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the metadata chunks of a PNG; pixels are skipped over, not read."""
    with open(path, "rb") as file:
        file.seek(len(SIGNATURE))
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in _PLAIN_CHUNKS:
                file.seek(length + 4, os.SEEK_CUR)
                if kind == b"IEND":
                    break
                continue
            data = file.read(min(length, 1 << 20))
            file.seek(max(0, length - len(data)) + 4, os.SEEK_CUR)
            yield from _png_block(kind, data)
        if file.read(1):
            yield "after the end of the picture", "data that no viewer shows"


def _png_block(kind: bytes, data: bytes) -> Iterator[tuple[str, str]]:
    name = kind.decode("ascii", "replace")
    if kind == b"eXIf":
        yield from _exif(data)
    elif kind == b"zTXt":
        keyword, _, packed = data.partition(b"\0")
        yield f"PNG {name}", f"{_text(keyword)}: {_text(_inflated(packed[1:]))}"
    elif kind == b"iTXt":
        keyword, _, rest = data.partition(b"\0")
        body = rest[2:].split(b"\0", 2)[-1]
        body = _inflated(body) if rest[:1] == b"\1" else body
        yield f"PNG {name}", f"{_text(keyword)}: {_text(body)}"
    elif kind == b"iCCP":
        yield f"PNG {name}", f"colour profile {_text(data.partition(bytes(1))[0])}"
    else:
        yield f"PNG {name}", _text(data.replace(b"\0", b": "))


def _blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the metadata of a picture that is no PNG, as Pillow finds it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if exif := picture.info.get("exif"):
                yield from _exif(exif)
            elif picture.getexif():
                yield from _exif(picture.getexif().tobytes())
            for key in ("xmp", "photoshop", "comment", "Description"):
                if value := picture.info.get(key):
                    yield key.upper(), _text(value) if isinstance(value, bytes) else str(value)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        yield "unreadable", "a picture that can't be opened"


def _exif(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield EXIF tags with their names; the position by GPS is one block (Exif 2.32, 4.6.6)."""
    from PIL import ExifTags, Image

    exif = Image.Exif()
    try:
        exif.load(data)
        details = exif.get_ifd(ExifTags.IFD.Exif)
        position = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except (ValueError, SyntaxError, OSError, struct.error, KeyError, TypeError):
        yield "EXIF", "a block that can't be read"
        return
    if position:
        yield "EXIF GPS", f"position in {len(position)} tags"
    pointers = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    for tag, value in (*exif.items(), *details.items()):
        if tag not in pointers:
            text = _text(value) if isinstance(value, bytes) else str(value)
            yield f"EXIF {ExifTags.TAGS.get(tag, tag)}", text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, 1 << 20)
    except zlib.error:
        return b"(damaged)"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\0", "")
