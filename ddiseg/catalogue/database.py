"""Connections, transactions and the schema's version; used by `ddiseg.catalogue` alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from importlib import resources
from inspect import isfunction, isgeneratorfunction, unwrap
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Row, Select, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnectionLeftError
from sqlalchemy.orm import InstrumentedAttribute, Session

from ddiseg.catalogue.connections import Writer, open_engine, reading, writing
from ddiseg.catalogue.faults import ConnectionLostError, explain
from ddiseg.catalogue.marks import refuse_marked
from ddiseg.catalogue.storable import refuse_unstorable
from ddiseg.catalogue.tables import Image
from ddiseg.catalogue.url import parse_url, shown
from ddiseg.errors import NoSchemaError, NotFoundError, WorkspaceError

if TYPE_CHECKING:
    from alembic.config import Config

_logger = logging.getLogger(__name__)

#: Seconds before each repetition of what a server has ended.
_PAUSES = (0.1, 0.5, 1, 2, 4, 8, 15)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Id = TypeVar("Id", int, str)

#: Ids that one query names; databases take some tens of thousands.
_IDS_IN_A_QUERY = 1000

#: Rows in memory at a time where many are read: few enough for the cache of the processor.
_ROWS_OF_A_PART = 2000


class Database:
    """A database that holds the current schema, with reading and writing transactions."""

    def __init__(self, url: str | URL, how_to_restore: Callable[[], str] | None = None) -> None:
        self._how_to_restore = how_to_restore or _from_backup
        self.engine = open_engine(parse_url(url))
        refuse_unstorable(self.engine)
        self._reading = reading(self.engine)
        self._writing = writing(self.engine, Writer.ALONE)
        self._writing_images = writing(self.engine, Writer.SHARED)
        self._repetition = _Repetition()
        self._reached = False  #: it was connected before

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a snapshot to read from; loaded rows stay usable afterwards."""
        with (
            _errors_explained(self.engine, self._how_to_restore),
            Session(self._reading, expire_on_commit=False) as session,
        ):
            session.connection()
            self._reached = True
            yield session

    @contextmanager
    def write(self, images: Collection[int] | Select[int] | None = None) -> Iterator[Session]:
        """Open a transaction: all of it is stored at the end, or nothing.

        What a transaction has read must stay true until it ends. On SQLite one process writes at a
        time. On PostgreSQL those that name `images` run side by side: the rows of these images are
        locked, in the order of their ids, and all that hangs on an image is changed by who has locked
        it. A transaction without `images` runs alone.

        Args:
            images: the ids of all images whose state, masks, tasks or other rows the transaction
                reads or changes, or a query for them; None: it relies on anything else.
        """
        engine = self._writing if images is None else self._writing_images
        explained = partial(_errors_explained, self.engine, self._how_to_restore)
        with explained(), Session(engine, expire_on_commit=False) as session:
            session.connection()
            self._reached = True
            if images is not None and engine.dialect.name == "postgresql":
                _lock_images(session, images)
            yield session
            session.flush()
            with explained(storing=True):
                session.commit()
            self._repetition.stored = True

    def repeat(self, action: Callable[[], T]) -> T:
        """Return what an action returns; it is repeated where the server ended its transaction.

        So a restart of the server, a failover or a deadlock costs a wait. Only what was surely not
        stored is repeated, after the server was reached before, and for half a minute.

        Raises:
            ConnectionLostError: the server did not come back in time.
            UnknownOutcomeError: the connection ended with the transaction's last statement.
        """
        if self.engine.dialect.name != "postgresql" or self._repetition.inside:
            return action()
        with self._repetition as state:
            for pause in _PAUSES:
                state.stored = False
                try:
                    return action()
                except (ConnectionLostError, IntegrityError) as error:
                    # Of two that store the same at once, the second one finds it stored.
                    if state.stored or not self._reached:
                        raise
                    _logger.info(f"{str(error).splitlines()[0]}: trying again in {pause} s")
                    if isinstance(error, IntegrityError):
                        break
                    time.sleep(pause)
            return action()

    def upgrade(self) -> None:
        """Upgrade the schema to this program's version."""
        self.refuse_newer()
        with (
            _errors_explained(self.engine, self._how_to_restore),
            writing(self.engine, Writer.UPGRADE).begin() as connection,
        ):
            self._refuse_foreign(connection)
            from alembic import command  # slow to import

            command.upgrade(_alembic(connection), "head")

    def check(self) -> None:
        """Raise WorkspaceError unless the schema is exactly this program's."""
        self.refuse_newer()
        found, head = self.revision(), _revisions()[-1]
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
        return self.revision() == _revisions()[-1]

    def refuse_newer(self) -> None:
        found = self.revision()
        refuse_marked(found, shown(self.engine.url))
        if found is not None and found not in _revisions():
            raise WorkspaceError(
                f"catalogue {shown(self.engine.url)} has schema {found}, which is newer than "
                "this ddiseg knows: upgrade ddiseg (pip install -U ddiseg)"
            )

    def _refuse_foreign(self, connection: Connection) -> None:
        """Raise WorkspaceError for a database without our schema that holds other tables."""
        if _revision(connection) is not None:
            return
        if others := sorted(set(inspect(connection).get_table_names()) - {"alembic_version"}):
            raise WorkspaceError(
                f"catalogue {shown(self.engine.url)} holds the tables of another program "
                f"({others[0]}{', ...' if others[1:] else ''}): give an empty database"
            )

    def revision(self) -> str | None:
        """Return the schema that the database has; None where it has none."""
        with (
            _errors_explained(self.engine, self._how_to_restore),
            self.engine.connect() as connection,
        ):
            return _revision(connection)


