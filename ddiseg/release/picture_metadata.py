"""Metadata inside pictures: EXIF, GPS, XMP, comments, and what stands after their end."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from ddiseg.png import SIGNATURE

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


def metadata_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the blocks of metadata of a picture, as (name, text)."""
    with open(path, "rb") as file:
        is_png = file.read(len(SIGNATURE)) == SIGNATURE
    return _png_blocks(path) if is_png else _blocks(path)


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
