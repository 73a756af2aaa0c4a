"""Backups of the catalogue, in the folder `backups` of a workspace.

Files are `catalogue-TIME[-REASON].sqlite`, each a whole catalogue. The store is not in them: its files
never change once written, so any file copy keeps them. The key of the pseudonyms is beside each backup,
as `FILE.key`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from annotation_protocol.files import atomic_write
from ddiseg.catalogue.copies import copy_database
from ddiseg.catalogue.url import without_password
from ddiseg.errors import DdisegError, InputError, WorkspaceError
from ddiseg.workspace.pseudonym_key import back_up_key, key_of_backup

if TYPE_CHECKING:
    from ddiseg.workspace.workspace import Workspace

_logger = logging.getLogger(__name__)

FOLDER = "backups"


class Reason(StrEnum):
    """Why a backup was written; part of its name."""

    REQUESTED = "requested"  #: by 'ddiseg backup'
    ROLLING = "rolling"  #: by 'ddiseg loop run' and 'ddiseg serve'; old ones are deleted
    UPGRADE = "before-upgrade"  #: by 'ddiseg init'
    REPLACED = "replaced"  #: the catalogue that 'ddiseg restore' replaced


def backup(workspace: Workspace, to: Path | None = None) -> Path:
    """Write a backup of the catalogue; returns its file.

    Args:
        to: a new file; None: a file in the folder `backups`.

    Raises:
        InputError: `to` exists, or the catalogue is on a PostgreSQL server.
        WorkspaceError: the catalogue is damaged, or the file can't be written; none is left.
    """
    file = sqlite_file(workspace)
    if to is not None and os.path.lexists(to):
        raise InputError(f"{to.absolute()} exists: give --to the name of a new file")
    target = to.absolute() if to else new_name(workspace.root, Reason.REQUESTED)
    if os.path.lexists(key_of_backup(target)):
        raise InputError(f"{key_of_backup(target)} exists: give --to the name of a new file")
    return write_backup(workspace.root, file, target)


def sqlite_file(workspace: Workspace) -> Path:
    """Return the file of a catalogue; raises InputError with what to type for one on a server."""
    location = workspace.location
    if location.file is None:
        raise InputError(postgres_advice(location.url))
    return location.file


def postgres_advice(url: URL) -> str:
    """Return how a catalogue on a PostgreSQL server is backed up and restored."""
    plain = without_password(url).set(drivername="postgresql").render_as_string()
    address = shlex.quote(plain)
    password = "; both take the password from ~/.pgpass or PGPASSWORD" if url.password else ""
    return (
        f"the catalogue is on a server: back it up with pg_dump --format=custom --file=FILE "
        f"--dbname={address} and restore it with pg_restore --clean --if-exists "
        f"--single-transaction --dbname={address} FILE{password}"
    )


def backup_before_upgrade(root: Path, file: Path) -> Path:
    """Back up a catalogue whose schema is about to be upgraded."""
    written = write_backup(root, file, new_name(root, Reason.UPGRADE))
    _logger.info(f"backup of the catalogue before the upgrade: {written}")
    return written


def roll_backup(workspace: Workspace) -> None:
    """Write the rolling backup if it is due, and delete the oldest ones; a failure is logged.

    `[backup]` of the settings says how many are kept and how many hours apart they are.
    """
    if workspace.catalogue_file is None:
        return
    try:
        settings = workspace.backup_settings()
        rolling = _backups(workspace.root, Reason.ROLLING)
        newest = max((each.stat().st_mtime for each in rolling), default=0.0)
        if settings.keep and time.time() - newest >= settings.hours * 3600:
            root = workspace.root
            write_backup(root, workspace.catalogue_file, new_name(root, Reason.ROLLING))
            for old in _backups(workspace.root, Reason.ROLLING)[: -settings.keep]:
                old.unlink(missing_ok=True)
                key_of_backup(old).unlink(missing_ok=True)
    except (DdisegError, OSError) as error:
        _logger.warning(f"no backup of the catalogue was written: {error}")


def newest(root: Path) -> Path | None:
    """Return the newest backup in a workspace's folder; None where there is none."""
    return max(_backups(root), key=lambda file: (file.stat().st_mtime, file.name), default=None)


def how_to_restore(root: Path) -> str:
    """Return what to type to get a lost catalogue back."""
    found = newest(root)
    if found is None:
        return (
            f"there is no backup in {root / FOLDER}: 'ddiseg restore FILE' takes one from elsewhere"
        )
    return f"restore the newest backup with 'ddiseg restore {shlex.quote(str(found))}'"


def write_backup(root: Path, source: Path, target: Path) -> Path:
    """Write a checked copy of a catalogue to a new file, whole or not at all; returns the file.

    The key of the pseudonyms comes with it.
    """
    if target.parent.name == FOLDER:
        make_folder(target.parent.parent)
    try:
        back_up_key(root, target)
        atomic_write(target, lambda part: copy_database(source, part))
    except OSError as error:
        raise not_written(target, error) from error
    return target


def not_written(where: Path, error: OSError) -> WorkspaceError:
    """Return the error for a disk that can't be written."""
    return WorkspaceError(
        f"{where}: {error.strerror or error}; nothing was replaced: free some space or make the folder "
        "writable, then run the same command again"
    )


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left an hour ago or earlier."""
    for each in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - each.stat().st_mtime > 3600:
                each.unlink()


def make_folder(root: Path) -> Path:
    """Create the folder of backups, and remove what killed processes left in it."""
    folder = root / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        _remove_unfinished(folder)
    except OSError as error:
        raise not_written(folder, error) from error
    return folder


def new_name(root: Path, reason: Reason) -> Path:
    """Return a new file name in the folder of backups; names sort by time."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]
    return root / FOLDER / f"catalogue-{moment}Z-{reason}.sqlite"


def _backups(root: Path, reason: Reason | None = None) -> list[Path]:
    """Return the backups of a workspace, the oldest first."""
    return sorted((root / FOLDER).glob(f"catalogue-*Z-{reason or '*'}.sqlite"))
