"""The secret of the pseudonyms beside the backups of a catalogue: without it a restored workspace would
give others than its earlier releases have.
"""

from __future__ import annotations

import os
from pathlib import Path

from annotation_protocol.files import atomic_write
from ddiseg.errors import InputError

#: The secret, and the table of pseudonyms with what they stand for. Neither is ever in a release.
KEY_FILE, TABLE_FILE = "pseudonyms.key", "pseudonyms.csv"

KEY_BYTES = 32


def key_of_backup(file: Path) -> Path:
    """Return where the key of a backup is."""
    return file.with_name(f"{file.name}.key")


def back_up_key(root: Path, file: Path) -> None:
    """Copy the key of a workspace, if there is one, beside a backup."""
    key = root / KEY_FILE
    if key.exists():
        atomic_write(key_of_backup(file), key.read_bytes())


def read_key(path: Path) -> bytes:
    """Return a key; raises ValueError or OSError for a damaged file."""
    key = bytes.fromhex(path.read_text("ascii").strip())
    if len(key) != KEY_BYTES:
        raise ValueError(f"{len(key)} bytes")
    return key


def checked_key(file: Path) -> bytes | None:
    """Return the key beside a backup, None where there is none.

    Raises:
        InputError: it is damaged.
    """
    beside = key_of_backup(file)
    if not os.path.lexists(beside):
        return None
    try:
        return read_key(beside)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{beside} is damaged: put a whole copy there, or remove it to restore the catalogue alone"
        ) from error


def restore_key(root: Path, key: bytes | None) -> bool:
    """Write the key of a backup into a workspace; returns whether that changed it."""
    path = root / KEY_FILE
    if key is None or (path.exists() and path.read_bytes().strip() == key.hex().encode()):
        return False
    atomic_write(path, f"{key.hex()}\n")
    return True
