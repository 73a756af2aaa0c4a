"""Files of fedd: atomic writes that raise OutputError, and hashes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from annotation_protocol.files import atomic_write
from fedd.errors import OutputError


def write_file(
    path: Path, content: bytes | str | Callable[[Path], object], *, durable: bool = True
) -> None:
    """Write a file as `atomic_write` does; raises OutputError if that fails."""
    try:
        atomic_write(path, content, durable=durable)
    except OSError as error:
        raise OutputError(
            f"{path} can't be written: {error.strerror or error}; make room or name another place, "
            "then run the same command again"
        ) from error


def check_writable(path: Path) -> None:
    """Raise OutputError now if `path` could not be written after hours of work."""
    if not path.parent.is_dir():
        raise OutputError(f"{path} can't be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path} can't be written: the folder {path.parent} is read-only")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; raises OSError if it can't be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
