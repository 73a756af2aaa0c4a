"""The options of rounds, for the commands that run them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

from ddiseg.cli.model import device_option

_OPTIONS = (
    click.option(
        "--every",
        default=10,
        show_default=True,
        metavar="N",
        help="Refresh when N accepted masks wait to be learned from.",
    ),
    click.option(
        "--max-age",
        type=float,
        default=7.0,
        show_default=True,
        metavar="DAYS",
        help="Refresh with a single new mask where the newest version is that old.",
    ),
    click.option(
        "--tolerance",
        default=0.02,
        show_default=True,
        help="By how much a tone's lower bound of IoU may fall before the gate refuses a version.",
    ),
    click.option(
        "--draw",
        default=0,
        metavar="N",
        help="Draw a batch of N images whenever nobody has work left.  [default: none]",
    ),
    click.option(
        "--control",
        default=0.0,
        metavar="PERCENT",
        help="Withhold the prediction from this share of new images, as 'ddiseg label push' does.",
    ),
    click.option(
        "--hide-tone",
        is_flag=True,
        help="Leave the tone out of the tasks: annotators work blind to it.",
    ),
    click.option("--backbone", default="small", show_default=True, help="As for 'ddiseg refresh'."),
    click.option("--seed", default=0, show_default=True, help="Seed of training and draws."),
    device_option,
)


def round_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a round; the command gets them as `options`, a RoundOptions."""

    @functools.wraps(command)
    def with_options(
        *args: Any,
        every: int,
        max_age: float,
        tolerance: float,
        draw: int,
        control: float,
        hide_tone: bool,
        backbone: str,
        seed: int,
        device: str,
        **others: Any,
    ) -> None:
        from ddiseg.labelstudio.push import PushOptions
        from ddiseg.rounds.round import RoundOptions

        options = RoundOptions(
            every=every,
            max_age=timedelta(days=max_age),
            draw=draw,
            tolerance=tolerance,
            backbone=backbone,
            device=device,
            seed=seed,
            push=PushOptions(control=control, show_tone=not hide_tone, seed=seed),
        )
        command(*args, **others, options=options)

    for option in reversed(_OPTIONS):
        option(with_options)
    return with_options