class _Repetition(threading.local):
    """What a thread has done in the action that it would repeat."""

    inside = False
    stored = False  #: a transaction was committed: the action can't be repeated

    def __enter__(self) -> _Repetition:
        self.inside = True
        return self

    def __exit__(self, *_: object) -> None:
        self.inside = False


class Repository:
    """A part of the catalogue. Each public method is one transaction of its own.

    It is repeated where a server ends its connection (`Database.repeat`), unless it yields its result
    or was given an iterator, which can be read once.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            public = isfunction(method) and not name.startswith("_")
            if public and not isgeneratorfunction(unwrap(method)):
                setattr(cls, name, _repeated(method))

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


def _repeated(method: Callable[..., T]) -> Callable[..., T]:
    @wraps(method)
    def call(self: Repository, *args: Any, **kwargs: Any) -> T:
        action = partial(method, self, *args, **kwargs)
        if any(isinstance(each, Iterator) for each in (*args, *kwargs.values())):
            return action()
        return self._database.repeat(action)

    return call


def _lock_images(session: Session, images: Collection[int] | Select[int]) -> None:
    """Lock the rows of images, the smallest id first: two transactions never wait for each other."""
    parts: Iterable[Any] = [images] if isinstance(images, Select) else in_parts(images)
    for part in parts:
        query = select(Image.id).where(Image.id.in_(part)).order_by(Image.id)
        # Rows that refer to an image may be added meanwhile: its key never changes.
        session.execute(query.with_for_update(key_share=True)).all()


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
    ids, others = number_columns(session, query)
    return ids.astype(np.int64), others.astype(np.int64)


def number_columns(session: Session, query: Select[*tuple[Any, ...]]) -> list[NDArray[np.float64]]:
    """Return the columns of a query for numbers as arrays, (N,) each: exact up to 2 ** 53."""
    width = len(query.selected_columns)
    found = [np.empty((0, width))]
    for part in plain_parts(session, query):
        flat = np.fromiter(chain.from_iterable(part), np.float64, len(part) * width)
        found.append(flat.reshape(-1, width))
    return list(np.concatenate(found).T)


def plain_parts(
    session: Session, query: Select[*tuple[Any, ...]]
) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield the rows of a query for numbers and text in parts.

    On SQLite they are the driver's, unconverted, which takes half the time of SQLAlchemy's. Give
    neither to `numpy.array`: it asks each of SQLAlchemy's whether it is an array, for ten times as long.
    """
    connection = session.connection()
    if connection.dialect.name != "sqlite":  # whose cursors alone read as they go
        streamed = connection.execute(query.execution_options(yield_per=_ROWS_OF_A_PART))
        yield from streamed.partitions()
        return
    result, dbapi = connection.execute(query), connection.dialect.dbapi
    assert dbapi is not None
    assert result.cursor is not None
    try:
        while part := result.cursor.fetchmany(_ROWS_OF_A_PART):
            yield part
    except dbapi.Error as error:
        raise DBAPIError.instance(str(query), None, error, dbapi.Error) from error
    finally:
        result.close()


def named(session: Session, table: type[T], name: str, advice: str = "") -> T:
    """Return the row called `name`; raises NotFoundError, which lists the names that there are."""
    columns: Any = table
    row = session.scalars(select(table).where(columns.name == name)).first()
    if row is None:
        known = ", ".join(sorted(session.scalars(select(columns.name))))
        raise NotFoundError(
            f"no {table.__name__.lower()} called '{name}' (there are: {known or 'none yet'}){advice}"
        )
    return row


@contextmanager
def _errors_explained(
    engine: Engine, how_to_restore: Callable[[], str], *, storing: bool = False
) -> Iterator[None]:
    """Turn errors of the database into one line that says what to do."""
    try:
        yield
    except NoConnectionLeftError as error:
        raise WorkspaceError(
            f"catalogue {shown(engine.url)}: all connections are in use: too many requests at "
            "once, run the same command again"
        ) from error
    except DBAPIError as error:
        if (ours := explain(error, engine.url, how_to_restore, storing=storing)) is None:
            raise
        raise ours from error


def _from_backup() -> str:
    return "restore the file from a backup"


def _revision(connection: Connection) -> str | None:
    """Return the schema of a database, which Alembic keeps in a table; None where it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


@cache
def _revisions() -> tuple[str, ...]:
    """Return the schemas that this program knows, oldest first: their migrations' names begin with them."""
    migrations = resources.files("ddiseg.db").joinpath("versions").iterdir()
    return tuple(sorted(file.name[:4] for file in migrations if file.name[:4].isdigit()))


def _alembic(connection: Any = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("ddiseg.db")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
