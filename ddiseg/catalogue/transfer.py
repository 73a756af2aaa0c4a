"""Copy of a catalogue from one database to another, such as from SQLite to PostgreSQL and back.

Nobody writes to the source meanwhile: the copy holds the lock of its writers, and people read on. Rows are
copied in the order of their primary keys, each part in a transaction, so that a copy that was killed goes
on after the last row that arrived. The target is marked from the first row until all rows were compared
(`ddiseg.catalogue.marks`), and no command opens it.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sqlalchemy import Table, select, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from annotation_protocol.files import locked
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.last_ids import last_ids, set_last_ids
from ddiseg.catalogue.leases import Leases
from ddiseg.catalogue.marks import Mark, store_version
from ddiseg.catalogue.plain_rows import PlainTable, Row
from ddiseg.catalogue.tables import TABLES, Event, Lease
from ddiseg.catalogue.url import shown
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.outcomes import Outcome, Progress, silent

_logger = logging.getLogger(__name__)

#: The kind of the event that a move leaves in the new catalogue.
MOVE = "move-catalogue"

#: How long a move waits for commands that have the old catalogue open, in seconds.
_PATIENCE = 5.0


class CopyDiffersError(WorkspaceError):
    """A row of the target that is not the source's, or does not go with those that are there."""


@dataclass(frozen=True)
class Copied:
    """What was copied."""

    outcome: Outcome  #: added; unchanged where all rows were there
    rows: dict[str, int]  #: by table
    digest: str  #: SHA-256 of all rows, equal for the source and the target
    found: int = 0  #: rows that an earlier run had copied
    restarted: bool = False  #: the source was changed since then, and everything was copied anew

    @property
    def total(self) -> int:
        return sum(self.rows.values())


@dataclass(frozen=True)
class Move:
    """From now on people use the copy, and nobody the source; stored as an event of the copy."""

    actor: str
    detail: dict[str, Any] = field(default_factory=dict)


def transfer(
    source: Database, target: Database, *, move: Move | None = None, progress: Progress = silent
) -> Copied:
    """Copy all rows of `source` into `target`, which is empty or the beginning of the same copy.

    Args:
        move: mark the source as moved once its rows are in the target, so that nobody writes to it.
        progress: rows that were copied or compared, of all such steps.

    Raises:
        InputError: the target holds another catalogue, or a row can't be stored there.
        WorkspaceError: another schema; a server or a round runs; someone has the source open, to move it; the
            databases can't be reached. The same call goes on from there.
    """
    if _fingerprint(source) == _fingerprint(target):
        raise InputError(
            f"{_place(target)} is the catalogue itself: give another place to copy it to"
        )
    moved_before = _moved_before(source)
    with _only_copy(target), _still(source, locks=not moved_before) as writer:
        if not moved_before:
            source.check()
            _refuse_while_used(source)
        schema = _head(source)
        with source.read() as reader:
            _stay(reader)
            copied, finished = _copy_into(target, reader, source, schema, progress)
        if move is not None and not moved_before:
            store_version(writer, Mark.moved(schema))
    if move is not None and not moved_before:
        _check_nobody_writes(source, schema)
    if move is not None or not finished:
        _finish(target, source, schema, None if moved_before and finished else move)
    return copied


def _moved_before(source: Database) -> bool:
    """Return whether an earlier run marked the source as moved, and ended then."""
    mark = Mark.read(source.revision())
    return mark is not None and mark.is_moved


def _head(source: Database) -> str:
    version = source.revision() or ""
    mark = Mark.read(version)
    return mark.schema if mark else version


def _copy_into(
    target: Database, reader: Session, source: Database, schema: str, progress: Progress
) -> tuple[Copied, bool]:
    """Copy and compare all rows; returns whether the target had been finished before, too."""
    fingerprint = _fingerprint(source)
    finished = _begin(target, schema, fingerprint)
    if finished and _moved_before(source) and _was_moved_from(source, target):
        return Copied(Outcome.UNCHANGED, {}, ""), True
    counts = {table.name: PlainTable(table, reader.connection()).count() for table in TABLES}
    steps = _Steps(progress, 2 * sum(counts.values()))
    if finished:
        with target.read() as session:
            _stay(session)
            try:
                digest = _compare(reader, session, steps)
            except CopyDiffersError as error:
                raise InputError(
                    f"{error}: it holds another catalogue, or was used since it was copied; give an empty "
                    "database"
                ) from error
        return Copied(Outcome.UNCHANGED, counts, digest, sum(counts.values())), True
    found = _count(target)
    try:
        return _copied(target, reader, counts, found, steps), False
    except CopyDiffersError:
        if not found:
            raise
    _logger.info("the source was changed since the copy began: its rows are copied anew")
    _empty(target)
    again = _copied(target, reader, counts, 0, _Steps(progress, steps.total))
    return replace(again, restarted=True), False


