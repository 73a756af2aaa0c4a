"""`ddiseg malignancy`: research output, not a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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
    from ddiseg.catalogue.records import ClassifierRecord
    from ddiseg.catalogue.tables import Image
    from ddiseg.model.clinical import Clinical
    from ddiseg.model.malignancy_training import RefreshedMalignancy
    from ddiseg.workspace.settings import TrainingSettings
    from ddiseg.workspace.workspace import Workspace


@click.group("malignancy", cls=Group, params=common_options())
def malignancy() -> None:
    """Estimate how likely an image is malignant: research, not a diagnosis."""


_clinical = click.option(
    "--clinical",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the photographs' names (img_id, file, ...) and a column a clinical question.",
)


@malignancy.command("train", cls=Command)
@click.option(
    "--exclude",
    multiple=True,
    metavar="SUBSET",
    help="Do not learn from the images of this subset, nor from others of their groups; may be "
    "repeated. The paper's test set is always excluded.",
)
@click.option(
    "--recipe",
    type=click.Choice(["ours", "paper"], case_sensitive=False),
    default="ours",
    show_default=True,
    help="ours: logistic regression on all blocks, colours and clinical answers, cross-validated. "
    "paper: FEDD's MLP on one block, with a validation split.",
)
@_clinical
@click.option(
    "--covariates",
    metavar="COLUMN,...",
    help="Columns of the --clinical table that the classifier reads beside the photograph.",
)
@setting_options("training.backbone", "training.seed")
@device_options
@pass_settings
def train(
    settings: Settings,
    /,
    exclude: tuple[str, ...],
    recipe: str,
    clinical: Path | None,
    covariates: str | None,
    **given: Any,
) -> None:
    """Train a classifier (malignancy-1, ...) on all images known to be malignant or benign.

    The same images and settings as those of the newest classifier leave it unchanged. Backbone, seed,
    device and precision are those of [training] in 'ddiseg config show'. With the recipe "ours" the
    figures that colour alone and the clinical answers alone reach are printed too.
    """
    train_malignancy(settings, exclude, given, recipe, clinical, covariates)


@malignancy.command("predict", cls=Command)
@selection_options
@_clinical
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
    clinical: Path | None,
    strict: bool,
    device: str | None,
    precision: str | None,
    engine: str | None,
    ray_address: str | None,
) -> None:
    """Store how likely each image is malignant, by the classifier in use.

    Images are chosen as for 'ddiseg prelabel'. A missing clinical answer is replaced with the training
    images' mean, and counted.
    """
    workspace = settings.open()
    chosen = select_images(workspace, images, subset, batch, states)
    training = workspace.training(device=device, precision=precision)
    where = engine, ray_address
    predict_malignancy(settings, workspace, chosen, strict, training, where, clinical)


@malignancy.command("evaluate", cls=Command)
@click.option("--subset", help="Only images of this subset.")
@click.option(
    "--paper-threshold",
    is_flag=True,
    help="F1 at the threshold of Youden's J on these very images, accuracy at 0.5, as the paper did.",
)
@_clinical
@pass_settings
def evaluate(
    settings: Settings, subset: str | None, paper_threshold: bool, clinical: Path | None
) -> None:
    """Score the probabilities of the newest classifier: ROC-AUC, F1 and accuracy by tone.

    On images of known malignancy that it did not learn from, each with n and interval; those of known
    tone stand apart. Beside it stands what colour alone and the clinical answers alone reach.
    """
    evaluate_malignancy(settings, subset, clinical, paper_threshold=paper_threshold)


#: The old spelling of `ddiseg malignancy train`, `predict` and `evaluate`.
malignancy_flag = click.option(
    "--malignancy", is_flag=True, hidden=True, help="As 'ddiseg malignancy' does."
)


def train_malignancy(
    settings: Settings,
    exclude: Sequence[str],
    given: dict[str, Any],
    recipe: str = "ours",
    clinical: Path | None = None,
    covariates: str | None = None,
) -> None:
    """Train the classifier, and print what it learned from and the scores of its training."""
    from ddiseg.catalogue.malignancy import DISCLAIMER
    from ddiseg.model.malignancy_training import refresh_malignancy
    from ddiseg.workspace.workspace import default_actor

    answers = _answers(clinical, covariates)
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
            recipe=recipe,
            clinical=answers,
            device=chosen.device,
            precision=chosen.precision,
        )
    version = done.version
    data = {
        "model": version.name,
        "note": DISCLAIMER,
        "new": done.new,
        "backbone": version.backbone,
        "left_out": done.left_out,
        "metrics": version.metrics,
    }
    lines = [
        f"{version.name}: {DISCLAIMER}",
        *_training_lines(version.classifier_training, done),
        *_table(version.metrics["on_its_validation_images"]),
        *_beside_table(version.metrics["on_its_validation_images"], version.metrics.get("beside")),
    ]
    settings.emit(data, "\n".join(lines))


def _answers(clinical: Path | None, covariates: str | None) -> Clinical | None:
    """Return the covariates of a table, as they were typed; InputError where only one of the two is given."""
    from ddiseg.errors import InputError
    from ddiseg.ingest.metadata import split_option
    from ddiseg.model.clinical import Clinical

    if covariates is None and clinical is None:
        return None
    if clinical is None:
        raise InputError("--covariates names columns of a table: give that with --clinical FILE")
    names = split_option("--covariates", covariates or "")
    return Clinical.read(clinical, [name.strip() for name in names if name.strip()])


def _training_lines(training: ClassifierRecord, done: RefreshedMalignancy) -> list[str]:
    """Return what a classifier learned from, and what its scores are of."""
    from ddiseg.model.clinical import missing_answers

    left_out = ", ".join(f"{n} {reason}" for reason, n in done.left_out.items())
    ours = training.folds > 0
    how = (
        f"learned from {counted(training.images, 'image')}"
        if ours
        else f"learned from {counted(training.images - training.validation, 'image')} and validated "
        f"on {training.validation}"
    )
    lines = [
        f"{how}; left out: {left_out}"
        if done.new
        else f"unchanged: it learned from these images ({training.images}) already"
    ]
    if training.covariates:
        lines.append(f"clinical answers: {', '.join(training.covariates)}")
    if imputed := missing_answers(training):
        lines.append(imputed)
    if ours:
        lines.append(
            f"Cross-validated on its training images in {training.folds} folds of whole groups; the threshold "
            "was chosen on them:"
        )
    else:
        lines.append("On its validation images, which chose the epoch and the threshold:")
    return lines


def predict_malignancy(
    settings: Settings,
    workspace: Workspace,
    images: Sequence[Image],
    strict: bool,
    training: TrainingSettings,
    where: tuple[str | None, str | None],
    clinical: Path | None = None,
) -> None:
    """Store the probabilities of images, and print the outcomes; `where` are engine and ray-address."""
    from ddiseg.catalogue.malignancy import DISCLAIMER
    from ddiseg.model.clinical import read_answers
    from ddiseg.model.malignancy import prelabel_malignancy as estimate

    table = read_answers(clinical)

    with (
        cluster_of(workspace, *where) as cluster,
        progress_bar("Estimating malignancy") as progress,
    ):
        version, outcomes = estimate(
            workspace,
            images,
            progress,
            clinical=table,
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


def evaluate_malignancy(
    settings: Settings, subset: str | None, clinical: Path | None = None, *, paper_threshold: bool
) -> None:
    """Score the stored probabilities, and print the scores."""
    from ddiseg.model.clinical import read_answers
    from ddiseg.model.malignancy import evaluate_malignancy as score
    from ddiseg.workspace.workspace import default_actor

    table = read_answers(clinical)
    with progress_bar("Colours of the photographs") as progress:
        result = score(
            settings.open(),
            default_actor(),
            subset=subset,
            as_paper=paper_threshold,
            clinical=table,
            progress=progress,
        )
    lines = [
        f"{result['model']}: {result['note']}",
        f"{counted(result['n_images'], 'image')}; left out: {result['learned_from']} that the model learned from, "
        f"{result['same_group']} of their groups, {result['without_probability']} without a probability, "
        f"{result['unknown_malignancy']} of unknown malignancy",
        f"threshold chosen on {result['threshold_chosen_on']}",
        *_table(result["by_tone"]),
        *_beside_table(result["by_tone"], result.get("beside")),
        *([result["not_beside"]] if "not_beside" in result else []),
    ]
    settings.emit(result, "\n".join(lines))


def _table(scores: dict[str, dict[str, Any]]) -> list[str]:
    from annotation_protocol.intervals import MIN_GROUPS
    from ddiseg.catalogue.records import DiscriminationRecord

    at = f"F1 at {scores['all']['threshold']:.3f} [95% interval]"
    other = scores["all"].get("accuracy_threshold")
    at_half = "" if other is None else f" at {other:.3f}"
    lines = [
        f"{'tone':<12}{'n':>5}{'malignant':>11}{'patients':>10}  {'ROC-AUC [95% interval]':<30}{at:<32}"
        f"accuracy{at_half} [95% interval]"
    ]
    for tone, stored in scores.items():
        found = DiscriminationRecord.from_json(stored)
        auc, f1, accuracy = (estimate.text(".3f") for estimate in found.estimates.values())
        lines.append(
            f"{tone:<12}{found.n:>5}{found.malignant:>11}{found.patients:>10}  {auc:<30}{f1:<32}{accuracy}"
        )
    return [*lines, f"An interval needs {MIN_GROUPS} patients of each class."]


#: What stands beside a classifier, by its key in the stored scores.
_BESIDE = {"colour": "colour alone", "covariates": "clinical answers alone"}


def _beside_table(
    scores: dict[str, dict[str, Any]], beside: dict[str, dict[str, dict[str, Any]]] | None
) -> list[str]:
    """Return the ROC-AUC of the classifier and of what stands beside it, by tone."""
    from ddiseg.catalogue.records import DiscriminationRecord

    if not beside:
        return []
    columns = {"classifier": scores, **{_BESIDE[key]: found for key, found in beside.items()}}
    lines = [
        "What it adds to simpler ones on the same images, ROC-AUC [95% interval]:",
        f"{'tone':<12}{'n':>5}  {''.join(f'{name:<30}' for name in columns)}".rstrip(),
    ]
    for tone, of in scores.items():
        cells = [
            DiscriminationRecord.from_json(found[tone]).estimates["ROC-AUC"].text(".3f")
            for found in columns.values()
        ]
        lines.append(f"{tone:<12}{of['n']:>5}  {''.join(f'{cell:<30}' for cell in cells)}".rstrip())
    return lines
