"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fedd.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; at the end of the block the file there takes its place.

    Raises OutputError where the block or the renaming can't write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} can't be written: {reason}; make room or name another place, then run the same "
            "command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is on the disk once this returns; raises OutputError where it can't be."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8, the ends of lines as they are."""
    write_bytes(path, text.encode())


def check_writable(path: Path) -> None:
    """Find out before hours of work, not after them; raises OutputError."""
    if not path.parent.is_dir():
        raise OutputError(f"{path} can't be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path} can't be written: {path.parent} can only be read")
