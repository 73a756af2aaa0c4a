"""Ids that differ only in spelling, found by the database."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, String, false, func, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from ddiseg.catalogue.identifiers import fold_id

#: What a fold, or "17" for "17.0", may take from the ends of an id.
_ENDS = "0., "


def spelled_like(column: ColumnElement[str | None], ids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition for an id that `fold_id` makes one with one of these, and for some others.

    Of an id in ASCII without spaces, normalising and folding change letters to lower case, and take
    zeros, full stops and commas from its ends; these come off both. Every other id is among the others.

    Args:
        ids: normalised.
    """
    if not ids:
        return false()
    plain = {fold_id(each).lower().strip(_ENDS) for each in ids}
    return or_(func.ddiseg_plain(column).in_(sorted(plain)), func.ddiseg_odd(column))


class _Plain(GenericFunction[str]):
    """An id without zeros, full stops and commas at its ends; it compares with lower case."""

    type = String()
    name = "ddiseg_plain"
    inherit_cache = True


class _Odd(GenericFunction[bool]):
    """Whether an id has a space in it, or a character beyond ASCII."""

    name = "ddiseg_odd"
    inherit_cache = True


@compiles(_Plain)
def _plain(element: _Plain, compiler: SQLCompiler, **options: Any) -> str:
    return f"trim({compiler.process(element.clauses, **options)}, '{_ENDS}') COLLATE NOCASE"


@compiles(_Plain, "postgresql")
def _plain_postgresql(element: _Plain, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return f"""lower(btrim({column}, '{_ENDS}') COLLATE "C")"""


@compiles(_Odd)
def _odd(element: _Odd, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    # Far faster than a pattern.
    return f"(instr({column}, ' ') OR length(CAST({column} AS BLOB)) <> length({column}))"


@compiles(_Odd, "postgresql")
def _odd_postgresql(element: _Odd, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return f"(strpos({column}, ' ') > 0 OR octet_length({column}) <> length({column}))"
