"""`ddiseg refresh` and `ddiseg prelabel`: learn from accepted masks, paint the rest."""

from __future__ import annotations

import click

from ddiseg.cli.base import Command, Settings, pass_settings, progress_bar, report_outcomes


@click.command(cls=Command)
@click.option(
    "--backbone",
    default="small",
    show_default=True,
    help="'small' ships with the package; or the path of a weights file (safetensors, or OpenAI's .pt).",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the training.")
@pass_settings
def refresh(settings: Settings, backbone: str, seed: int) -> None:
    """Train the model's probes on all accepted masks.

    The result is a new model version (fedd-1, fedd-2, ...) with its training set, settings and
    seed on record. Nothing is trained where nothing changed.
    """
    from ddiseg.loop.model import refresh as train
    from ddiseg.workspace import default_actor

    workspace = settings.open()
    with progress_bar("Training probes, steps") as progress:
        done = train(workspace, default_actor(), backbone, seed, progress=progress)
    version = done.version
    by_tone = ", ".join(f"{tone} {n}" for tone, n in version.metrics["by_tone"].items())
    if done.absent_classes:
        click.echo(
            f"Note: the accepted masks show nothing, or next to nothing, of {', '.join(done.absent_classes)}: "
            f"{version.name} never paints {'it' if len(done.absent_classes) == 1 else 'them'}.",
            err=True,
        )
    data = {
        "model": version.name,
        "new": done.new,
        "backbone": version.backbone,
        "training_masks": version.training_masks,
        "absent_classes": list(done.absent_classes),
        "metrics": version.metrics,
    }
    if done.new:
        text = f"{version.name}: learned from {len(version.training_masks)} accepted masks ({by_tone}) in {version.metrics['seconds']} s"
    else:
        text = f"{version.name} is unchanged: it learned from exactly these {len(version.training_masks)} masks"
    settings.emit(data, text)


@click.command(cls=Command)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--subset", help="Only images of this subset.")
@click.option(
    "--state", "states", multiple=True, help="Only images in this state; may be repeated."
)
@click.option("--strict", is_flag=True, help="Fail if any image is refused.")
@pass_settings
def prelabel(
    settings: Settings,
    images: tuple[str, ...],
    subset: str | None,
    states: tuple[str, ...],
    strict: bool,
) -> None:
    """Paint images with the newest model version.

    Without arguments: every image that is neither accepted nor skipped. With names, --subset or
    --state: exactly those, accepted ones too (to measure the model against them). Images that this
    version has painted are unchanged.
    """
    from ddiseg.catalogue import State
    from ddiseg.errors import InputError
    from ddiseg.loop.model import SETTLED
    from ddiseg.loop.model import prelabel as paint

    workspace = settings.open()
    catalogue = workspace.catalogue
    try:
        wanted = [State(s) for s in states] or [s for s in State if subset or s not in SETTLED]
    except ValueError as error:
        raise InputError(f"{error}; states are: {', '.join(State)}") from error
    if subset is not None:
        catalogue.subsets.members(subset)
    if images:
        if subset or states:
            raise click.UsageError("Give images by name, or --subset and --state, not both.")
        chosen = catalogue.images.select(ids=[catalogue.images.find(name).id for name in images])
    else:
        chosen = catalogue.images.select(subset=subset, states=wanted)
    with progress_bar("Painting images") as progress:
        version, outcomes = paint(workspace, chosen, progress)
    report_outcomes(
        settings,
        outcomes,
        "images",
        strict=strict,
        extra={"model": version.name},
        lines=[f"model {version.name}"],
    )


COMMANDS = (refresh, prelabel)
