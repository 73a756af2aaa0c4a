"""`fedd --help`: all commands, by what a person does."""

from __future__ import annotations

from collections import Counter

from click.testing import CliRunner

from fedd.cli.main import FeddGroup, cli


def test_sections__hold_each_command_once() -> None:
    listed = Counter(name for names in FeddGroup.sections.values() for name in names)
    assert listed == Counter(dict.fromkeys(cli.commands, 1))


def test_help__lists_the_sections() -> None:
    lines = CliRunner().invoke(cli, ["--help"]).output.splitlines()
    start = lines.index("Reproduce the paper:")
    assert lines[start + 1].startswith("  reproduce  Run the experiments")
    assert lines[lines.index("Backbones:") + 1].startswith("  weights    Backbones")
