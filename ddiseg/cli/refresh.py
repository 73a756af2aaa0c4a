"""`ddiseg refresh`: train the model on accepted masks."""

from __future__ import annotations

from typing import Any

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_stages
from ddiseg.cli.malignancy import malignancy_flag, train_malignancy
from ddiseg.cli.params import cluster_of, engine_options, setting_options
from ddiseg.outcomes import counted

#: The settings of a training of the classifier.
_CLASSIFIER = ("backbone", "seed", "device", "precision")


@click.command("refresh", cls=Command)
@click.option(
    "--from-scratch",
    is_flag=True,
    help="Do not go on from the version in use, though it learned from some of the same masks.",
)
@click.option(
    "--gate",
    is_flag=True,
    help="From now on keep about every fifth patient's masks as the hold-out set, as 'ddiseg loop "
    "run' does.",
)
@setting_options(
    "training.backbone",
    "training.seed",
    "training.max-drop",
    "training.device",
    "training.precision",
    "training.ensemble",
    "training.corrected-weight",
    "training.cache-gb",
)
@engine_options
@malignancy_flag
@click.option("--hold-out", "exclude", multiple=True, hidden=True)
@pass_settings
def refresh(
    settings: Settings,
    /,
    from_scratch: bool,
    gate: bool,
    malignancy: bool,
    exclude: tuple[str, ...],
    engine: str | None,
    ray_address: str | None,
    **given: Any,
) -> None:
    """Train the model on accepted masks.

    The result is a new model version (fedd-1, fedd-2, ...) with its training set, settings and
    seed on record. Nothing is trained where nothing changed. The probes learn from all
    masks, each mask being unseen by some of them, which calibrates the probabilities; with the backbones
    small and imagenet-256 and 20 masks or more, every fifth is a validation split for that (whole
    patients, the tones alike). The activations of images with an accepted mask are kept in cache/features in the
    workspace, which may be deleted at any time and needs no backup.

    With --gate, and from then on, about every fifth patient's masks are a hold-out set that is never
    learned from: on it the new version is compared with the one in use, which stays in use where the
    new one is worse overall or for any tone. Backbone, seed, device and the other settings are those
    of [training] in 'ddiseg config show'. With --engine ray the workers of a Ray cluster do all passes
    through the backbone (docs/cluster.md), and keep no activations.
    """
    from ddiseg.model.styles import style_text
    from ddiseg.model.train import train_version
    from ddiseg.workspace.workspace import default_actor

    if malignancy and (from_scratch or gate):
        raise click.UsageError("--from-scratch and --gate do not go with --malignancy.")
    if malignancy:
        train_malignancy(settings, exclude, {k: given[k] for k in _CLASSIFIER})
        return
    if exclude:
        raise click.UsageError("--hold-out goes with --malignancy.")
    workspace = settings.open()
    chosen = workspace.training(**given)
    with (
        cluster_of(workspace, engine, ray_address) as cluster,
        progress_stages() as stages,
    ):
        done = train_version(
            workspace,
            default_actor(),
            chosen.backbone,
            chosen.seed,
            stages=stages,
            from_scratch=from_scratch,
            cache_limit=int(chosen.cache_gb * 1e9),
            device=chosen.device,
            precision=chosen.precision,
            start_holdout=gate,
            max_drop=chosen.max_drop,
            ensemble=chosen.ensemble,
            corrected_weight=chosen.corrected_weight,
            cluster=cluster,
        )
    version, training, decision = done.version, done.version.training, done.version.decision
    by_tone = ", ".join(f"{tone} {n}" for tone, n in training.by_tone.items())
    if done.absent_classes:
        click.echo(
            f"Note: the accepted masks show nothing, or next to nothing, of {', '.join(done.absent_classes)}: "
            f"{version.name} never predicts {'it' if len(done.absent_classes) == 1 else 'them'}.",
            err=True,
        )
    styles = [style_text(style, style["annotator"]) for style in training.styles]
    for note in (*done.notes, *styles):
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
    n = len(version.training_masks)
    if done.new:
        went_on = training.went_on_from
        text = (
            f"{version.name}: learned from {counted(n, 'accepted mask')} ({by_tone}) "
            f"in {training.seconds} s{f', going on from {went_on}' if went_on else ''}"
        )
    else:
        text = f"{version.name} is unchanged: it learned from these masks ({n}) already"
    if done.new and (own := training.own_masks) is not None:
        text += f"\n  decides: {own['decision']} ({own['why']})"
    if decision:
        stays = f"{done.in_use} stays in use" if done.in_use else "no version is in use"
        verdict = "passed" if decision.passed else f"refused, {stays}"
        if decision.passed and not decision.evaluated:
            verdict = f"not evaluated, {done.in_use} is in use" if done.in_use else "not evaluated"
        text = "\n  ".join([f"{text}\n  gate: {verdict}", *done.reasons])
    settings.emit(data, text)
