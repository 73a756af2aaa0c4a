"""Options, arguments and messages that several commands share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

from annotation_protocol.command_line import RejectsEmptyValues
from fedd.weights.names import DEFAULT


class Command(RejectsEmptyValues):
    """A command of `fedd`."""


class Group(RejectsEmptyValues, click.Group):
    """A group of commands of `fedd`."""

    command_class = Command


_Option: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)

#: A share that is neither nothing nor everything.
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)

BACKBONE: _Option = click.option(
    "--backbone",
    default=DEFAULT,
    show_default=True,
    help="'small' and 'lite0' are installed with the package; others by name or path; + joins them.",
)

#: For work on one device.
DEVICE: _Option = click.option(
    "--device", default="cpu", show_default=True, help="Such as cpu, cuda or cuda:1."
)

PRECISION: _Option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"], case_sensitive=False),
    default="auto",
    show_default=True,
    help="Number type of convolutions; auto is bfloat16 where a GPU has it and was tested to give the "
    "same masks, else float32.",
)

ENSEMBLE: _Option = click.option(
    "--ensemble",
    type=click.Choice(["vote", "mean"], case_sensitive=False),
    default="vote",
    show_default=True,
    help="How FEDD's members decide a pixel: by majority, as in ddpm-segmentation, or by the mean of "
    "their probabilities.",
)

TABLE: _Option = click.option(
    "--table",
    type=FILE,
    help="CSV with the photographs' names, tone, patient and malignant.  [default: DDI's, if present]",
)


def devices(default: str) -> _Option:
    """Return `--device` for work that all GPUs of a machine can share."""
    return click.option(
        "--device",
        default=default,
        show_default=True,
        help="cpu, cuda, cuda:1, ...; auto is every GPU, or the CPU if there is none.",
    )


def seed(of: str = "everything random") -> _Option:
    """Return `--seed`, with what it determines in the help."""
    return click.option("--seed", default=0, show_default=True, help=f"Seed of {of}.")


def out(help: str, kind: click.Path = NEW_FILE) -> _Option:
    """Return `--out`, the file or folder to write."""
    return click.option("--out", type=kind, required=True, help=help)


def count(name: str, default: int, help: str, *, least: int = 1) -> _Option:
    """Return an option for a whole number of `least` or more."""
    kind = click.IntRange(min=least)
    return click.option(name, default=default, show_default=True, type=kind, help=help)


def blocks(default: str) -> _Option:
    """Return `--blocks` for an exploration, with its default in the help."""
    text = f"Decoder blocks.  [default: {default}]"
    return click.option("--blocks", metavar="N,N,...", callback=numbers, help=text)


def timesteps(default: str, help: str, *, shown: str | bool = True) -> _Option:
    """Return `--timesteps` for an exploration."""
    shape: Any = {"metavar": "N,N,...", "callback": numbers}
    return click.option("--timesteps", **shape, default=default, show_default=shown, help=help)


def progress(what: str) -> Callable[[int, int], None]:
    """Return a Progress that says on stderr how much is done, and how long the rest will take.

    The time is that of what was done since the first call; what an earlier run did is not counted.
    """
    started: list[tuple[float, int]] = []

    def show(done: int, total: int) -> None:
        from fedd.network.cost import duration

        now = time.monotonic()
        started.append((now, done))
        since, first = started[0]
        left = ""
        if first < done < total:
            left = f", about {duration((now - since) / (done - first) * (total - done))} left"
        click.echo(f"{done} of {total} {what}{left}", err=True)

    return show


def numbers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Parse a comma-separated list of whole numbers, without repeats."""
    if value is None:
        return None
    try:
        return tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of whole numbers, such as 2,4,6", context, parameter
        ) from error