def _was_moved_from(source: Database, target: Database) -> bool:
    """Return whether an earlier run moved `source` to `target`, where work may have gone on since."""
    moves = select(Event.detail).where(Event.kind == MOVE)
    with target.read() as session:
        return any(
            detail.get("source") == _fingerprint(source) for detail in session.scalars(moves)
        )


def _copied(
    target: Database, reader: Session, counts: dict[str, int], found: int, steps: _Steps
) -> Copied:
    for table in TABLES:
        _copy_table(table, reader, target, counts, steps)
    with target.read() as session:
        _stay(session)
        return Copied(Outcome.ADDED, counts, _compare(reader, session, steps), found)


def _begin(target: Database, schema: str, fingerprint: str) -> bool:
    """Mark the target, whose schema is made where there is none; returns whether it has other rows.

    Raises:
        InputError: it is the beginning of a copy of another catalogue.
    """
    mark = Mark.read(target.revision())
    if mark is None or mark.is_moved:
        target.upgrade()  # refuses a catalogue that was moved
        target.check()
        if _count(target):
            return True
        with target.write() as session:
            store_version(session, Mark.copying(schema, fingerprint))
        return False
    if (mark.schema, mark.source) != (schema, fingerprint):
        raise InputError(
            f"{_place(target)} is the beginning of a copy of another catalogue: go on with that copy, or "
            "give an empty database"
        )
    return False


def _copy_table(
    table: Table, reader: Session, target: Database, counts: dict[str, int], steps: _Steps
) -> None:
    """Copy the rows of a table that are not in the target yet."""
    rows = PlainTable(table, reader.connection())
    with target.read() as session:
        there = PlainTable(table, session.connection())
        last = there.last_key()
        copied = there.count() if last else 0
    steps.add(copied)
    if not counts[table.name]:
        return
    for part in rows.parts(last):
        try:
            with target.write() as session:
                PlainTable(table, session.connection()).insert(part)
        except DataError as error:
            raise _named_fault(rows, part, error) from error
        except IntegrityError as error:
            if any(rows.fault(row) for row in part):
                raise _named_fault(rows, part, error) from error
            raise CopyDiffersError(
                f"rows of {table.name} can't be stored: {_first_line(error)}"
            ) from error
        steps.add(len(part))


def _named_fault(rows: PlainTable, part: list[Row], error: DBAPIError) -> InputError:
    """Return the error that names the row and the column that the target refuses."""
    for row in part:
        if fault := rows.fault(row):
            return InputError(
                f"{rows.named(row)}: {fault}; correct it in the catalogue that is copied, then run the same "
                "command again"
            )
    return InputError(f"a row of {rows.name} can't be stored: {_first_line(error)}")


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def _compare(reader: Session, session: Session, steps: _Steps) -> str:
    """Return the digest of all rows; raises CopyDiffersError where a row differs."""
    digest = hashlib.sha256()
    for table in TABLES:
        here = PlainTable(table, reader.connection())
        there = PlainTable(table, session.connection())
        digest.update(f"{table.name}\n".encode())
        ours: list[Row]
        theirs: list[Row]
        for ours, theirs in zip_longest(here.parts(), there.parts(), fillvalue=[]):
            content = _canonical(ours)
            if content != _canonical(theirs):
                raise CopyDiffersError(_difference(here, ours, theirs))
            digest.update(content)
            steps.add(len(ours))
    return digest.hexdigest()


def _canonical(rows: list[Row]) -> bytes:
    """Return rows as bytes that are equal for equal values of equal types: 1 is neither 1.0 nor True."""
    return repr(rows).encode("utf-8", "surrogatepass")


def _difference(table: PlainTable, ours: list[Row], theirs: list[Row]) -> str:
    for our, their in zip_longest(ours, theirs):
        if repr(our) != repr(their):
            fault = f": {fault}" if our and (fault := table.fault(our)) else ""
            return f"{table.named(our or their)} of the target is not the source's{fault}"
    return f"the rows of {table.name} differ"


def _count(target: Database) -> int:
    with target.read() as session:
        return sum(PlainTable(table, session.connection()).count() for table in TABLES)


