"""Rows as plain values, the same from SQLite and PostgreSQL; what `ddiseg.catalogue.transfer` moves.

JSON is text here, so that it stays as it was written; times are text in all tables. Rows come in the order
of their primary key, text by code points, whatever the language of the database.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from sqlalchemy import JSON, BigInteger, Boolean, Column, Connection, Float, Integer, String, Table
from sqlalchemy.exc import DBAPIError

from ddiseg.catalogue.storable import text_fault

Row: TypeAlias = tuple[Any, ...]

#: Rows of one part; one is in memory at a time.
PART = 4000


@dataclass(frozen=True)
class PlainTable:
    """A table of one database."""

    table: Table
    connection: Connection

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def columns(self) -> list[Column[Any]]:
        return list(self.table.columns)

    @cached_property
    def key(self) -> list[int]:
        """The positions of the primary key's columns."""
        return [self.columns.index(column) for column in self.table.primary_key]

    def count(self) -> int:
        """Count the rows."""
        result = self.connection.exec_driver_sql(f"SELECT count(*) FROM {self.name}")
        return int(result.scalar_one())

    def last_key(self) -> Row | None:
        """Return the last primary key; None without rows."""
        newest = ", ".join(f"{key} DESC" for key in self._keys)
        found = self.connection.exec_driver_sql(
            f"SELECT {self._key_names} FROM {self.name} ORDER BY {newest} LIMIT 1"
        ).first()
        return None if found is None else tuple(found)

    def parts(self, after: Row | None = None) -> Iterator[list[Row]]:
        """Yield all rows, or those after a primary key, in parts."""
        where, parameters = "", None
        if after is not None:
            marks = ", ".join(["%s" if self._on_postgres else "?"] * len(self.key))
            where, parameters = f" WHERE ({', '.join(self._keys)}) > ({marks})", after
        result = self.connection.exec_driver_sql(
            f"SELECT {', '.join(map(self._selected, self.columns))} FROM {self.name}{where} "
            f"ORDER BY {', '.join(self._keys)}",
            parameters,
            execution_options={"stream_results": True, "max_row_buffer": PART},
        )
        for part in result.partitions(PART):
            yield [self._plain(tuple(row)) for row in part]

    def insert(self, rows: Sequence[Row]) -> None:
        """Insert rows.

        Raises:
            DBAPIError: the database refuses them.
        """
        dialect, driver = self.connection.dialect, self.connection.connection.driver_connection
        assert driver is not None
        assert dialect.dbapi is not None
        names = ", ".join(map(self._quoted, self.columns))
        try:
            with_cursor = driver.cursor()
            if self._on_postgres:
                with with_cursor.copy(f"COPY {self.name} ({names}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
            else:
                marks = ", ".join("?" * len(self.columns))
                with_cursor.executemany(f"INSERT INTO {self.name} ({names}) VALUES ({marks})", rows)
        except dialect.dbapi.Error as error:
            raise DBAPIError.instance(
                f"rows of {self.name}", None, error, dialect.dbapi.Error, hide_parameters=True
            ) from error

    def fault(self, row: Row) -> str | None:
        """Return the column and what keeps its value from being stored; None where all can be."""
        for column, value in zip(self.columns, row, strict=True):
            if found := _fault(column, value):
                return f"{column.name} {found}"
        return None

    def named(self, row: Row) -> str:
        """Return a row's name for people, such as "images #7"."""
        keys = [row[position] for position in self.key]
        return f"{self.name} {'#' if len(keys) == 1 else ''}{', '.join(map(str, keys))}"

    @cached_property
    def _numbers(self) -> list[tuple[int, Callable[[Any], Any]]]:
        """What SQLite stores as numbers: booleans, and JSON that is one number."""
        if self._on_postgres:
            return []
        kinds: list[tuple[type[Any], Callable[[Any], Any]]] = [
            (Boolean, lambda value: bool(value) if value in (0, 1) else value),
            (JSON, json.dumps),
        ]
        return [
            (position, turn)
            for position, column in enumerate(self.columns)
            for kind, turn in kinds
            if isinstance(column.type, kind)
        ]

    def _plain(self, row: Row) -> Row:
        if not self._numbers:
            return row
        values = list(row)
        for position, turn in self._numbers:
            if isinstance(values[position], int | float):
                values[position] = turn(values[position])
        return tuple(values)

    @property
    def _on_postgres(self) -> bool:
        return self.connection.dialect.name == "postgresql"

    def _quoted(self, column: Column[Any]) -> str:
        return str(self.connection.dialect.identifier_preparer.quote(column.name))

    def _selected(self, column: Column[Any]) -> str:
        json_text = self._on_postgres and isinstance(column.type, JSON)
        return f"{self._quoted(column)}::text" if json_text else self._quoted(column)

    @property
    def _key_names(self) -> str:
        return ", ".join(map(self._quoted, self.table.primary_key))

    @property
    def _keys(self) -> list[str]:
        """The primary key's columns as they are compared and sorted."""
        by_code_point = ' COLLATE "C"' if self._on_postgres else ""
        return [
            self._quoted(column) + (by_code_point if isinstance(column.type, String) else "")
            for column in self.table.primary_key
        ]


def _fault(column: Column[Any], value: Any) -> str | None:
    """Return what keeps a value from being stored in a column, on one database or the other."""
    kind = column.type
    if value is None:
        return None if column.nullable else "is missing"
    if isinstance(kind, Boolean):
        return None if isinstance(value, bool) else f"is {value!r}, neither true nor false"
    if isinstance(kind, Integer):
        bits = 63 if isinstance(kind, BigInteger) else 31
        fits = isinstance(value, int) and -(2**bits) <= value < 2**bits
        return None if fits else f"is {value!r}, no whole number of {bits + 1} bits"
    if isinstance(kind, Float):
        fits = isinstance(value, float) and not math.isnan(value)
        return None if fits else f"is {value!r}, no number"
    if isinstance(kind, JSON):
        return _json_fault(value)
    if isinstance(kind, String):
        return text_fault(column, value) if isinstance(value, str) else f"is {value!r}, no text"
    return None


def _json_fault(value: Any) -> str | None:
    def refuse(constant: str) -> None:
        raise ValueError(f"holds {constant}")

    try:
        json.loads(value, parse_constant=refuse)
    except (ValueError, TypeError) as error:
        return f"is no JSON that every database stores: {error}"
    return None
