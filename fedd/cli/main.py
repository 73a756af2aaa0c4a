"""The command line `fedd`: everything about the model alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from annotation_protocol import UserError
from annotation_protocol.command_line import SectionedGroup, Sections, missing_package

#: What a person does, and the commands for it, the most used first.
SECTIONS: Sections = {
    "Reproduce the paper": {
        "reproduce": (
            "fedd.cli.reproduce:reproduce",
            "Run the experiments of the FEDD paper and compare the results with the paper's.",
        ),
        "baseline": (
            "fedd.cli.baseline:baseline",
            "Train the UNets and CNNs that the paper compares FEDD against.",
        ),
        "classify": (
            "fedd.cli.classify:classify",
            "Classify photographs as malignant or benign: research output, not a diagnosis.",
        ),
        "ablate": (
            "fedd.cli.explore:ablate",
            "Train and test on each block at each timestep, as in the paper's figure 6.",
        ),
        "kmeans": (
            "fedd.cli.explore:kmeans",
            "Draw each block's activations and their K-means clusters for the PHOTOGRAPHS.",
        ),
    },
    "Backbones": {
        "weights": ("fedd.cli.weights:weights", "Backbones that are fetched rather than shipped."),
        "pretrain": (
            "fedd.cli.pretrain:pretrain",
            "Train a backbone on unlabelled PHOTOGRAPHS (a folder).",
        ),
        "bench": (
            "fedd.cli.bench:bench",
            "Measure images per second, from JPEG to features, and the used share of the device.",
        ),
    },
}


class FeddGroup(SectionedGroup):
    """The group of all commands; shows log messages, and an error as one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _log_to_stderr():
                return super().invoke(ctx)
        except (click.Abort, KeyboardInterrupt) as error:
            click.echo(
                "\nStopped. What was finished is kept; the same command goes on from there.",
                err=True,
            )
            raise click.exceptions.Exit(130) from error
        except UserError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if (message := missing_package(error)) is None:
                raise
            raise click.ClickException(message) from error


class _EchoHandler(logging.Handler):
    """Writes log messages to stderr as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show what fedd logs, from INFO up, while a command runs."""
    logger, handler = logging.getLogger("fedd"), _EchoHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


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
