"""The command line `fedd`: what concerns the model alone."""

from __future__ import annotations

from typing import Any

import click

from annotation_protocol import UserError
from annotation_protocol.command_line import SectionedGroup, Sections, missing_package

#: What a person does, and the commands for it, the most used first.
SECTIONS: Sections = {
    "Reproduce the paper": {
        "reproduce": (
            "fedd.cli.reproduce:reproduce",
            "Run the experiments of the FEDD paper and show the results beside the paper's.",
        ),
        "baseline": (
            "fedd.cli.baseline:baseline",
            "Train the UNets and CNNs that the paper compares FEDD against.",
        ),
        "classify": (
            "fedd.cli.classify:classify",
            "Tell malignant from benign photographs: research output, not a diagnosis.",
        ),
        "ablate": (
            "fedd.cli.explore:ablate",
            "Train and test on each block at each timestep, as the paper's figure 6 does.",
        ),
        "kmeans": (
            "fedd.cli.explore:kmeans",
            "Draw what each block of a backbone sees in the PHOTOGRAPHS.",
        ),
    },
    "Backbones": {
        "weights": ("fedd.cli.weights:weights", "Backbones that are fetched rather than shipped."),
        "pretrain": (
            "fedd.cli.pretrain:pretrain",
            "Train a backbone on unlabelled PHOTOGRAPHS (a folder), on the CPU.",
        ),
        "bench": (
            "fedd.cli.bench:bench",
            "Measure images a second, from JPEG to features, and what share of the device is used.",
        ),
    },
}


class FeddGroup(SectionedGroup):
    """The group of all commands, which ends with one line where an error can be mended."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if (message := missing_package(error)) is None:
                raise
            raise click.ClickException(message) from error


@click.group(
    cls=FeddGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="ddiseg")
def cli() -> None:
    """FEDD: frozen diffusion features and small probes."""


def main() -> None:
    """Entry point of the console script."""
    cli()
