"""Text that a catalogue can hold, the same on every database.

SQLite stores any length and characters that PostgreSQL refuses. Were both not held to one rule, a catalogue
on SQLite could not be copied to PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Engine, String, event
from sqlalchemy.orm import InstrumentedAttribute

from ddiseg.errors import InputError
from ddiseg.outcomes import escaped, is_storable

#: Characters of a refused text that a message shows.
_SHOWN = 60


def text_fault(column: Column[Any] | InstrumentedAttribute[Any], text: str) -> str | None:
    """Return what keeps a text from being stored in a column; None where nothing does."""
    if not is_storable(text):
        return "holds a NUL character or half of a surrogate pair, which no database stores"
    longest = getattr(column.type, "length", None)
    if longest is not None and len(text) > longest:
        return f"is {len(text)} characters long; {longest} at most"
    return None


def check_text(
    what: str, column: Column[Any] | InstrumentedAttribute[Any], text: str | None
) -> None:
    """Raise InputError where a text can't be stored in a column.

    Args:
        what: the name of the text for people, such as "the name of the dataset".
    """
    if text is not None and (fault := text_fault(column, text)):
        raise InputError(f"{what} {fault}: {_shown(text)}")


def refuse_unstorable(engine: Engine) -> None:
    """Let an engine refuse rows with text that not every database stores, before it sends them."""
    event.listen(engine, "before_cursor_execute", _check_statement)


def _check_statement(
    _connection: Connection,
    _cursor: Any,
    _statement: str,
    _parameters: Any,
    context: Any,
    _many: bool,
) -> None:
    compiled = getattr(context, "compiled", None)
    if compiled is None or getattr(context, "ddiseg_checked", False):
        return  # many rows are sent in several parts
    context.ddiseg_checked = True
    if not (context.isinsert or context.isupdate):
        _check_search(getattr(context, "compiled_parameters", ()))
        return
    state = compiled.compile_state
    table = state.dml_table
    texts = {column.key: column for column in table.c if isinstance(column.type, String)}
    for row in context.compiled_parameters:
        for key, column in texts.items():
            value = row.get(key)
            if isinstance(value, str) and (fault := text_fault(column, value)):
                raise InputError(
                    f"{column.name} of a row for {table.name} {fault}: {_shown(value)}; nothing of this step was stored"
                )


def _check_search(searches: Sequence[Mapping[str, Any]]) -> None:
    """Raise InputError where text is looked for that no catalogue holds: a database fails on it."""
    for search in searches:
        for value in search.values():
            if isinstance(value, str) and not is_storable(value):
                raise InputError(
                    f"{_shown(value)} holds a NUL character or half of a surrogate pair, and no text of the "
                    "catalogue does: correct it"
                )


def _shown(text: str) -> str:
    return f"'{escaped(text[:_SHOWN])}{'...' if len(text) > _SHOWN else ''}'"
