"""The command line `fedd`: what concerns the model alone."""

from __future__ import annotations

from typing import Any

import click

from fedd.cli.baseline import baseline
from fedd.cli.bench import bench
from fedd.cli.classify import classify
from fedd.cli.explore import ablate, kmeans
from fedd.cli.pretrain import pretrain
from fedd.cli.reproduce import reproduce
from fedd.cli.weights import weights
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
cli.add_command(bench)
cli.add_command(kmeans)
cli.add_command(ablate)
cli.add_command(classify)
cli.add_command(baseline)
cli.add_command(weights)
cli.add_command(reproduce)


def main() -> None:
    """Entry point of the console script."""
    cli()
