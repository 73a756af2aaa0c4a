"""Tables of figures in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tables

PAGE = "Before.\n\n<!-- table a -->\nold\n<!-- end of a -->\n\nAfter.\n"


def test_fill__only_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for _ in range(2):  # again gives the same
        tables.fill(page, "a", ("x", "y"), [("1", "2")])
        assert page.read_text() == (
            "Before.\n\n<!-- table a -->\n\n| x | y |\n| --- | --- |\n| 1 | 2 |\n\n"
            "<!-- end of a -->\n\nAfter.\n"
        )


def test_fill__no_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(ValueError, match="no place for the table b"):
        tables.fill(page, "b", ("x",), [])
    assert page.read_text() == PAGE
