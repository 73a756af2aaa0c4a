"""The last ids that a database gave out: sequences of PostgreSQL, autoincrement of SQLite."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column, Table, func, select, text
from sqlalchemy.orm import Session

from ddiseg.catalogue.tables import TABLES


def last_ids(session: Session) -> dict[str, int]:
    """Return the last id that was given out, by table, also where its row was deleted since."""
    found: dict[str, int] = {}
    postgres = session.get_bind().dialect.name == "postgresql"
    kept = {} if postgres else _autoincrement(session)
    for table in _numbered():
        newest = session.scalar(select(func.max(_id(table)))) or 0
        if postgres and (name := _sequence(session, table)):
            given = session.execute(text(f"SELECT last_value, is_called FROM {name}")).one()
            newest = max(newest, given.last_value if given.is_called else 0)
        found[table.name] = max(newest, kept.get(table.name, 0))
    return found


def set_last_ids(session: Session, given: dict[str, int]) -> None:
    """Let ids go on after the last that was given out, by table, in the caller's transaction."""
    postgres = session.get_bind().dialect.name == "postgresql"
    for table in _numbered():
        number = given[table.name]
        if postgres and (name := _sequence(session, table)):
            session.execute(
                text("SELECT setval(CAST(:name AS regclass), :number, :called)"),
                {"name": name, "number": max(number, 1), "called": number > 0},
            )
        elif not postgres and table.dialect_kwargs.get("sqlite_autoincrement") and number:
            values = {"name": table.name, "number": number}
            session.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), values)
            session.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :number)"), values)


def _numbered() -> Iterator[Table]:
    """Yield the tables whose ids the database gives out."""
    return (table for table in TABLES if table.autoincrement_column is not None)


def _id(table: Table) -> Column[int]:
    assert table.autoincrement_column is not None
    return table.autoincrement_column


def _sequence(session: Session, table: Table) -> str | None:
    return session.scalar(select(func.pg_get_serial_sequence(table.name, _id(table).name)))


def _autoincrement(session: Session) -> dict[str, int]:
    return {
        name: seq for name, seq in session.execute(text("SELECT name, seq FROM sqlite_sequence"))
    }
