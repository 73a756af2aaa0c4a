"""Options that several commands take; each reads the same and means the same in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import click

_Option: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

BACKBONE: _Option = click.option(
    "--backbone",
    default="small",
    show_default=True,
    help="'small' ships with the package; or the path of a weights file.",
)

#: Of work that one device does.
DEVICE: _Option = click.option(
    "--device", default="cpu", show_default=True, help="Such as cpu, cuda or cuda:1."
)

PRECISION: _Option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="What convolutions are computed in.",
)


def devices(default: str) -> _Option:
    """`--device` of work that all GPUs of a machine can share."""
    return click.option(
        "--device",
        default=default,
        show_default=True,
        help="cpu, cuda, cuda:1, ...; auto is every GPU, or the CPU where there is none.",
    )


def seed(of: str = "everything random") -> _Option:
    """`--seed`, with what it decides in the help."""
    return click.option("--seed", default=0, show_default=True, help=f"Seed of {of}.")
