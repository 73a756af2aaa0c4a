"""`ddiseg --help`: all commands, by what a person does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

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
    assert headings == [
        "Set up:",
        "Import:",
        "Label:",
        "Model:",
        "Release:",
        "Keep safe:",
        "Inspect:",
    ]
    commands = [line.split()[0] for line in lines[start:] if line.startswith(" ")]
    assert commands[:5] == ["init", "demo", "config", "import", "import-coco"]
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


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)
        else:
            yield " ".join([*path, name]), command


def test_commands__have_at_most_eight_options_of_their_own() -> None:
    common = {"workspace", "output", "debug", "strict"}
    own = {
        name: [
            option.name
            for option in command.params
            if isinstance(option, click.Option) and not option.hidden and option.name not in common
        ]
        for name, command in _commands(cli)
    }
    assert len(own) > 40
    assert {name: options for name, options in own.items() if len(options) > 8} == {}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("import", {"--as", "--images", "--annotator", "--synthetic"}),
        ("refresh", {"--malignancy", "--hold-out", "--tolerance", "--max-drop", "--backbone"}),
        ("prelabel", {"--malignancy", "--device"}),
        ("evaluate", {"--malignancy", "--paper-threshold"}),
        ("loop run", {"--tolerance", "--control", "--review-sample", "--seed", "--every"}),
        ("label push", {"--control", "--readers", "--sample", "--seed", "--hide-tone"}),
        ("batch draw", {"--towards"}),
    ],
)
def test_old_spellings__are_still_understood(name: str, options: set[str]) -> None:
    command = dict(_commands(cli))[name]
    hidden = [p for p in command.params if isinstance(p, click.Option) and p.hidden]
    assert options <= {spelling for option in hidden for spelling in option.opts}
