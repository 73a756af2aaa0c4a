"""`ddiseg --help`: all commands, by what a person does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ddiseg.cli.main import Sections, cli

Run = Callable[..., Any]


def test_sections__hold_each_command_once() -> None:
    listed = Counter(name for names in Sections.sections.values() for name in names)
    assert listed == Counter(dict.fromkeys(cli.commands, 1))


def test_help__lists_the_sections_in_order(ddiseg: Run) -> None:
    lines = ddiseg("--help").out.splitlines()
    start = lines.index("Set up:")
    headings = [line for line in lines[start:] if line and not line.startswith(" ")]
    assert headings == ["Set up:", "Bring in:", "Label:", "Learn:", "Release:", "Look:"]
    commands = [line.split()[0] for line in lines[start:] if line.startswith(" ")]
    assert commands[:5] == ["init", "demo", "import", "masks", "label"]
    assert "Commands:" not in lines


def test_help__aligns_the_texts_of_all_sections(ddiseg: Run) -> None:
    lines = ddiseg("--help").out.splitlines()
    rows = [line for line in lines[lines.index("Set up:") :] if line.startswith(" ")]
    widest = max(map(len, cli.commands))
    assert all(line[2 + widest : 4 + widest] == "  " and line[4 + widest] != " " for line in rows)


def test_help__of_a_group_lists_the_most_used_first(ddiseg: Run) -> None:
    lines = ddiseg("label", "--help").out.splitlines()
    commands = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :]]
    assert commands[:3] == ["push", "pull", "up"]
