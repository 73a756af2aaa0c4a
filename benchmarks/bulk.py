"""Rows for a new catalogue, written in one transaction, as many at a time as the driver takes."""

from __future__ import annotations

from typing import Any, Self

from sqlalchemy import create_engine

from ddiseg.catalogue.tables import Base, Image

#: Rows that are kept before they are written.
_KEPT = 50_000


class Bulk:
    """Writes rows into the empty catalogue at an SQLAlchemy URL; at the end all of them are stored.

    An SQLite file is written without a journal and without its indexes, which are made afterwards; a
    PostgreSQL database by COPY.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        self._connection: Any = self._engine.raw_connection()
        self._sqlite = self._engine.dialect.name == "sqlite"
        self._tables = {table.name: table for table in Base.metadata.sorted_tables}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._counts: dict[str, int] = {}
        self._states: list[tuple[str, int]] = []
        self._kept = 0
        self._indexes: list[str] = []

    def __enter__(self) -> Self:
        if self._sqlite:
            driver = self._connection.driver_connection
            driver.isolation_level = None
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -500000"):
                driver.execute(f"PRAGMA {pragma}")
            driver.execute("BEGIN IMMEDIATE")
            found = driver.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            ).fetchall()
            self._indexes = [sql for _, sql in found]
            for name, _ in found:
                driver.execute(f'DROP INDEX "{name}"')
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        driver = self._connection.driver_connection
        if kind is None:
            self._flush()
            self._store_states()
            for sql in self._indexes:
                driver.execute(sql)
            if self._sqlite:
                driver.execute("COMMIT")
            else:
                self._set_sequences()
                driver.commit()
                driver.autocommit = True
                driver.execute("ANALYZE")
        self._connection.close()
        self._engine.dispose()

    def add(self, table: str, **row: Any) -> None:
        """Add a row; JSON is given as text. What only other rows have is NULL."""
        self._rows.setdefault(table, []).append(row)
        self._counts[table] = self._counts.get(table, 0) + 1
        self._kept += 1
        if self._kept >= _KEPT:
            self._flush()

    def count(self, table: str) -> int:
        """Return the number of rows that were added to a table."""
        return self._counts.get(table, 0)

    def change_state(self, image_id: int, state: str) -> None:
        """Set the state in which an image is at the end."""
        self._states.append((state, image_id))

    def _flush(self) -> None:
        """Write what was kept, the tables that others refer to first."""
        for name in self._tables:
            if rows := self._rows.pop(name, []):
                columns = tuple(dict.fromkeys(column for row in rows for column in row))
                self._write(name, columns, [tuple(map(row.get, columns)) for row in rows])
        assert not self._rows
        self._kept = 0

    def _write(self, name: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
        names = ", ".join(f'"{column}"' for column in columns)
        driver = self._connection.driver_connection
        if self._sqlite:
            places = ", ".join("?" * len(columns))
            driver.executemany(f'INSERT INTO "{name}" ({names}) VALUES ({places})', rows)
            return
        with driver.cursor().copy(f'COPY "{name}" ({names}) FROM STDIN') as copy:
            for row in rows:
                copy.write_row(row)

    def _store_states(self) -> None:
        place = "?" if self._sqlite else "%s"
        sql = f"UPDATE {Image.__tablename__} SET state = {place} WHERE id = {place}"
        self._connection.driver_connection.cursor().executemany(sql, self._states)

    def _set_sequences(self) -> None:
        for name in self._counts:
            if "id" in self._tables[name].columns:
                self._connection.driver_connection.execute(
                    f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM \"{name}\""
                )
