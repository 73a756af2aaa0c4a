"""Tables of a reproduction: our scores and the paper's, with difference, n and interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape

import numpy as np

from annotation_protocol.csv_files import csv_text
from annotation_protocol.estimates import sample_size
from fedd.dataset import ALL, TONES
from fedd.malignancy.classifier import DISCLAIMER
from fedd.paper import results as paper_results
from fedd.reproduce.improvement import Improvement
from fedd.reproduce.plan import CLASSIFICATION, SEGMENTATION, Plan
from fedd.reproduce.results import Result
from fedd.reproduce.scores import ModelScore, by_key
from fedd.reproduce.split import ImageSet

#: The groups of photographs, and their labels with the paper's names.
GROUPS = (ALL, *TONES)
GROUP_LABELS = {ALL: "all", TONES[0]: "I-II (light)", TONES[1]: "III-IV", TONES[2]: "V-VI (dark)"}

_EXPECTED = "What a new patient could expect."

#: What the sets of photographs are, with their number.
_CALLED = {
    ImageSet.SEGMENTATION_TEST: "the {n} test masks",
    ImageSet.REMAINING: "all {n} remaining photographs",
    ImageSet.UNSEEN: "all {n} photographs outside training and validation",
    ImageSet.BALANCED: "the balanced test of {n}",
}

#: The tables of segmentation, in order: metric, title, description.
_OF_MASKS = (
    (
        "miou",
        "mean IoU over the classes",
        "IoU of each class pooled over the photographs of a tone, then the mean over the classes; 'all' is "
        "the mean of the three tones, as in the authors' notebook, 'all, pooled' is of all photographs "
        "together.",
    ),
    (
        "lesion_iou",
        "IoU of the lesion",
        "Pooled over the photographs of a tone; 'all' is the mean of the three tones, 'all, pooled' is of "
        "all photographs together.",
    ),
    (
        "lesion_iou_per_image",
        "IoU of the lesion, mean over the photographs",
        "Every photograph has the same weight, whatever the size of its lesion.",
    ),
)

#: The tables of each test of classification.
_OF_DIAGNOSES = (
    ("accuracy", "accuracy at 0.5", "As in the authors' notebook."),
    ("roc_auc", "ROC-AUC", "Chance is 0.5."),
    (
        "f1",
        "F1 at Youden's J of the test, as in the paper",
        "The threshold is chosen on the test itself, over all tones, by the rule of the authors' notebook. "
        "So these scores are optimistic.",
    ),
    (
        "accuracy_youden",
        "accuracy at Youden's J of the test",
        "Optimistic too. By the paper's ROC curves, FEDD's published accuracies on its 30 photographs are at "
        "this point, DeepDerm's are not.",
    ),
    (
        "f1_validation",
        "F1 at Youden's J of the validation photographs",
        _EXPECTED,
    ),
    (
        "accuracy_validation",
        "accuracy at Youden's J of the validation photographs",
        _EXPECTED,
    ),
)

#: The tables, in order: set, metric, title, description.
_TABLES: tuple[tuple[ImageSet, str, str, str], ...] = tuple(
    (measured_on, *table)
    for measured_on in _CALLED
    for table in (_OF_MASKS if measured_on.task == SEGMENTATION else _OF_DIAGNOSES)
)

_COMPARED = "The paper's value and our difference from it follow, where the paper has one."


@dataclass(frozen=True)
class ReproductionTable:
    """A titled table; a cell may have several lines."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join(
            "| " + " | ".join(cell.replace("\n", "<br>") for cell in line) + " |" for line in lines
        )
        return f"## {self.title}\n\n{self.note}\n\n{body}\n"

    def html(self) -> str:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{_html_lines(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return (
            f"<h2>{escape(self.title)}</h2>\n<p>{escape(self.note)}</p>\n"
            f"<table>\n<tr>{head}</tr>\n{body}\n</table>\n"
        )


def tables(
    found: Sequence[ModelScore],
    gained: Sequence[Improvement],
    results: Sequence[Result],
    plan: Plan,
) -> list[ReproductionTable]:
    """Return all tables that have scores."""
    made = [_improvements(gained, plan), *(_score_table(found, plan, *row) for row in _TABLES)]
    return [table for table in made if table.rows] + ([_costs(results, plan)] if results else [])


def markdown(title: str, introduction: Sequence[str], made: Sequence[ReproductionTable]) -> str:
    """Return the page `table.md`."""
    return "\n".join(
        [f"# {title}\n", *(f"{p}\n" for p in introduction), *(t.markdown() for t in made)]
    )


def results_csv(found: Sequence[ModelScore]) -> str:
    """Return one row for each score, with all its fields."""
    names = [field.name for field in fields(ModelScore)]
    header = ["figure" if name == "metric" else name for name in names]
    rows: list[list[object]] = [[*header, "difference", "note"]]
    for s in found:
        note = DISCLAIMER if s.task == CLASSIFICATION else ""
        cells = [*(getattr(s, name) for name in names), s.difference]
        rows.append([*map(_csv_cell, cells), note])
    return csv_text(rows)


def improvements_csv(gained: Sequence[Improvement]) -> str:
    """Return one row for each improvement over the next best model."""
    rows: list[list[object]] = [
        ["measured_on", "figure", "fraction", "next_best", "chosen_on", "value", "low", "high", "n",
         "patients", "too_few", "paper", "difference"]
    ]  # fmt: skip
    for each in gained:
        e = each.estimate
        cells = [
            each.measured_on, each.metric, each.fraction, each.next_best, each.chosen_on, e.value, e.low,
            e.high, e.n, e.groups, e.lacking, each.paper, each.difference,
        ]  # fmt: skip
        rows.append([*map(_csv_cell, cells)])
    return csv_text(rows)


def called(measured_on: ImageSet, n: int) -> str:
    """Return what a set of n photographs is, for a title."""
    return _CALLED[measured_on].format(n=n)


def _improvements(gained: Sequence[Improvement], plan: Plan) -> ReproductionTable:
    """Return supplementary table 3: FEDD minus the next best model."""
    rows = []
    for measured_on, metric, chosen_on in dict.fromkeys(
        (each.measured_on, each.metric, each.chosen_on) for each in gained
    ):
        of_row = {
            each.fraction: each
            for each in gained
            if (each.measured_on, each.metric, each.chosen_on) == (measured_on, metric, chosen_on)
        }
        n = next(iter(of_row.values())).estimate.n
        name = {"miou": "mean IoU", "accuracy": "accuracy"}[metric]
        rows.append(
            [
                f"{name}\n{called(measured_on, n)}",
                chosen_on.value,
                *(_gain(of_row.get(f), metric) for f in plan.fractions),
            ]
        )
    note = (
        "FEDD minus the next best model, on the same photographs, with the interval of the paired "
        "difference. The paper takes the next best on the test; the one that validation chooses, without a "
        "look at the test, stands beside it. Accuracy is in percentage points. "
        f"Accuracies are {DISCLAIMER}."
    )
    if any(each.chosen_by != each.metric for each in gained):
        note += (
            " The validation photographs lack a tone: there the IoU that chooses is pooled over all of them, "
            "not the mean of the tones."
        )
    header = ["metric", "next best on", *(f"{f} %" for f in plan.fractions)]
    return ReproductionTable("FEDD over the next best model (table 3)", note, header, rows)


def _gain(gain: Improvement | None, metric: str) -> str:
    if gain is None:
        return "not run"
    points = metric == "accuracy"
    form, scale = ("+.1f", 100) if points else ("+.3f", 1)
    e = gain.estimate
    lines = [
        e.text(form, scale=scale),
        f"over {gain.next_best}, {sample_size(e.n, e.groups)}",
    ]
    if gain.paper is not None and gain.difference is not None:
        published = f"{100 * gain.paper:.0f}" if points else f"{gain.paper:.2f}"
        lines.append(f"paper {published}, {scale * gain.difference:{form}}")
    return "\n".join(lines)


def _score_table(
    found: Sequence[ModelScore],
    plan: Plan,
    measured_on: ImageSet,
    metric: str,
    title: str,
    note: str,
) -> ReproductionTable:
    known, task = by_key(found), measured_on.task
    rows = []
    for tone, of_group, label in _row_groups(metric):
        for model in plan.models[task]:
            of_row = [known.get((measured_on, model, f, tone, of_group)) for f in plan.fractions]
            if any(of_row):
                rows.append([label, model, *(_cell(s) for s in of_row)])
    of_set = [s for s in found if s.measured_on == measured_on]
    learned = {s.fraction: s.learned for s in of_set}
    n = max((s.n for s in of_set), default=0)
    header = ["tone", "model"] + [
        f"{f} %" + (f" ({learned[f]} photographs)" if f in learned else "") for f in plan.fractions
    ]
    if not plan.small:
        compared = any(s.metric == metric and s.paper is not None for s in of_set)
        note = f"{note} {_COMPARED if compared else 'The paper has no such value.'}".lstrip()
    if task == CLASSIFICATION:
        note = f"{DISCLAIMER.capitalize()}. {note}"
    title = f"{task.capitalize()}: {title}, {called(measured_on, n)}"
    return ReproductionTable(title, note, header, rows)


def _row_groups(metric: str) -> list[tuple[str, str, str]]:
    """Return tone, metric and label of the groups of rows; that of all photographs together after all."""
    groups = [(tone, metric, GROUP_LABELS[tone]) for tone in GROUPS]
    return [groups[0], (ALL, f"{metric}_pooled", "all, pooled"), *groups[1:]]


def _cell(s: ModelScore | None) -> str:
    if s is None:
        return "not run"
    lines = [s.estimate.text(".3f"), sample_size(s.n, s.patients)]
    if s.value is None:
        return "\n".join(lines)
    if s.seeds > 1:
        lines[1] += f", {s.seeds} seeds: {s.lowest:.3f} to {s.highest:.3f}"
    if s.paper is not None:
        lines.append(f"paper {s.paper:.3f}, {s.difference:+.3f}")
    return "\n".join(lines)


def _costs(results: Sequence[Result], plan: Plan) -> ReproductionTable:
    rows = []
    for task, models in plan.models.items():
        for model in models:
            of_model = [r for r in results if (r.cell.task, r.cell.model) == (task, model)]
            if of_model:
                rows.append([task, model, *_cost_cells(of_model, plan)])
    cost = paper_results()["cost"]
    note = (
        "Of a cell: training and one pass over the test; mean over the seeds. The first FEDD cells also "
        "run the backbone, whose activations the later ones read from disk. The paper states "
        f"{cost['minutes_per_mlp']} minutes for each of FEDD's {cost['members']} MLPs on an "
        f"{cost['gpu']}, {cost['host_memory_gb']} GB of host memory, and "
        f"{cost['images_per_second']} photographs per second."
    )
    fractions = [f"{f} %" for f in plan.fractions]
    header = ["task", "model", *fractions, "peak memory", "peak of the GPU"]
    return ReproductionTable("Costs", note, header, rows)


def _cost_cells(of_model: Sequence[Result], plan: Plan) -> list[str]:
    cells = []
    for fraction in plan.fractions:
        seconds = [r.cost.seconds for r in of_model if r.cell.fraction == fraction]
        cells.append(f"{np.mean(seconds):.1f} s" if seconds else "not run")
    gpu = [r.cost.gpu_bytes for r in of_model if r.cost.gpu_bytes is not None]
    cells.append(f"{max(r.cost.peak_rss for r in of_model) / 1e9:.1f} GB")
    cells.append(f"{max(gpu) / 1e9:.1f} GB" if gpu else "none used")
    return cells


def _html_lines(cell: str) -> str:
    first, *others = cell.split("\n")
    return escape(first) + "".join(f"<small>{escape(line)}</small>" for line in others)


def _csv_cell(value: object) -> object:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else value