def _empty(target: Database) -> None:
    """Delete the rows of a copy that has not ended."""
    with target.write() as session:
        for table in reversed(TABLES):
            session.execute(table.delete())


def _finish(target: Database, source: Database, schema: str, move: Move | None) -> None:
    """Take the mark off the target: it is a catalogue now, which gives out no id twice."""
    with source.read() as reader:
        given = last_ids(reader)
    with target.write() as session:
        set_last_ids(session, given)
        if move is not None:
            detail = {**move.detail, "source": _fingerprint(source)}
            session.add(Event(kind=MOVE, actor=move.actor, detail=detail))
            session.flush()
        store_version(session, schema)


def _place(database: Database) -> str:
    return shown(database.engine.url)


def _file(database: Database) -> Path:
    return Path(str(database.engine.url.database))


def _fingerprint(source: Database) -> str:
    """Return what tells the source of a copy from another catalogue."""
    place = source.engine.url.set(drivername=source.engine.dialect.name)._replace(password=None)
    return hashlib.sha256(place.render_as_string().encode()).hexdigest()[:12]


def _refuse_while_used(source: Database) -> None:
    """Raise WorkspaceError where a server or a round works with the catalogue."""
    with source.read() as session:
        names = session.scalars(select(Lease.name).order_by(Lease.name)).all()
    for name in names:
        if holder := Leases(source).holder(name):
            what = {"serve": "ddiseg serve", "round": "a round of the loop"}.get(name, name)
            raise WorkspaceError(
                f"{what} runs ({holder}): stop it, then run the same command again"
            )


@contextmanager
def _still(source: Database, *, locks: bool) -> Iterator[Session]:
    """Keep others from writing to the source, which they may read."""
    with source.write() if locks else source.read() as session:
        _stay(session)  # takes the lock
        yield session
        session.execute(text("SELECT 1"))  # fails where the connection and so the lock was lost


def _stay(session: Session) -> None:
    """Begin a transaction that no server ends because it waits for long."""
    postgres = session.get_bind().dialect.name == "postgresql"
    session.execute(
        text("SET LOCAL idle_in_transaction_session_timeout = 0" if postgres else "SELECT 1")
    )


@contextmanager
def _only_copy(target: Database) -> Iterator[None]:
    """Refuse a second copy into the same target."""
    busy = f"another 'ddiseg catalogue copy' writes to {_place(target)}: wait for it"
    if target.engine.dialect.name == "postgresql":
        with target.read() as session:
            _stay(session)
            mine = text("SELECT pg_try_advisory_lock(hashtext('ddiseg catalogue copy'))")
            if not session.scalar(mine):
                raise WorkspaceError(busy)
            try:
                yield
            finally:
                session.execute(text("SELECT pg_advisory_unlock_all()"))
    else:
        file = _file(target)
        lock = file.with_name(f".{file.name}.copying")
        try:
            with locked(lock, busy):
                yield
        finally:
            lock.unlink(missing_ok=True)


def _check_nobody_writes(source: Database, schema: str) -> None:
    """Raise WorkspaceError where another program has the source open, which takes its mark off.

    The mark keeps every program out that opens the catalogue from now on.
    """
    last = time.monotonic() + _PATIENCE
    while others := _others(source):
        if time.monotonic() > last:
            with source.write() as session:
                store_version(session, schema)
            raise WorkspaceError(
                f"the rows are copied, but {others} has {_place(source)} open and may write to it: stop that, "
                "then run the same command again"
            )
        time.sleep(0.2)


def _others(source: Database) -> str | None:
    """Return who has the source open besides this process, for people; None where nobody has."""
    source.engine.dispose()
    if source.engine.dialect.name == "postgresql":
        with source.read() as session:
            found = session.execute(
                text(
                    "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY pid LIMIT 1"
                )
            ).first()
        source.engine.dispose()
        return None if found is None else f"process {found.pid} of the server ({found[1] or '-'})"
    connection = sqlite3.connect(_file(source), timeout=0)
    try:
        # SQLite leaves WAL only where no other connection is open.
        (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError:
        mode = "wal"
    finally:
        connection.close()
    return None if mode == "delete" else "another program"


@dataclass
class _Steps:
    """How many rows were copied or compared."""

    progress: Progress
    total: int
    done: int = 0

    def add(self, rows: int) -> None:
        self.done += rows
        self.progress(min(self.done, self.total), self.total)
