"""Connections to SQLite and PostgreSQL: how they are opened, and how their transactions begin.

An engine's transactions begin by its execution option `ddiseg_write`: a snapshot to read from without
it, or a writer of one of the kinds of `Writer`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ddiseg.catalogue.fair_lock import FairLock, TurnTimeoutError, polls
from ddiseg.catalogue.url import shown
from ddiseg.errors import WorkspaceError

#: How long a writer waits for another one before it gives up, in seconds.
BUSY_TIMEOUT = 60

#: Minutes after which PostgreSQL ends a writer that does nothing, such as a suspended process.
_IDLE_MINUTES = 10

#: PostgreSQL's advisory lock of the writers: any number that no other program uses there.
_WRITERS = int.from_bytes(b"ddiseg")

#: What libpq is told unless the URL says otherwise: a dead server is noticed within a minute.
_LIBPQ = {
    "application_name": "ddiseg",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class Writer(StrEnum):
    """What a writing transaction keeps others from; on SQLite there is one writer at a time."""

    ALONE = "alone"  #: relies on any row
    SHARED = "shared"  #: relies on the rows of the images that it locks
    UPGRADE = "upgrade"  #: alone, for as long as it takes


def open_engine(url: URL) -> Engine:
    """Return an engine; raises WorkspaceError where a driver is missing or an option is unknown."""
    postgresql = url.get_backend_name() == "postgresql"
    try:
        engine = _postgresql(url) if postgresql else create_engine(url)
    except ImportError as error:  # the module, or libpq under it
        driver = "; pip install 'ddiseg[postgres]'" if "psycopg" in str(error) else ""
        raise WorkspaceError(
            f"catalogue {shown(url)} needs a driver that is not installed: {error}{driver}"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise WorkspaceError(f"catalogue URL {shown(url)} can't be used: {error}") from error
    if postgresql:
        event.listen(engine, "begin", _begin_on_postgresql)
    elif engine.dialect.name == "sqlite":
        _configure_sqlite(engine)
    return engine


def _postgresql(url: URL) -> Engine:
    given = {**url.query, **({"connect_timeout": ""} if "PGCONNECT_TIMEOUT" in os.environ else {})}
    defaults = {} if "service" in given else {k: v for k, v in _LIBPQ.items() if k not in given}
    return create_engine(url, pool_pre_ping=True, connect_args=defaults)


def reading(engine: Engine) -> Engine:
    """Return an engine on the same connections whose transactions read one snapshot."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def writing(engine: Engine, writer: Writer) -> Engine:
    """Return an engine on the same connections whose transactions write."""
    options: dict[str, Any] = {"ddiseg_write": writer}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "READ COMMITTED"
    return engine.execution_options(**options)


def _begin_on_postgresql(connection: Connection) -> None:
    """Take the writers' lock: alone, or shared with those who rely on some images only.

    Without it, two transactions could both rely on an image's old state, and leave it skipped and
    accepted. A writer that waited must see what the one before it stored: READ COMMITTED does that; a
    level that takes its snapshot with the first statement, the wait itself, does not.
    """
    writer = connection.get_execution_options().get("ddiseg_write")
    if writer is None:
        return
    lock = "pg_advisory_xact_lock" + ("_shared" if writer == Writer.SHARED else "")
    idle = 0 if writer == Writer.UPGRADE else _IDLE_MINUTES
    connection.exec_driver_sql(
        f"SELECT set_config('lock_timeout', '{BUSY_TIMEOUT}s', true), "
        f"set_config('idle_in_transaction_session_timeout', '{idle}min', true), {lock}({_WRITERS})"
    )


def _configure_sqlite(engine: Engine) -> None:
    name = engine.url.database
    line = FairLock(Path(name) if name and name != ":memory:" else None)

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
    def _on_begin(connection: Connection) -> None:
        # A writer takes the lock at once: taking it later would fail without waiting.
        if connection.get_execution_options().get("ddiseg_write") is None:
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_in_turn(connection, line)


def _begin_in_turn(connection: Connection, line: FairLock) -> None:
    """Take SQLite's writer lock when this writer's turn comes."""
    database: Any = connection.connection.dbapi_connection
    until = time.monotonic() + BUSY_TIMEOUT
    database.execute("PRAGMA busy_timeout = 0")
    try:
        with suppress(TurnTimeoutError), line.turn(until):
            for _ in polls(until, often=True):
                try:
                    database.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        break
                else:
                    return
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # fails with the reason
    finally:
        database.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000}")


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
