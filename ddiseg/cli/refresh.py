"""`ddiseg refresh`: train the model on accepted masks."""

from __future__ import annotations

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_stages
from ddiseg.cli.malignancy import hold_out_option, malignancy_option, refresh_malignancy
from ddiseg.cli.params import device_option


@click.command(cls=Command)
@click.option(
    "--backbone",
    default="small",
    show_default=True,
    help="'small' ships with the package, 'imagenet-256' is the paper's (fedd weights fetch); or the path of a weights file (safetensors, or OpenAI's .pt).",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the training.")
@click.option(
    "--from-scratch",
    is_flag=True,
    help="Do not go on from the version in use, though it learned from some of the same masks.",
)
@click.option(
    "--cache-gb",
    type=click.FloatRange(min=0),
    default=4.0,
    show_default=True,
    help="Size limit of the activations kept in the workspace's cache/features; 0 keeps none.",
)
@click.option(
    "--gate",
    is_flag=True,
    help="From now on hold out about every fifth patient's masks, as 'ddiseg loop run' does.",
)
@click.option(
    "--tolerance",
    default=0.02,
    show_default=True,
    help="By how much a tone's lower bound of IoU may fall before the gate refuses a version.",
)
@device_option
@malignancy_option
@hold_out_option
@pass_settings
def refresh(
    settings: Settings,
    backbone: str,
    seed: int,
    from_scratch: bool,
    cache_gb: float,
    gate: bool,
    tolerance: float,
    device: str,
    malignancy: bool,
    hold_out: tuple[str, ...],
) -> None:
    """Train the model on accepted masks.

    The result is a new model version (fedd-1, fedd-2, ...) with its training set, settings and
    seed on record. Nothing is trained where nothing changed. With 20 masks or more, every fifth is
    kept out of the training (whole patients, the tones alike), to see when to stop and how sure the
    model may be. The activations of images with an accepted mask are kept in cache/features in the
    workspace, which is not part of its data: it may be deleted at any time, and a backup does not need it.

    With --gate, and ever after, about every fifth patient's masks are never learned from: on them
    the new version is compared with the one in use, which stays in use where the new one is worse
    overall or for any tone. With --malignancy a classifier
    (malignancy-1, ...) is trained instead, on all images that are known to be malignant or benign.
    """
    from ddiseg.model.train import refresh as train
    from ddiseg.workspace.workspace import default_actor

    if malignancy and (from_scratch or gate):
        raise click.UsageError("--from-scratch and --gate do not go with --malignancy.")
    if malignancy:
        refresh_malignancy(settings, backbone, seed, hold_out, device)
        return
    if hold_out:
        raise click.UsageError("--hold-out goes with --malignancy.")
    workspace = settings.open()
    with progress_stages() as stages:
        done = train(
            workspace,
            default_actor(),
            backbone,
            seed,
            stages=stages,
            from_scratch=from_scratch,
            cache_limit=int(cache_gb * 1e9),
            device=device,
            hold_out=gate,
            tolerance=tolerance,
        )
    version = done.version
    by_tone = ", ".join(f"{tone} {n}" for tone, n in version.metrics["by_tone"].items())
    if done.absent_classes:
        click.echo(
            f"Note: the accepted masks show nothing, or next to nothing, of {', '.join(done.absent_classes)}: "
            f"{version.name} never paints {'it' if len(done.absent_classes) == 1 else 'them'}.",
            err=True,
        )
    for note in done.notes:
        click.echo(f"Note: {note}.", err=True)
    data = {
        "model": version.name,
        "new": done.new,
        "in_use": done.in_use,
        "gate": version.gate,
        "backbone": version.backbone,
        "training_masks": version.training_masks,
        "absent_classes": list(done.absent_classes),
        "metrics": version.metrics,
    }
    if done.new:
        went_on = version.metrics["went_on_from"]
        text = (
            f"{version.name}: learned from {len(version.training_masks)} accepted masks ({by_tone}) "
            f"in {version.metrics['seconds']} s{f', going on from {went_on}' if went_on else ''}"
        )
    else:
        text = f"{version.name} is unchanged: it learned from exactly these {len(version.training_masks)} masks"
    if version.gate:
        stays = f"{done.in_use} stays in use" if done.in_use else "no version is in use"
        verdict = "passed" if version.gate["passed"] else f"refused, {stays}"
        text = "\n  ".join([f"{text}\n  gate: {verdict}", *done.reasons])
    settings.emit(data, text)
