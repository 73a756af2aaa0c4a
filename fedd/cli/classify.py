"""`fedd classify`: malignant or benign, as research output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotation_protocol.csv_files import csv_text
from fedd.cli import options
from fedd.files import check_writable, write_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedd.malignancy.discrimination import DiscriminationResult
    from fedd.malignancy.study import LearnedOurs, MalignancyPrediction


@click.group(cls=options.Group)
def classify() -> None:
    """Classify photographs as malignant or benign: research output, not a diagnosis."""


@classify.command()
@click.argument("photographs", type=options.FOLDER)
@options.TABLE
@options.BACKBONE
@options.DEVICE
@options.PRECISION
@click.option(
    "--recipe",
    type=click.Choice(["paper", "ours"], case_sensitive=False),
    default="paper",
    show_default=True,
    help="paper: FEDD's MLP on one block. ours: logistic regression on all blocks, colours and covariates.",
)
@click.option(
    "--covariates",
    metavar="COLUMN,...",
    help="Columns of the table that the recipe ours reads beside the photograph.",
)
@click.option(
    "--set",
    "changed",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the recipe; may be repeated. paper: block, timestep, validation (share of the "
    "photographs, 0.2), seed. ours: timestep, strength (0.0005), folds (5), seed.",
)
@click.option("--validation", type=options.SHARE, hidden=True)
@click.option("--block", type=int, hidden=True)
@click.option("--timestep", type=click.IntRange(0, 999), hidden=True)
@click.option("--seed", type=int, hidden=True, help="Seed of the training.")
@options.out("File of the classifier (safetensors).")
def train(
    photographs: Path,
    table: Path | None,
    backbone: str,
    device: str,
    precision: str,
    recipe: str,
    covariates: str | None,
    changed: tuple[str, ...],
    out: Path,
    **old: float | None,
) -> None:
    """Train a classifier on the PHOTOGRAPHS (a folder) of known malignancy.

    The printed results are on a validation split, which shares no patient with the training split and is
    stratified by label and tone (paper), or cross-validated over patients, beside what colour alone and the
    covariates alone reach (ours). For a test run 'fedd classify predict' on other photographs.
    """
    from dataclasses import replace

    from fedd.dataset import read_dataset
    from fedd.malignancy.classifier import DISCLAIMER, default_settings
    from fedd.malignancy.linear import linear_settings
    from fedd.malignancy.study import learn, learn_ours
    from fedd.precision import place_in
    from fedd.weights.files import load_backbone
    from fedd.weights.names import described_weights

    check_writable(out)
    given = _settings(recipe, changed, old)
    if covariates is not None and recipe == "paper":
        raise click.UsageError("--covariates goes with --recipe ours.")
    items = read_dataset(photographs, table)
    net = place_in(load_backbone(backbone), device, precision)
    of = f"{described_weights(net.name, net.hash, net.verified)}"
    if recipe == "ours":
        names = [name.strip() for name in (covariates or "").split(",") if name.strip()]
        ours = learn_ours(
            items,
            net,
            replace(linear_settings(net, names), **given),
            _table(photographs, table),
            _progress,
        )
        _echo_left_out(ours.used.unknown, ours.used.refused)
        ours.save(out)
        click.echo(f"{out}: {DISCLAIMER}")
        click.echo("\n".join(_lines_of_ours(ours, of, net.precision)))
        return
    known = sum(item.malignant is not None for item in items)
    seed = given.pop("seed", 0)
    settings = replace(default_settings(net.config, known), **given)
    done = learn(items, net, settings, seed, _progress)
    _echo_left_out(done.used.unknown, done.used.refused)
    done.save(out)
    validated = int(done.validation.sum())
    click.echo(f"{out}: {DISCLAIMER}")
    click.echo(
        f"block {settings.block} of {of}, at t = {settings.timestep}, "
        f"{net.precision}; learned from "
        f"{len(done.validation) - validated} photographs, validated on {validated}, "
        f"epoch {done.training.best_epoch} of {done.training.epochs} kept"
    )
    click.echo("On the validation split, which determined the epoch and the threshold:")
    click.echo(_results_table(done.results))


#: What `--set` can change, by recipe: the type of its value, its lowest and its highest value.
_SETTINGS: dict[str, dict[str, tuple[type[int] | type[float], float, float]]] = {
    "paper": {
        "block": (int, 0, 99),
        "timestep": (int, 0, 999),
        "validation": (float, 0.01, 0.99),
        "seed": (int, 0, 2**31),
    },
    "ours": {
        "timestep": (int, 0, 999),
        "strength": (float, 1e-9, 1e3),
        "folds": (int, 2, 100),
        "seed": (int, 0, 2**31),
    },
}


def _settings(
    recipe: str, changed: Sequence[str], old: Mapping[str, float | None]
) -> dict[str, Any]:
    """Return the settings of a recipe that were typed, from `--set` and the old options."""
    texts = {name: str(value) for name, value in old.items() if value is not None}
    for each in changed:
        name, equals, typed = (part.strip() for part in each.partition("="))
        if not equals:
            raise click.UsageError(f"--set: '{each}' is not NAME=VALUE.")
        texts[name] = typed
    known = _SETTINGS[recipe]
    found: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in known:
            raise click.UsageError(
                f"the recipe {recipe} has no setting '{name}', only {', '.join(known)}."
            )
        kind, low, high = known[name]
        try:
            value: float = kind(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise click.UsageError(f"--set: {name} is {text}: give {what}, {low} to {high}.")
        found[name] = value
    return found


def _table(photographs: Path, table: Path | None) -> Path | None:
    """Return the table of a data set; None if it has none."""
    from fedd.dataset import DDI_TABLE

    path = table or photographs / DDI_TABLE
    return path if path.is_file() else None


def _lines_of_ours(done: LearnedOurs, of: str, precision: str) -> list[str]:
    """Return what a training of the recipe "ours" read, and its results."""
    from fedd.malignancy.covariates import imputed_in_words

    settings = done.classifier.settings
    images = len(done.used.items)
    read = f" and {', '.join(settings.covariates)}" if settings.covariates else ""
    lines = [
        f"{len(settings.blocks)} blocks of {of}, at t = {settings.timestep}, {precision}, colours{read}; "
        f"learned from {images} photographs"
    ]
    if missing := imputed_in_words(done.imputed, images):
        lines.append(missing)
    lines.append(
        f"Cross-validated in {done.training.folds} folds of whole patients, which determined the threshold:"
    )
    lines.append(_results_table(done.results))
    lines.append("What it adds to simpler ones on the same photographs, ROC-AUC [95% interval]:")
    columns = {"classifier": done.results} | {f"{r.value} alone": e for r, e in done.beside.items()}
    lines.append(f"{'tone':<12}{'n':>5}  {''.join(f'{name:<30}' for name in columns)}".rstrip())
    for tone, result in done.results.items():
        cells = "".join(f"{each[tone].roc_auc.text('.3f'):<30}" for each in columns.values())
        lines.append(f"{tone:<12}{result.n:>5}  {cells}".rstrip())
    return lines


@classify.command()
@click.argument("classifier", type=options.NEW_FILE)
@click.argument("photographs", type=options.FOLDER)
@options.TABLE
@options.BACKBONE
@options.DEVICE
@options.PRECISION
@click.option(
    "--paper-threshold",
    is_flag=True,
    help="F1 at the threshold of Youden's J on these same photographs, accuracy at 0.5, as the paper did.",
)
@click.option(
    "--out", type=options.NEW_FILE, help="File for the probabilities (CSV).  [default: print them]"
)
def predict(
    classifier: Path,
    photographs: Path,
    table: Path | None,
    backbone: str,
    device: str,
    precision: str,
    paper_threshold: bool,
    out: Path | None,
) -> None:
    """Predict the probability of malignancy of the PHOTOGRAPHS (a folder) with a CLASSIFIER file.

    If malignancy is known, results follow, overall and by tone, on the photographs that the classifier
    did not learn from; on stderr if the probabilities are printed. Covariates that it reads are columns of
    the table.
    """
    from fedd.dataset import read_dataset
    from fedd.malignancy.classifier import DISCLAIMER
    from fedd.malignancy.study import predict as probabilities_of
    from fedd.malignancy.study import results_on_unseen
    from fedd.precision import place_in
    from fedd.weights.files import load_backbone
    from fedd.weights.names import described_weights

    if out is not None:
        check_writable(out)
    items = read_dataset(photographs, table)
    net = place_in(load_backbone(backbone), device, precision)
    of = _table(photographs, table)
    model, found, refused = probabilities_of(classifier, items, net, _progress, of)
    click.echo(f"{described_weights(net.name, net.hash, net.verified)}, {net.precision}", err=True)
    _echo_left_out(sum(item.malignant is None for item in items), refused)
    rows = _rows(found, DISCLAIMER)
    if out is None:
        click.echo(rows, nl=False)
    else:
        write_file(out, rows)
        click.echo(f"{out}: {len(found)} photographs; {DISCLAIMER}")
    results = results_on_unseen(found, model.threshold, as_paper=paper_threshold)
    to_stderr = out is None
    if learned := sum(p.learned_from for p in found):
        click.echo(
            f"{learned} photographs not scored: the classifier learned from them", err=to_stderr
        )
    if results:
        if paper_threshold:
            click.echo(
                "F1 at the threshold of Youden's J on these same photographs, as in the paper: it is optimistic.",
                err=to_stderr,
            )
        click.echo(_results_table(results), err=to_stderr)


def _progress(done: int, total: int) -> None:
    """Show on stderr when all photographs are read."""
    if done == total:
        click.echo(f"Photographs read: {total}", err=True)


def _echo_left_out(unknown: int, refused: Sequence[str]) -> None:
    if unknown:
        click.echo(f"{unknown} photographs have unknown malignancy: not counted", err=True)
    for line in refused:
        click.echo(f"refused  {line}", err=True)


def _rows(found: Sequence[MalignancyPrediction], note: str) -> str:
    """Return the probabilities as CSV, with the note in each row, so that it is copied along."""
    rows: list[tuple[str, ...]] = [
        ("file", "tone", "malignant", "probability_of_malignant", "learned_from", "note")
    ]
    text_of = {True: "TRUE", False: "FALSE", None: ""}
    for p in found:
        known, learned = text_of[p.item.malignant], text_of[p.learned_from]
        rows.append((p.item.path.name, p.item.tone, known, f"{p.malignant:.4f}", learned, note))
    return csv_text(rows)


def _results_table(results: Mapping[str, DiscriminationResult]) -> str:
    from annotation_protocol.intervals import MIN_GROUPS

    first = next(iter(results.values()))
    threshold = first.threshold
    other = first.accuracy_threshold
    at = "" if other == threshold else f" at {other:.3f}"
    lines = [
        f"{'tone':<12}{'n':>5}{'malignant':>11}{'patients':>10}  {'ROC-AUC [95% interval]':<30}"
        f"{f'F1 at {threshold:.3f} [95% interval]':<32}accuracy{at} [95% interval]"
    ]
    for tone, d in results.items():
        auc, f1, accuracy = (e.text(".3f") for e in (d.roc_auc, d.f1, d.accuracy))
        lines.append(
            f"{tone:<12}{d.n:>5}{d.malignant:>11}{d.roc_auc.groups:>10}  {auc:<30}{f1:<32}{accuracy}"
        )
    return "\n".join([*lines, f"An interval needs {MIN_GROUPS} patients of each class."])
