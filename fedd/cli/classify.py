"""`fedd classify`: malignant or benign, as research output."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedd.cli import options
from fedd.files import check_writable, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedd.malignancy.discrimination import Discrimination
    from fedd.malignancy.study import Probability

_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_table = click.option(
    "--table",
    type=_EXISTING_FILE,
    help="CSV with the photographs' names, malignant, tone and patient.  [default: DDI's, if there]",
)


@click.group()
def classify() -> None:
    """Tell malignant from benign photographs: research output, not a diagnosis."""


@classify.command()
@click.argument("photographs", type=_EXISTING_FOLDER)
@_table
@options.BACKBONE
@options.DEVICE
@click.option(
    "--validation",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the photographs held out to end the training and choose the threshold.",
)
@click.option("--block", type=int, help="Decoder block to read.  [default: by images and backbone]")
@click.option(
    "--timestep",
    type=click.IntRange(0, 999),
    help="Timestep to noise photographs to.  [default: by backbone]",
)
@options.seed()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File of the classifier (safetensors).",
)
def train(
    photographs: Path,
    table: Path | None,
    backbone: str,
    device: str,
    validation: float,
    block: int | None,
    timestep: int | None,
    seed: int,
    out: Path,
) -> None:
    """Train a classifier on the PHOTOGRAPHS (a folder) of known malignancy.

    The validation part is apart by patient, with its share of each label and tone. The figures
    printed are on that part, so they flatter: 'fedd classify predict' on other photographs is the test.
    """
    from dataclasses import replace

    from fedd.dataset import read_dataset
    from fedd.malignancy.classifier import DISCLAIMER, default_settings
    from fedd.malignancy.study import learn
    from fedd.weights.files import load_backbone

    check_writable(out)
    items = read_dataset(photographs, table)
    net = load_backbone(backbone).to(device)
    known = sum(item.malignant is not None for item in items)
    settings = replace(default_settings(net.config, known), validation=validation)
    if block is not None:
        settings = replace(settings, block=block)
    if timestep is not None:
        settings = replace(settings, timestep=timestep)
    done = learn(items, net, settings, seed, _tell("Photographs read"))
    _tell_left_out(done.used.unknown, done.used.refused)
    done.save(out)
    held_out = int(done.validation.sum())
    click.echo(f"{out}: {DISCLAIMER}")
    click.echo(
        f"block {settings.block} of {net.name} at t = {settings.timestep}; learned from "
        f"{len(done.validation) - held_out} photographs, validated on {held_out}, "
        f"epoch {done.training.best_epoch} of {done.training.epochs} kept"
    )
    click.echo("On the validation part, which chose the epoch and the threshold:")
    click.echo(_figures_table(done.figures))


@classify.command()
@click.argument("classifier", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("photographs", type=_EXISTING_FOLDER)
@_table
@options.BACKBONE
@options.DEVICE
@click.option(
    "--paper-threshold",
    is_flag=True,
    help="Score at the threshold that is best on these very photographs, as the paper did.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the probabilities here (CSV).  [default: print them]",
)
def predict(
    classifier: Path,
    photographs: Path,
    table: Path | None,
    backbone: str,
    device: str,
    paper_threshold: bool,
    out: Path | None,
) -> None:
    """Give each of the PHOTOGRAPHS (a folder) the probability that a CLASSIFIER's file says.

    Where malignancy is known, figures follow, overall and by tone, of the photographs that the
    classifier did not learn from: on stderr where the probabilities are printed.
    """
    from fedd.dataset import read_dataset
    from fedd.malignancy.classifier import DISCLAIMER
    from fedd.malignancy.study import honest_figures
    from fedd.malignancy.study import predict as probabilities_of
    from fedd.weights.files import load_backbone

    if out is not None:
        check_writable(out)
    items = read_dataset(photographs, table)
    net = load_backbone(backbone).to(device)
    model, found, refused = probabilities_of(classifier, items, net, _tell("Photographs read"))
    _tell_left_out(sum(item.malignant is None for item in items), refused)
    rows = _rows(found, DISCLAIMER)
    if out is None:
        click.echo(rows, nl=False)
    else:
        write_text(out, rows)
        click.echo(f"{out}: {len(found)} photographs; {DISCLAIMER}")
    figures = honest_figures(found, model.threshold, paper_threshold=paper_threshold)
    aside = out is None
    if learned := sum(p.learned_from for p in found):
        click.echo(f"{learned} photographs not scored: the classifier learned from them", err=aside)
    if figures:
        if paper_threshold:
            click.echo(
                "Threshold chosen on these very photographs, as in the paper: F1 and accuracy flatter.",
                err=aside,
            )
        click.echo(_figures_table(figures), err=aside)


def _tell(label: str) -> Callable[[int, int], None]:
    """Says on stderr when all is done."""

    def tell(done: int, total: int) -> None:
        if done == total:
            click.echo(f"{label}: {total}", err=True)

    return tell


def _tell_left_out(unknown: int, refused: Sequence[str]) -> None:
    if unknown:
        click.echo(f"{unknown} photographs are of unknown malignancy: not counted", err=True)
    for line in refused:
        click.echo(f"refused  {line}", err=True)


def _rows(found: Sequence[Probability], note: str) -> str:
    """The probabilities as CSV; the note stands in each row, wherever it may be copied to."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("file", "tone", "malignant", "probability_of_malignant", "learned_from", "note")
    )
    said = {True: "TRUE", False: "FALSE", None: ""}
    for p in found:
        known, learned = said[p.item.malignant], said[p.learned_from]
        writer.writerow((p.item.path.name, p.item.tone, known, f"{p.malignant:.4f}", learned, note))
    return text.getvalue()


def _figures_table(figures: Mapping[str, Discrimination]) -> str:
    threshold = next(iter(figures.values())).threshold
    lines = [
        f"{'tone':<9}{'n':>5}{'malignant':>11}  {'ROC-AUC [95% interval]':<26}"
        f"{f'F1 at {threshold:.3f} [95% interval]':<32}accuracy [95% interval]"
    ]
    for tone, d in figures.items():
        auc, f1, accuracy = (
            _figure(*pair)
            for pair in (
                (d.roc_auc, d.roc_auc_ci95),
                (d.f1, d.f1_ci95),
                (d.accuracy, d.accuracy_ci95),
            )
        )
        lines.append(f"{tone:<9}{d.n:>5}{d.malignant:>11}  {auc:<26}{f1:<32}{accuracy}")
    return "\n".join(lines)


def _figure(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "too few"
