"""Numbers in the JSON of other tools, where 90 may be written as 90.0 or "90"."""

from __future__ import annotations

import math
import re
from typing import Any

#: A whole number as text, as in "90" and "90.0".
_WRITTEN_NUMBER = re.compile(r"-?\d{1,18}(\.0{1,9})?", re.ASCII)


def whole_number(value: object) -> int | None:
    """Return a whole number, however it is written; None for anything else."""
    if isinstance(value, str) and _WRITTEN_NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def whole_numbers(values: Any) -> Any:
    """Return a list with its numbers as whole ones; anything that is no such list as it is."""
    if not isinstance(values, list) or all(type(value) is int for value in values):
        return values
    found = [whole_number(value) for value in values]
    return values if None in found else found


def finite_number(value: object) -> float | None:
    """Return a number, however it is written; None for anything else, nan and infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """Return (height, width) as a file of another tool gives it, None where that is no size."""
    rows, columns = whole_number(height), whole_number(width)
    if rows is None or columns is None or rows <= 0 or columns <= 0:
        return None
    return rows, columns
