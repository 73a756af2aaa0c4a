"""Consistent copies of an SQLite catalogue, also while other processes write it.

SQLite's online backup API (https://www.sqlite.org/backup.html) copies one snapshot of a database, and
replaces a database in one transaction.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ddiseg.catalogue.connections import BUSY_TIMEOUT
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.marks import Mark, store_version
from ddiseg.errors import InputError, WorkspaceError

#: Beginning of every SQLite file (https://www.sqlite.org/fileformat.html, 1.3.1).
_MAGIC = b"SQLite format 3\0"


def copy_database(source: Path, target: Path) -> None:
    """Copy a snapshot of the catalogue `source` into `target`, a new or empty file, and check it.

    Raises:
        WorkspaceError: the source is damaged or busy, or the disk is full.
    """
    with _errors_explained(source), _open(source) as origin, _open(target) as copy:
        origin.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        _check_intact(copy, source)


def overwrite_database(source: Path, target: Path) -> None:
    """Replace the content of the catalogue `target` in one transaction, under the locks of SQLite.

    Processes that have it open see the new content afterwards. A killed process leaves the old one.

    Raises:
        WorkspaceError: `target` is busy, or the disk is full: it is as it was.
    """
    with _errors_explained(target), _open(source) as origin, _open(target) as copy:
        origin.backup(copy)


def upgrade_copy(file: Path) -> str:
    """Upgrade a copy of a catalogue to this program's schema; returns the schema that it had.

    The copy of a catalogue that was moved to another database is a catalogue again.

    Raises:
        InputError: it is no catalogue of ddiseg, or damaged.
        WorkspaceError: its schema is newer than this program.
    """
    if read_magic(file) != _MAGIC:
        raise InputError(f"{file} is no SQLite file: give a file that 'ddiseg backup' wrote")
    try:
        with _open(file) as connection:
            _check_intact(connection, file)
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, WorkspaceError) as error:
        raise InputError(f"{file} is damaged ({error}): give another backup") from error
    if not {"alembic_version", "images", "masks", "events"} <= tables:
        raise InputError(
            f"{file} is no catalogue of ddiseg: give a file that 'ddiseg backup' wrote"
        )
    database = Database(f"sqlite:///{file}")
    try:
        _take_off_moved(database)
        found = database.revision() or "none"
        database.upgrade()
    finally:
        database.engine.dispose()
    with _open(file) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return found


def _take_off_moved(database: Database) -> None:
    mark = Mark.read(database.revision())
    if mark is not None and mark.is_moved:
        with database.write() as session:
            store_version(session, mark.schema)


def stored_photographs(file: Path) -> set[str]:
    """Return the content hashes of the photographs that a catalogue's store must hold."""
    with _open(file) as connection:
        rows = connection.execute("SELECT content_hash FROM images WHERE in_place IS NULL")
        return {digest for (digest,) in rows}


def is_usable(file: Path) -> bool:
    """Return whether a file is an SQLite database that can be read."""
    try:
        with _open(file) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def read_magic(file: Path) -> bytes:
    """Return the first 16 bytes of a file."""
    with open(file, "rb") as opened:
        return opened.read(len(_MAGIC))


@contextlib.contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT)) as connection:
        yield connection


def _check_intact(connection: sqlite3.Connection, file: Path) -> None:
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise WorkspaceError(f"{file} is damaged ({found}): restore it from a backup")


@contextlib.contextmanager
def _errors_explained(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise WorkspaceError(
            f"{file}: {error}; nothing was replaced: free some space, wait until no other ddiseg "
            "writes, or restore it from a backup if it is damaged; then run the same command again"
        ) from error
