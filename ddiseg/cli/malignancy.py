"""What refresh, prelabel and evaluate do with --malignancy: research output, not a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import Settings, progress_bar, progress_stages, report_outcomes

if TYPE_CHECKING:
    from ddiseg.catalogue.tables import Image
    from ddiseg.workspace.workspace import Workspace


#: Options of the commands that have a --malignancy.
malignancy_option = click.option(
    "--malignancy",
    is_flag=True,
    help="Not masks but how likely each image is malignant: research output, not a diagnosis.",
)
hold_out_option = click.option(
    "--hold-out",
    multiple=True,
    metavar="SUBSET",
    help="With --malignancy: learn from no image of this subset nor of its patients; may be repeated. "
    "The paper's test is always held out.",
)
paper_threshold_option = click.option(
    "--paper-threshold",
    is_flag=True,
    help="With --malignancy: the threshold that is best on these very images, as the paper did.",
)


def refresh_malignancy(
    settings: Settings, backbone: str, seed: int, hold_out: Sequence[str], device: str
) -> None:
    """Train the classifier and print what it learned from and how it did on its validation part."""
    from ddiseg.catalogue.malignancy import DISCLAIMER
    from ddiseg.model.malignancy import refresh_malignancy as train
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    with progress_stages() as stages:
        done = train(
            workspace,
            default_actor(),
            backbone,
            seed,
            hold_out=hold_out,
            stages=stages,
            device=device,
        )
    version = done.version
    metrics = version.metrics
    data = {
        "model": version.name,
        "note": DISCLAIMER,
        "new": done.new,
        "backbone": version.backbone,
        "left_out": done.left_out,
        "metrics": metrics,
    }
    learned = metrics["images"] - metrics["validation"]
    left_out = ", ".join(f"{n} {reason}" for reason, n in done.left_out.items())
    lines = [
        f"{version.name}: {DISCLAIMER}",
        f"learned from {learned} images and validated on {metrics['validation']}; "
        f"left out: {left_out}"
        if done.new
        else f"unchanged: it learned from exactly these {metrics['images']} images",
        "On its validation images, which chose the epoch and the threshold:",
        *_table(metrics["on_its_validation_images"]),
    ]
    settings.emit(data, "\n".join(lines))


def prelabel_malignancy(
    settings: Settings,
    workspace: Workspace,
    images: Sequence[Image],
    *,
    strict: bool,
    device: str,
    precision: str,
) -> None:
    """Store the probability of images and print the outcomes."""
    from ddiseg.catalogue.malignancy import DISCLAIMER
    from ddiseg.model.malignancy import prelabel_malignancy as estimate

    with progress_bar("Estimating malignancy") as progress:
        version, outcomes = estimate(
            workspace, images, progress, device=device, precision=precision
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
    settings: Settings, subset: str | None, seed: int, *, paper_threshold: bool
) -> None:
    """Score the stored probabilities and print the figures."""
    from ddiseg.model.malignancy import evaluate_malignancy as score
    from ddiseg.workspace.workspace import default_actor

    result = score(
        settings.open(),
        default_actor(),
        subset=subset,
        paper_threshold=paper_threshold,
        seed=seed,
    )
    lines = [
        f"{result['model']}: {result['note']}",
        f"{result['n_images']} images; left out: {result['learned_from']} that the model learned from "
        f"(or from others of the patient), {result['without_probability']} without a probability, "
        f"{result['unknown_malignancy']} of unknown malignancy",
        f"threshold chosen on {result['threshold_chosen_on']}",
        *_table(result["by_tone"]),
    ]
    settings.emit(result, "\n".join(lines))


def _table(figures: dict[str, dict[str, Any]]) -> list[str]:
    at = f"F1 at {figures['all']['threshold']:.3f} [95% interval]"
    lines = [
        f"{'tone':<9}{'n':>5}{'malignant':>11}  {'ROC-AUC [95% interval]':<26}{at:<32}"
        "accuracy [95% interval]"
    ]
    for tone, s in figures.items():
        auc, f1, accuracy = (
            _figure(s[key], s[f"{key}_ci95"]) for key in ("roc_auc", "f1", "accuracy")
        )
        lines.append(f"{tone:<9}{s['n']:>5}{s['malignant']:>11}  {auc:<26}{f1:<32}{accuracy}")
    return lines


def _figure(value: float, interval: list[float] | None) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "too few"
