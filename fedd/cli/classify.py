"""`fedd classify`: malignant or benign, as research output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotation_protocol.csv_files import csv_text
from fedd.cli import options
from fedd.files import check_writable, write_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedd.malignancy.discrimination import DiscriminationResult
    from fedd.malignancy.study import MalignancyPrediction


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
    "--validation",
    default=0.2,
    show_default=True,
    type=options.SHARE,
    help="Share of the photographs in the validation split, for early stopping and the threshold.",
)
@click.option("--block", type=int, help="Decoder block.  [default: by images and backbone]")
@click.option(
    "--timestep", type=click.IntRange(0, 999), help="Timestep of the noise.  [default: by backbone]"
)
@options.seed()
@options.out("File of the classifier (safetensors).")
def train(
    photographs: Path,
    table: Path | None,
    backbone: str,
    device: str,
    precision: str,
    validation: float,
    block: int | None,
    timestep: int | None,
    seed: int,
    out: Path,
) -> None:
    """Train a classifier on the PHOTOGRAPHS (a folder) of known malignancy.

    The validation split shares no patient with the training split and is stratified by label and tone.
    The printed results are on the validation split and therefore optimistic: for a test run
    'fedd classify predict' on other photographs.
    """
    from dataclasses import replace

    from fedd.dataset import read_dataset
    from fedd.malignancy.classifier import DISCLAIMER, default_settings
    from fedd.malignancy.study import learn
    from fedd.precision import place_in
    from fedd.weights.files import load_backbone
    from fedd.weights.names import described_weights

    check_writable(out)
    items = read_dataset(photographs, table)
    net = place_in(load_backbone(backbone), device, precision)
    known = sum(item.malignant is not None for item in items)
    settings = replace(default_settings(net.config, known), validation=validation)
    if block is not None:
        settings = replace(settings, block=block)
    if timestep is not None:
        settings = replace(settings, timestep=timestep)
    done = learn(items, net, settings, seed, _progress)
    _echo_left_out(done.used.unknown, done.used.refused)
    done.save(out)
    validated = int(done.validation.sum())
    click.echo(f"{out}: {DISCLAIMER}")
    click.echo(
        f"block {settings.block} of {described_weights(net.name, net.hash, net.verified)}, at t = {settings.timestep}, "
        f"{net.precision}; learned from "
        f"{len(done.validation) - validated} photographs, validated on {validated}, "
        f"epoch {done.training.best_epoch} of {done.training.epochs} kept"
    )
    click.echo("On the validation split, which determined the epoch and the threshold:")
    click.echo(_results_table(done.results))


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
    did not learn from; on stderr if the probabilities are printed.
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
    model, found, refused = probabilities_of(classifier, items, net, _progress)
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
        f"{'tone':<9}{'n':>5}{'malignant':>11}{'patients':>10}  {'ROC-AUC [95% interval]':<30}"
        f"{f'F1 at {threshold:.3f} [95% interval]':<32}accuracy{at} [95% interval]"
    ]
    for tone, d in results.items():
        auc, f1, accuracy = (e.text(".3f") for e in (d.roc_auc, d.f1, d.accuracy))
        lines.append(
            f"{tone:<9}{d.n:>5}{d.malignant:>11}{d.roc_auc.groups:>10}  {auc:<30}{f1:<32}{accuracy}"
        )
    return "\n".join([*lines, f"An interval needs {MIN_GROUPS} patients of each class."])
