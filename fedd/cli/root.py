"""The command line `fedd`: what concerns the model alone."""

from __future__ import annotations

from typing import Any

import click

from fedd.cli.pretrain import pretrain
from fedd.errors import FeddError


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FeddError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="ddiseg")
def cli() -> None:
    """FEDD: frozen diffusion features and small probes."""


cli.add_command(pretrain)


def main() -> None:
    """Entry point of the console script."""
    cli()
