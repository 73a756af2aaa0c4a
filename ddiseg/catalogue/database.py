"""Connections, transactions and the schema's version; used by `ddiseg.catalogue` alone."""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, TypeVar, TypeVarTuple

import numpy as np
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Row, Select, create_engine, event, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionLeftError
from sqlalchemy.orm import InstrumentedAttribute, Session

from ddiseg.catalogue.url import parse_url, shown
from ddiseg.errors import NoSchemaError, NotFoundError, WorkspaceError

#: How long a writer waits for another one before it gives up, in seconds.
BUSY_TIMEOUT = 60

#: PostgreSQL's advisory lock that a writer holds: any number that no other program uses there.
_WRITERS = int.from_bytes(b"ddiseg")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Id = TypeVar("Id", int, str)

#: Ids that one query names; databases take some tens of thousands.
_IDS_IN_A_QUERY = 1000


class Database:
    """A database that holds the current schema, with reading and writing transactions."""

    def __init__(self, url: str | URL, how_to_restore: Callable[[], str] | None = None) -> None:
        self._how_to_restore = how_to_restore or _from_backup
        self.engine = _engine(parse_url(url))
        if self.engine.dialect.name == "sqlite":
            _configure_sqlite(self.engine)
        elif self.engine.dialect.name == "postgresql":
            event.listen(self.engine, "begin", _begin_on_postgresql)
        self._writing = self.engine.execution_options(ddiseg_write=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a snapshot to read from; loaded rows stay usable afterwards."""
        with (
            _errors_explained(self.engine, self._how_to_restore),
            Session(self.engine, expire_on_commit=False) as session,
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction: all of it is stored at the end, or nothing.

        One process writes at a time, so that what a transaction has read stays true until it ends:
        by the lock of SQLite's file, or an advisory lock of a PostgreSQL database.
        """
        with (
            _errors_explained(self.engine, self._how_to_restore),
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def upgrade(self) -> None:
        """Upgrade the schema to this program's version."""
        self.refuse_newer()
        with (
            _errors_explained(self.engine, self._how_to_restore),
            self._writing.begin() as connection,
        ):
            command.upgrade(_alembic(connection), "head")

    def check(self) -> None:
        """Raise WorkspaceError unless the schema is exactly this program's."""
        self.refuse_newer()
        found, head = self.revision(), _script().get_current_head()
        if found is None:
            raise NoSchemaError(
                f"catalogue {shown(self.engine.url)} is an empty database: restore it from a backup"
            )
        if found != head:
            raise WorkspaceError(
                f"catalogue {shown(self.engine.url)} has schema {found}, this ddiseg needs {head}: "
                "run 'ddiseg init' on the workspace, which upgrades it and keeps all rows"
            )

    def is_current(self) -> bool:
        """Return whether the schema is this program's; raises WorkspaceError where it is newer."""
        self.refuse_newer()
        return self.revision() == _script().get_current_head()

    def refuse_newer(self) -> None:
        found = self.revision()
        known = {s.revision for s in _script().walk_revisions()}
        if found is not None and found not in known:
            raise WorkspaceError(
                f"catalogue {shown(self.engine.url)} has schema {found}, which is newer than "
                "this ddiseg knows: upgrade ddiseg (pip install -U ddiseg)"
            )

    def revision(self) -> str | None:
        """Return the schema that the database has; None where it has none."""
        with (
            _errors_explained(self.engine, self._how_to_restore),
            self.engine.connect() as connection,
        ):
            return MigrationContext.configure(connection).get_current_revision()


class Repository:
    """A part of the catalogue. Each public method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _all(self, query: Select[T]) -> Sequence[T]:
        """Return the first column of all rows, in a transaction of its own."""
        with self._database.read() as session:
            return session.scalars(query).all()

    def _first(self, query: Select[T]) -> T | None:
        """Return the first column of the first row; None without rows."""
        with self._database.read() as session:
            return session.scalars(query).first()

    def _all_in(
        self, query: Select[T], column: InstrumentedAttribute[Any], ids: Iterable[Id]
    ) -> list[T]:
        """Return `scalars_in` in a transaction of its own."""
        with self._database.read() as session:
            return scalars_in(session, query, column, ids)

    def _rows(self, query: Select[*Ts]) -> Sequence[Row[*Ts]]:
        """Return all rows."""
        with self._database.read() as session:
            return session.execute(query).all()


def in_parts(ids: Iterable[Id]) -> Iterator[list[Id]]:
    """Yield `ids` once each, ascending, in parts that fit one query."""
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), _IDS_IN_A_QUERY):
        yield ordered[start : start + _IDS_IN_A_QUERY]


def scalars_in(
    session: Session, query: Select[T], column: InstrumentedAttribute[Any], ids: Iterable[Id]
) -> list[T]:
    """Return the first column of all rows whose `column` is one of `ids`, however many there are."""
    parts = (query.where(column.in_(part)) for part in in_parts(ids))
    return [row for part in parts for row in session.scalars(part)]


def id_columns(
    session: Session, query: Select[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two columns of a query as arrays, (N,) each, with a part of the rows in memory."""
    first, second = array("q"), array("q")
    for rows in (
        session.connection().execute(query.execution_options(yield_per=50_000)).partitions()
    ):
        columns = list(zip(*rows, strict=True))
        first.extend(columns[0])
        second.extend(columns[1])
    return np.array(first, np.int64), np.array(second, np.int64)


def named(session: Session, table: type[T], name: str, advice: str = "") -> T:
    """Return the row called `name`; raises NotFoundError, which lists the names that there are."""
    columns: Any = table
    row = session.scalars(select(table).where(columns.name == name)).first()
    if row is None:
        known = ", ".join(session.scalars(select(columns.name).order_by(columns.name)))
        raise NotFoundError(
            f"no {table.__name__.lower()} called '{name}' (there are: {known or 'none yet'}){advice}"
        )
    return row


def _engine(url: URL) -> Engine:
    """Return an engine; raises WorkspaceError where a driver is missing or an option is unknown."""
    try:
        return create_engine(url)
    except ImportError as error:  # the module, or libpq under it
        driver = "; pip install 'ddiseg[postgres]'" if "psycopg" in str(error) else ""
        raise WorkspaceError(
            f"catalogue {shown(url)} needs a driver that is not installed: {error}{driver}"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise WorkspaceError(f"catalogue URL {shown(url)} can't be used: {error}") from error


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # this module begins transactions itself
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        # A writer takes the lock at once: taking it later would fail without waiting.
        write = connection.get_execution_options().get("ddiseg_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _begin_on_postgresql(connection: Connection) -> None:
    """Give a reader one snapshot, and a writer the writers' lock.

    Without the lock, two transactions could both rely on an image's old state, and leave it skipped
    and accepted. A writer that waited must see what the one before it stored: READ COMMITTED does
    that; a level that takes its snapshot with the first statement, the wait itself, does not.
    """
    write = connection.get_execution_options().get("ddiseg_write")
    level = "READ COMMITTED" if write else "REPEATABLE READ, READ ONLY"
    connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {level}")
    if write:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch the file to WAL.

    Of two processes that switch a new file at once, SQLite answers "locked" to one without regard
    to its busy timeout, since the two could wait for ever.
    """
    last = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > last:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _errors_explained(engine: Engine, how_to_restore: Callable[[], str]) -> Iterator[None]:
    """Turn errors of the database into one line that says what to do."""
    try:
        yield
    except NoConnectionLeftError as error:
        raise WorkspaceError(
            f"catalogue {shown(engine.url)}: all connections are in use: too many requests at "
            "once, run the same command again"
        ) from error
    except DBAPIError as error:
        # sqlite3 raises DatabaseError itself, none of its subclasses, where the file is damaged.
        damaged = type(error.orig).__name__ == "DatabaseError"
        if error.connection_invalidated or damaged or isinstance(error, OperationalError):
            cause = str(error.orig).strip().splitlines()[0]
            raise WorkspaceError(
                f"catalogue {shown(engine.url)}: {cause}; {_advice(cause, how_to_restore)}"
            ) from error
        if "readonly" in str(error.orig):
            raise WorkspaceError(
                f"catalogue {shown(engine.url)} can't be written: {error.orig}"
            ) from error
        raise


def _from_backup() -> str:
    return "restore the file from a backup"


def _advice(cause: str, how_to_restore: Callable[[], str]) -> str:
    if any(sign in cause for sign in ("not a database", "malformed")):
        return how_to_restore()
    password = (
        "write the right password into ~/.pgpass, or the environment or file that ddiseg.toml names"
    )
    for sign, advice in (
        ("password authentication failed", password),
        ("no password supplied", password),
        ("locked", "another ddiseg is writing; run the same command again"),
        ("lock timeout", "another ddiseg is writing; run the same command again"),
        ("full", "nothing of this step was stored; free some space and run the same command again"),
        ("readonly", "make the folder writable"),
        ("unable to open", "check that the folder exists and is writable"),
        ("disk I/O", "check the disk, then run the same command again"),
    ):
        if sign in cause:
            return advice
    return "check that the database runs and that the URL is right, then run the same command again"


def _alembic(connection: Any = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("ddiseg.db")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic())
