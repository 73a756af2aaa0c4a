"""Files of fedd: atomic writes that raise OutputError."""

from __future__ import annotations

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
