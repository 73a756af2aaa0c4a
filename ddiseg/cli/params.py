"""Options that several commands take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from annotation_protocol import load_protocol

#: The tone groups in the protocol's order.
TONES = [tone.name for tone in load_protocol().tones]

TONE_HELP = (
    "Draw from this tone group; may be repeated.  [default: all; unknown only where more than a tenth "
    "of the images has no tone]"
)

device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda or cuda:1; auto is all GPUs, or the CPU where there is none.",
)

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
        help="Draw a batch of N images whenever nobody has work left, and give it to people. What may "
        "be drawn, or 20 times N of it, is painted first.  [default: none]",
    ),
    click.option(
        "--control",
        default=0.0,
        metavar="PERCENT",
        help="For batches that --draw drew: withhold the prediction from this share, as 'ddiseg label "
        "push' does.  [default: 0]",
    ),
    click.option(
        "--readers",
        default=1,
        metavar="N",
        help="For batches that --draw drew: people who annotate each image, each without seeing the "
        "others' work.  [default: 1]",
    ),
    click.option(
        "--sample",
        default=100.0,
        metavar="PERCENT",
        help="Only this share of those images, the same of every tone, gets --readers N.  "
        "[default: 100]",
    ),
    click.option(
        "--review-sample",
        default=100.0,
        metavar="PERCENT",
        help="Spot check: give only this share of the submitted masks to reviewers, as 'ddiseg review "
        "push --sample' does. What a spot check left out is left to that command.  [default: 100]",
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
        readers: int,
        sample: float,
        review_sample: float,
        hide_tone: bool,
        backbone: str,
        seed: int,
        device: str,
        **others: Any,
    ) -> None:
        from ddiseg.labelstudio.push import PushOptions
        from ddiseg.loop.round import RoundOptions

        options = RoundOptions(
            every=every,
            max_age=max_age,
            draw=draw,
            tolerance=tolerance,
            backbone=backbone,
            device=device,
            seed=seed,
            review_sample=review_sample,
            push=PushOptions(
                control=control,
                readers=readers,
                sample=sample,
                show_tone=not hide_tone,
                seed=seed,
            ),
        )
        command(*args, **others, options=options)

    for option in reversed(_OPTIONS):
        option(with_options)
    return with_options
