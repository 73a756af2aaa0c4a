"""Strategies of odd input: valid JSON, bytes and tables with a few things wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import strategies as st

#: Place in a JSON document: keys and indices from its root.
Path: TypeAlias = tuple[str | int, ...]

#: Values that other programs, or people, put where another one belongs.
ODD_VALUES = st.one_of(
    st.sampled_from(
        [
            None, True, False, "", " ", "-1", "0.5", "nan", "http://[::1", "http://[::1/a.png", "../../a.png", "\x00",
            "a.png", "1e400", [], {}, [[]], [None], 0, -1, -0.5, 0.25, 1.5, 2**31, 2**63, 2**70, 10**400, 1e308,
            math.nan, math.inf, -math.inf, "\ud800", {"counts": "", "size": [16, 24]}, {"counts": [-5, 400], "size": [16, 24]},
        ]
    ),
    st.integers(-3, 300),
    st.floats(-10, 300),
    st.text(max_size=12),
    st.lists(st.integers(-5, 40), max_size=8),
)  # fmt: skip


def places(document: Any, root: Path = ()) -> list[Path]:
    """Return the place of each value in a JSON document, the document itself left out."""
    if isinstance(document, dict):
        children: list[tuple[str | int, Any]] = list(document.items())
    elif isinstance(document, list):
        children = list(enumerate(document))
    else:
        return []
    return [p for key, value in children for p in ((*root, key), *places(value, (*root, key)))]


@st.composite
def mutated(draw: Callable[..., Any], documents: st.SearchStrategy[Any], most: int = 3) -> Any:
    """Draw a JSON document with up to `most` changes: a value replaced, removed, repeated or wrapped."""
    document = copy.deepcopy(draw(documents))
    for _ in range(draw(st.integers(0, most))):
        found = places(document)
        if not found:
            break
        *way, key = draw(st.sampled_from(found))
        parent = document
        for step in way:
            parent = parent[step]
        change = draw(
            st.sampled_from(
                ["replace", "replace", "replace", "remove", "repeat", "text", "wrap", "float"]
            )
        )
        if change == "replace":
            parent[key] = draw(ODD_VALUES)
        elif change == "remove":
            del parent[key]
        elif change == "repeat" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif change == "text":
            parent[key] = str(parent[key])
        elif change == "wrap":
            parent[key] = [parent[key]]
        elif change == "float" and isinstance(parent[key], int):
            parent[key] = float(parent[key]) if abs(parent[key]) < 2**53 else parent[key]
    return document


@st.composite
def damaged(draw: Callable[..., Any], contents: st.SearchStrategy[bytes], most: int = 4) -> bytes:
    """Draw bytes with up to `most` changes: a byte replaced, a run removed, repeated, or cut off."""
    data = bytearray(draw(contents))
    for _ in range(draw(st.integers(0, most))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        change = draw(
            st.sampled_from(["byte", "byte", "byte", "remove", "repeat", "cut", "insert"])
        )
        if change == "byte":
            data[at] = draw(st.integers(0, 255))
        elif change == "remove":
            del data[at : at + draw(st.integers(1, 8))]
        elif change == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif change == "cut":
            del data[at:]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)
