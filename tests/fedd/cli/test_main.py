"""`fedd --help`: all commands, by what a person does."""

from __future__ import annotations

from fedd.cli.main import SECTIONS, cli
from tests.fedd.conftest import fedd


def test_help__texts_are_those_of_the_commands() -> None:
    for section in SECTIONS.values():
        for name, (_, text) in section.items():
            assert cli.commands[name].name == name
            assert cli.commands[name].get_short_help_str(300) == text


def test_help__lists_the_sections() -> None:
    lines = fedd("--help").output.splitlines()
    start = lines.index("Reproduce the paper:")
    assert lines[start + 1].startswith("  reproduce  Run the experiments")
    assert lines[lines.index("Backbones:") + 1].startswith("  weights    Backbones")
