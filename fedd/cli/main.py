"""The command line `fedd`: what concerns the model alone."""

from __future__ import annotations

from typing import Any, ClassVar

import click

from annotation_protocol import UserError
from fedd.cli.baseline import baseline
from fedd.cli.bench import bench
from fedd.cli.classify import classify
from fedd.cli.explore import ablate, kmeans
from fedd.cli.pretrain import pretrain
from fedd.cli.reproduce import reproduce
from fedd.cli.weights import weights


class FeddGroup(click.Group):
    """The group of all commands, which its help lists by section."""

    #: What a person does, and the commands for it: the most used first.
    sections: ClassVar[dict[str, tuple[str, ...]]] = {
        "Reproduce the paper": ("reproduce", "baseline", "classify", "ablate", "kmeans"),
        "Backbones": ("weights", "pretrain", "bench"),
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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=FeddGroup,
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
