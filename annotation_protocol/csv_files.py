"""Tables as CSV that a spreadsheet shows as text: no cell is run as a formula.

Excel, LibreOffice and Google Sheets take a cell that begins with = + - @, a tab or a carriage return for
a formula (OWASP, "CSV Injection"). Such a text gets an apostrophe before it, which spreadsheets do not
show. Numbers stay numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: A text that would be run, or that was escaped already: so that each escape can be undone.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")

_NUMBER = re.compile(r"[+\-]?\d+(\.\d+)?([eE][+\-]?\d+)?")

#: Characters for which a cell is put into quotes (RFC 4180, 2).
_QUOTED = re.compile('[,"\r\n]')

QUOTE, EMPTY = '"', '""'  #: a row of one empty cell is no blank line


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV with cells that are safe to open; None is an empty cell."""
    return "".join(f"{','.join(map(_cell, row)) or EMPTY}\n" for row in rows)


def _cell(value: object) -> str:
    # The csv module leaves a carriage return unquoted, and takes it for the end of the row.
    text = "" if value is None else str(escape_cell(value))
    return f'"{text.replace(QUOTE, QUOTE * 2)}"' if _QUOTED.search(text) else text


def escape_cell(value: object) -> object:
    """Return a text with an apostrophe before it where a spreadsheet would run it; else the value."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unescape_cell(cell: str) -> str:
    """Return the text that `escape_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
