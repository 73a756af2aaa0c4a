"""All commands under one name.

Only click is imported here; a command imports what it needs when it runs, so that
`ddiseg --help` answers at once.
"""

from __future__ import annotations

import sys

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
    subsets,
    workspace,
)
from ddiseg.cli.base import Group, common_options, run


@click.group(
    name="ddiseg",
    cls=Group,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="ddiseg")
def cli() -> None:
    """From clinical photographs to a fair, reviewed, released segmentation dataset."""


for module in (
    *(workspace, importing, subsets, batch, loop, serve, model, models, label, review, agreement),
    *(evaluate, sensitivity, images, export, report, demo),
):
    for command in module.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(cli))
