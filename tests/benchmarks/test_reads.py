"""Reads of the test parts are logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import reads
from benchmarks.reads import TestRead


def test_line__one_row_of_a_table() -> None:
    read = TestRead("choose | the\nthreshold", "python -m benchmarks.clicks")
    line = read.line("0.61 | 0.62", "abc1234", "2026-11-29")
    assert line == (
        "| 2026-11-29 | abc1234 | choose / the threshold | `python -m benchmarks.clicks` "
        "| 0.61 / 0.62 |"
    )


def test_log__appends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "0033.md"
    log.write_text("| Day |\n|---|\n")
    TestRead("why", "command").log("0.5", log)
    assert log.read_text().startswith("| Day |\n|---|\n| 2")
    assert log.read_text().endswith("| why | `command` | 0.5 |\n")
    assert log.read_text().splitlines()[-1] in capsys.readouterr().out


def test_read__without_a_reason() -> None:
    with pytest.raises(ValueError, match="say which"):
        TestRead("  ", "command")


def test_words__no_reason_and_no_folders() -> None:
    words = ["--rows", "small", "--read-test", "before", "--state", "/tmp/x/state"]
    assert reads._words(words) == "--rows small --state state"
