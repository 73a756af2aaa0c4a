"""`ddiseg malignancy`: research output, not a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import (
    Command,
    Group,
    Settings,
    common_options,
    pass_settings,
    progress_bar,
    progress_stages,
    report_outcomes,
)
from ddiseg.cli.params import (
    cluster_of,
    device_options,
    engine_options,
    select_images,
    selection_options,
    setting_options,
)
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.catalogue.tables import Image
    from ddiseg.workspace.settings import TrainingSettings
    from ddiseg.workspace.workspace import Workspace


@click.group("malignancy", cls=Group, params=common_options())
def malignancy() -> None:
    """Estimate how likely an image is malignant: research, not a diagnosis."""


@malignancy.command("train", cls=Command)
@click.option(
    "--exclude",
    multiple=True,
    metavar="SUBSET",
    help="Do not learn from the images of this subset, nor from others of their groups; may be "
    "repeated. The paper's test set is always excluded.",
)
@setting_options("training.backbone", "training.seed")
@device_options
@pass_settings
def train(settings: Settings, /, exclude: tuple[str, ...], **given: Any) -> None:
    """Train a classifier (malignancy-1, ...) on all images known to be malignant or benign.

    The same images and settings as those of the newest classifier leave it unchanged. Backbone, seed,
    device and precision are those of [training] in 'ddiseg config show'.
    """
    train_malignancy(settings, exclude, given)


@malignancy.command("predict", cls=Command)
@selection_options
@click.option("--strict", is_flag=True, help="Fail if any image is refused.")
@device_options
@engine_options
@pass_settings
def predict(
    settings: Settings,
    images: tuple[str, ...],
    subset: str | None,
    batch: str | None,
    states: tuple[str, ...],
    strict: bool,
    device: str | None,
    precision: str | None,
    engine: str | None,
    ray_address: str | None,
) -> None:
    """Store how likely each image is malignant, by the classifier in use.

    Images are chosen as for 'ddiseg prelabel'.
    """
    workspace = settings.open()
    chosen = select_images(workspace, images, subset, batch, states)
    training = workspace.training(device=device, precision=precision)
    where = engine, ray_address
    predict_malignancy(settings, workspace, chosen, strict, training, where)


@malignancy.command("evaluate", cls=Command)
@click.option("--subset", help="Only images of this subset.")
@click.option(
    "--paper-threshold",
    is_flag=True,
    help="F1 at the threshold of Youden's J on these very images, accuracy at 0.5, as the paper did.",
)
@pass_settings
def evaluate(settings: Settings, subset: str | None, paper_threshold: bool) -> None:
    """Score the probabilities of the newest classifier: ROC-AUC, F1 and accuracy by tone.

    On images of known malignancy that it did not learn from, each with n and interval.
    """
    evaluate_malignancy(settings, subset, paper_threshold=paper_threshold)


#: The old spelling of `ddiseg malignancy train`, `predict` and `evaluate`.
malignancy_flag = click.option(
    "--malignancy", is_flag=True, hidden=True, help="As 'ddiseg malignancy' does."
)


def train_malignancy(settings: Settings, exclude: Sequence[str], given: dict[str, Any]) -> None:
    """Train the classifier, and print what it learned from and its validation scores."""
    from ddiseg.catalogue.malignancy import DISCLAIMER
    from ddiseg.model.malignancy import refresh_malignancy
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    chosen = workspace.training(**given)
    with progress_stages() as stages:
        done = refresh_malignancy(
            workspace,
            default_actor(),
            chosen.backbone,
            chosen.seed,
            exclude=exclude,
            stages=stages,
            device=chosen.device,
            precision=chosen.precision,
        )
    version, training = done.version, done.version.classifier_training
    data = {
        "model": version.name,
        "note": DISCLAIMER,
        "new": done.new,
        "backbone": version.backbone,
        "left_out": done.left_out,
        "metrics": version.metrics,
    }
    learned = training.images - training.validation
    left_out = ", ".join(f"{n} {reason}" for reason, n in done.left_out.items())
    lines = [
        f"{version.name}: {DISCLAIMER}",
        f"learned from {counted(learned, 'image')} and validated on {training.validation}; "
        f"left out: {left_out}"
        if done.new
        else f"unchanged: it learned from these images ({training.images}) already",
        "On its validation images, which chose the epoch and the threshold:",
        *_table(version.metrics["on_its_validation_images"]),
    ]
    settings.emit(data, "\n".join(lines))


def predict_malignancy(
    settings: Settings,
    workspace: Workspace,
    images: Sequence[Image],
    strict: bool,
    training: TrainingSettings,
    where: tuple[str | None, str | None],
) -> None:
    """Store the probabilities of images, and print the outcomes; `where` are engine and ray-address."""
    from ddiseg.catalogue.malignancy import DISCLAIMER
    from ddiseg.model.malignancy import prelabel_malignancy as estimate

    with (
        cluster_of(workspace, *where) as cluster,
        progress_bar("Estimating malignancy") as progress,
    ):
        version, outcomes = estimate(
            workspace,
            images,
            progress,
            device=training.device,
            precision=training.precision,
            cluster=cluster,
        )
    report_outcomes(
        settings,
        outcomes,
        "images",
        strict=strict,
        extra={"model": version.name, "note": DISCLAIMER},
        lines=[f"model {version.name}: {DISCLAIMER}"],
    )


def evaluate_malignancy(settings: Settings, subset: str | None, *, paper_threshold: bool) -> None:
    """Score the stored probabilities, and print the scores."""
    from ddiseg.model.malignancy import evaluate_malignancy as score
    from ddiseg.workspace.workspace import default_actor

    result = score(
        settings.open(),
        default_actor(),
        subset=subset,
        as_paper=paper_threshold,
    )
    lines = [
        f"{result['model']}: {result['note']}",
        f"{counted(result['n_images'], 'image')}; left out: {result['learned_from']} that the model learned from, "
        f"{result['same_group']} of their groups, {result['without_probability']} without a probability, "
        f"{result['unknown_malignancy']} of unknown malignancy",
        f"threshold chosen on {result['threshold_chosen_on']}",
        *_table(result["by_tone"]),
    ]
    settings.emit(result, "\n".join(lines))


def _table(scores: dict[str, dict[str, Any]]) -> list[str]:
    from annotation_protocol.intervals import MIN_GROUPS
    from ddiseg.catalogue.records import DiscriminationRecord

    at = f"F1 at {scores['all']['threshold']:.3f} [95% interval]"
    other = scores["all"].get("accuracy_threshold")
    at_half = "" if other is None else f" at {other:.3f}"
    lines = [
        f"{'tone':<9}{'n':>5}{'malignant':>11}{'patients':>10}  {'ROC-AUC [95% interval]':<30}{at:<32}"
        f"accuracy{at_half} [95% interval]"
    ]
    for tone, stored in scores.items():
        found = DiscriminationRecord.from_json(stored)
        auc, f1, accuracy = (estimate.text(".3f") for estimate in found.estimates.values())
        lines.append(
            f"{tone:<9}{found.n:>5}{found.malignant:>11}{found.patients:>10}  {auc:<30}{f1:<32}{accuracy}"
        )
    return [*lines, f"An interval needs {MIN_GROUPS} patients of each class."]
