"""All commands under one name.

Only click is imported here; a command imports what it needs when it runs, so that
`ddiseg --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import ClassVar

import click

from ddiseg.cli import (
    agreement,
    batch,
    demo,
    evaluate,
    export,
    images,
    importing,
    label,
    loop,
    model,
    models,
    report,
    review,
    sensitivity,
    serve,
    subset,
    workspace,
)
from ddiseg.cli.common import Group, common_options, run


class Sections(Group):
    """The group of all commands, which its help lists by section."""

    #: What a person does, and the commands for it: the most used first.
    sections: ClassVar[dict[str, tuple[str, ...]]] = {
        "Set up": ("init", "demo"),
        "Bring in": ("import", "masks"),
        "Label": ("label", "review", "batch", "subset", "skip", "reopen"),
        "Learn": ("refresh", "prelabel", "evaluate", "loop", "models", "serve", "sensitivity"),
        "Release": ("export", "verify"),
        "Look": ("status", "report", "show", "agreement"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands in the order of the sections."""
        return [name for names in self.sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, self.commands))
        room = formatter.width - 6 - widest
        for heading, names in self.sections.items():
            texts = [self.commands[name].get_short_help_str(room) for name in names]
            with formatter.section(heading):
                # Names of one length: the texts of all sections stand in one column.
                padded = [name.ljust(widest) for name in names]
                formatter.write_dl(list(zip(padded, texts, strict=True)))


@click.group(
    name="ddiseg",
    cls=Sections,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="ddiseg")
def cli() -> None:
    """From clinical photographs to a fair, reviewed, released segmentation dataset."""


for module in (
    *(workspace, importing, subset, batch, loop, serve, model, models, label, review, agreement),
    *(evaluate, sensitivity, images, export, report, demo),
):
    for command in module.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(cli))
