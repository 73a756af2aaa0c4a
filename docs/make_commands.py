"""The command reference: `python docs/make_commands.py > docs/commands.md` writes it anew.

A test keeps the page and the commands the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from inspect import cleandoc

import click

from annotation_protocol.command_line import SectionedGroup
from ddiseg.cli.common import common_options
from ddiseg.cli.main import cli
from fedd.cli.main import cli as fedd_cli

INTRODUCTION = """# Commands

Every `ddiseg` command takes these options, before its name or after it:

{common}

Results go to standard output, as text or as one JSON document (`--output json`); progress, notes
and errors go to standard error. The exit status is 0, 1 for an error, 2 for wrong usage, and 130
where a person stopped it. Every command can be run again: what is done is reported as unchanged.

An IMAGE is named by its file name (`000001.png`), the name without its ending, `DATASET:NAME`
where two datasets share it, or `#ID`.

Shell completion, for bash (`zsh` and `fish` alike):

    eval "$(_DDISEG_COMPLETE=bash_source ddiseg)"
"""


def page() -> str:
    """The whole page, as Markdown."""
    assert isinstance(cli, SectionedGroup)
    assert isinstance(fedd_cli, SectionedGroup)
    programs = _program(cli, "ddiseg") + _program(fedd_cli, "fedd")
    return INTRODUCTION.format(common=_options(common_options())) + programs


def _program(group: SectionedGroup, program: str) -> str:
    """The sections of a program, as its --help has them, with their commands."""
    text = ""
    for heading, names in group.sections.items():
        text += f"\n## {program}: {heading}\n"
        for name, command in _commands(group, program, names):
            text += _section(name, command)
    return text


def _commands(
    group: click.Group, prefix: str, names: Iterable[str]
) -> Iterator[tuple[str, click.Command]]:
    for name in names:
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _commands(
                command, f"{prefix} {name}", command.list_commands(click.Context(command))
            )
        else:
            yield f"{prefix} {name}", command


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    common = {p.name for p in common_options()}
    own = [p for p in command.params if p.name not in common]
    text = "\n".join(line.rstrip() for line in _paragraphs(command.help or ""))
    return f"\n### {name}\n\n    {name} {usage}\n\n{text}\n{_options(own)}\n"


def _paragraphs(text: str) -> Iterator[str]:
    """Help text as Markdown: click's unwrapped paragraphs (after a \\b line) become code."""
    for paragraph in cleandoc(text).split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0] == "\b":
            yield "\n".join(f"    {line.strip()}" for line in lines[1:])
        else:
            yield " ".join(line.strip() for line in lines)
        yield ""


def _options(parameters: list[click.Parameter]) -> str:
    rows = []
    for parameter in parameters:
        if isinstance(parameter, click.Option):
            record = parameter.get_help_record(click.Context(click.Command("")))
            if record is not None:
                rows.append(f"- `{record[0]}`: {' '.join(record[1].split())}")
    return "\n".join(rows)


if __name__ == "__main__":
    click.echo(page(), nl=False)
