"""Text of a file in whichever encoding it has; None for a file that is no text."""

from __future__ import annotations

import codecs
from pathlib import Path

#: Endings of files whose content is packed, even where its bytes look like text.
_PACKED = frozenset(
    [
        ".zip",
        ".gz",
        ".tgz",
        ".bz2",
        ".xz",
        ".7z",
        ".rar",
        ".tar",
        ".zst",
        ".xlsx",
        ".xls",
        ".docx",
        ".doc",
        ".odt",
        ".ods",
        ".pptx",
        ".pdf",
        ".rtf",
        ".eml",
        ".mbox",
        ".sqlite",
        ".sqlite3",
        ".db",
        ".npz",
        ".pkl",
        ".pickle",
        ".pt",
        ".pth",
        ".h5",
        ".hdf5",
        ".parquet",
        ".feather",
        ".mat",
        ".dcm",
        ".nii",
        ".ps",
        ".eps",
    ]
)
_PACKED_BEGINNINGS = (b"%PDF", b"PK\x03\x04", b"\x1f\x8b", b"SQLite format 3", b"{\\rtf", b"BZh")

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

#: Control characters that no text has.
_CONTROLS = frozenset(map(chr, {*range(9), *range(14, 27), *range(28, 32), 127}))


def text_of(path: Path) -> str | None:
    """Return the text of a file in UTF-8, UTF-16, UTF-32 or cp1252; None where it is none."""
    if path.suffix.lower() in _PACKED:
        return None
    data = path.read_bytes()
    if data.startswith(_PACKED_BEGINNINGS):
        return None
    for encoding in _encodings(data):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if _CONTROLS & set(text) else text
    return None


def _encodings(data: bytes) -> list[str]:
    """Return the encodings that a text may be in, the likeliest first."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return [encoding]
    if b"\0" in data:  # without a mark: every second byte of western letters is 0
        odd, even = data[1::2].count(0), data[::2].count(0)
        return ["utf-16-le" if odd > even else "utf-16-be"]
    return ["utf-8", "cp1252", "latin-1"]
