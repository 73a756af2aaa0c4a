"""`fedd --help`: all commands, by what a person does."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from fedd.cli.main import SECTIONS, cli
from tests.fedd.conftest import fedd


def test_help__texts_are_those_of_the_commands() -> None:
    for section in SECTIONS.values():
        for name, (_, text) in section.items():
            assert cli.commands[name].name == name
            assert cli.commands[name].get_short_help_str(300) == text


def _commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)
        else:
            yield (*path, name), command


def test_empty_values__are_refused_by_every_command_in_one_line() -> None:
    """An unset shell variable is not a value, and not the same as no option."""
    checked = 0
    for path, command in _commands(cli):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                done = fedd(*path, f"{parameter.opts[0]}=")
                assert done.exit_code == 2, (path, parameter.opts)
                said = " ".join(done.stderr.splitlines()[3:])
                assert said.startswith(f"Error: {parameter.opts[0]}"), said
                assert "is empty: is a shell variable unset? Give a value" in said
                checked += 1
    assert checked > 50


def test_empty_values__of_an_argument() -> None:
    done = fedd("classify", "predict", "", "photographs", "--out", "x.csv")
    assert done.exit_code == 2
    assert "is empty: is a shell variable unset? Give a value." in done.stderr


def test_help__lists_the_sections() -> None:
    lines = fedd("--help").output.splitlines()
    start = lines.index("Reproduce the paper:")
    assert lines[start + 1].startswith("  reproduce  Run the experiments")
    assert lines[lines.index("Backbones:") + 1].startswith("  weights    Backbones")


def test_ctrl_c__says_that_the_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedd.weights.files.load_backbone", interrupted)
    done = fedd("reproduce", "--small", "--out", "nowhere")
    assert done.exit_code == 130
    assert "Stopped. What was finished is kept" in done.stderr
    assert "Aborted" not in done.stderr
