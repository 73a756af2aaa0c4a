"""`ddiseg --help`: all commands, by what a person does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ddiseg.cli.main import SECTIONS, cli

Run = Callable[..., Any]


def test_help__texts_are_those_of_the_commands() -> None:
    for section in SECTIONS.values():
        for name, (_, text) in section.items():
            assert cli.commands[name].name == name
            assert cli.commands[name].get_short_help_str(300) == text


def test_help__imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from ddiseg.cli.common import run; from ddiseg.cli.main import cli; run(cli, ['--help'])\n"
        "print([m for m in sys.modules if m.partition('.')[0] in {'torch', 'numpy', 'sqlalchemy', 'PIL', 'fedd'}"
        " or m.startswith('ddiseg.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['ddiseg.cli.common', 'ddiseg.cli.main']"


def test_help__lists_the_sections_in_order(ddiseg: Run) -> None:
    lines = ddiseg("--help").out.splitlines()
    start = lines.index("Set up:")
    headings = [line for line in lines[start:] if line and not line.startswith(" ")]
    assert headings == ["Set up:", "Import:", "Label:", "Model:", "Release:", "Inspect:"]
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
