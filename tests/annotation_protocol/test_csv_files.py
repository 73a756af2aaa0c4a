from __future__ import annotations

import csv
import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_protocol.csv_files import csv_text, escape_cell, unescape_cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "-", "-x"]
)
def test_escape__texts_that_a_spreadsheet_would_run(text: str) -> None:
    assert escape_cell(text) == f"'{text}"
    assert unescape_cell(f"'{text}") == text


@pytest.mark.parametrize(
    "value", [-0.5, -3, 1e-9, True, None, "-0.5", "+3", "-1e-05", "a-b", "'a", ""]
)
def test_escape__numbers_and_harmless_texts_stay(value: object) -> None:
    assert escape_cell(value) is value


@pytest.mark.property
@given(st.lists(st.text(alphabet="'=+-@\t\ra1.e\n\",", max_size=6), min_size=1))
def test_round_trip(cells: list[str]) -> None:
    [read] = csv.reader(io.StringIO(csv_text([cells]), newline=""))
    assert [unescape_cell(cell) for cell in read] == cells
    assert not any(cell[:1] in "=@\t\r" for cell in read if cell)


def test_every_table_is_written_by_this_module() -> None:
    """A writer of its own would write formulas."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["git", "grep", "-lE", r"csv\.(writer|DictWriter)", "--", "*.py", ":!tests"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() in (["annotation_protocol/csv_files.py"], [])
