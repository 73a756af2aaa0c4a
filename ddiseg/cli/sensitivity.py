"""`ddiseg sensitivity`: how much the masks change with the light, by tone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import (
    Command,
    Settings,
    folded_lines,
    pass_settings,
    progress_bar,
)
from ddiseg.cli.params import device_options, parse_states
from ddiseg.outcomes import images_in_groups

if TYPE_CHECKING:
    from ddiseg.outcomes import FileOutcome


@click.command(cls=Command)
@click.option(
    "--exposure",
    "exposures",
    type=float,
    multiple=True,
    default=(-0.3, 0.3),
    show_default=True,
    help="Change of exposure in stops (EV); may be repeated.",
)
@click.option(
    "--temperature",
    "temperatures",
    type=float,
    multiple=True,
    default=(-500.0, 500.0),
    show_default=True,
    help="Change of colour temperature in kelvin; may be repeated.",
)
@click.option(
    "--per-tone",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Images of each tone, sampled by the seed.",
)
@click.option("--subset", help="Only images of this subset.")
@click.option(
    "--state", "states", multiple=True, help="Only images in this state; may be repeated."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@device_options
@pass_settings
def sensitivity(
    settings: Settings,
    exposures: tuple[float, ...],
    temperatures: tuple[float, ...],
    per_tone: int,
    subset: str | None,
    states: tuple[str, ...],
    seed: int,
    device: str | None,
    precision: str | None,
) -> None:
    """Measure how much masks change with the light, by tone.

    Predicts a sample of photographs as they are, a little darker and brighter, redder and bluer, and
    compares the lesion's masks: 1 is the same mask. No true masks are needed. Images that the
    model learned from are never measured. The change by one grey level is a control: no eye sees
    it, so what it moves is the model's own noise. The report shows the results. It runs on the
    training.device of 'ddiseg config show', in its training.precision.
    """
    from ddiseg.model.robustness import sensitivity as measure
    from ddiseg.workspace.workspace import default_actor

    wanted = parse_states(states)
    workspace = settings.open()
    training = workspace.training(device=device, precision=precision)
    refused: list[FileOutcome] = []
    with progress_bar("Predicting images in changed light") as progress:
        result = measure(
            workspace,
            default_actor(),
            exposures=exposures,
            temperatures=temperatures,
            per_tone=per_tone,
            subset=subset,
            states=wanted,
            seed=seed,
            device=training.device,
            precision=training.precision,
            refused=refused,
            progress=progress,
        )
    settings.emit(result, _table(result, refused))


def _table(result: dict[str, Any], refused: Sequence[FileOutcome]) -> str:
    from annotation_protocol.estimates import ClassEstimates

    lines = [
        f"{images_in_groups(result['n_images'], result['patients'])}, predicted by "
        f"{result['model']}; "
        f"{result['without_lesion']} of them without a lesion",
        f"left out: {result['learned_from']} that the model learned from, {result['same_group']} of their "
        f"groups, {len(refused)} refused",
        *folded_lines(refused, "images"),
        "",
        f"{'change':<17}{'tone':<9}{'IoU mean [95% interval]':<30}{'Dice mean [95% interval]':<30}"
        f"{'n images':<10}groups",
    ]
    for change, by_tone in result["by_change"].items():
        name = f"{change}*" if change == result["control"] else change
        for tone, s in by_tone.items():
            found = ClassEstimates.from_json(s)
            if found.n:
                iou, dice = (e.text(".3f") for e in (found.iou_mean, found.dice_mean))
                lines.append(f"{name:<17}{tone:<9}{iou:<30}{dice:<30}{found.n:<10}{found.groups}")
    return "\n".join([*lines, "* control: the model's own noise", "", *result["sentences"]])
