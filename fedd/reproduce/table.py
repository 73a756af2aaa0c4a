"""Tables of a reproduction: our scores and the paper's, with difference, n and interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape

import numpy as np

from annotation_protocol.csv_files import csv_text
from annotation_protocol.estimates import Estimate, sample_size
from fedd.dataset import ALL, TONES
from fedd.malignancy.classifier import DISCLAIMER
from fedd.paper import results as paper_results
from fedd.reproduce.plan import CLASSIFICATION, SEGMENTATION, Plan, Task
from fedd.reproduce.results import Result
from fedd.reproduce.scores import ModelScore, by_key

#: The groups of photographs, and their labels with the paper's names.
GROUPS = (ALL, *TONES)
GROUP_LABELS = {ALL: "all", TONES[0]: "I-II (light)", TONES[1]: "III-IV", TONES[2]: "V-VI (dark)"}

_UNBIASED = "at the threshold chosen on the validation split"
_EXPECTED = "What a new patient could expect."

#: The tables, in order: task, metric, title, description.
_TABLES: tuple[tuple[Task, str, str, str], ...] = (
    (
        SEGMENTATION,
        "miou",
        "Segmentation: mean IoU over the classes",
        "IoU of each class pooled over the photographs, then the mean over the classes, as in "
        "ddpm-segmentation, on which FEDD builds; the paper does not say which mean it took.",
    ),
    (SEGMENTATION, "lesion_iou", "Segmentation: IoU of the lesion", "Pooled over the photographs."),
    (
        SEGMENTATION,
        "lesion_iou_per_image",
        "Segmentation: IoU of the lesion, mean over the photographs",
        "Every photograph has the same weight, whatever the size of its lesion.",
    ),
    (CLASSIFICATION, "roc_auc", "Classification: ROC-AUC", "Chance is 0.5."),
    (
        CLASSIFICATION,
        "f1",
        "Classification: F1 at the best threshold of the test, as in the paper",
        "The threshold is chosen on the test itself, so these scores are optimistic; unbiased ones are "
        "in the table after next.",
    ),
    (
        CLASSIFICATION,
        "accuracy",
        "Classification: accuracy at the best threshold of the test, as in the paper",
        "At the threshold of the previous table.",
    ),
    (CLASSIFICATION, "f1_validation", f"Classification: F1 {_UNBIASED}", _EXPECTED),
    (CLASSIFICATION, "accuracy_validation", f"Classification: accuracy {_UNBIASED}", _EXPECTED),
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
    found: Sequence[ModelScore], results: Sequence[Result], plan: Plan
) -> list[ReproductionTable]:
    """Return all tables that have scores."""
    made = [_score_table(found, plan, *row) for row in _TABLES]
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


def _score_table(
    found: Sequence[ModelScore], plan: Plan, task: Task, metric: str, title: str, note: str
) -> ReproductionTable:
    known = by_key(found)
    rows = []
    for tone in GROUPS:
        for model in plan.models[task]:
            of_row = [known.get((task, model, f, tone, metric)) for f in plan.fractions]
            if any(of_row):
                rows.append([GROUP_LABELS[tone], model, *(_cell(s) for s in of_row)])
    learned = {s.fraction: s.learned for s in found}
    header = ["tone", "model"] + [
        f"{f} %" + (f" ({learned[f]} photographs)" if f in learned else "") for f in plan.fractions
    ]
    if not plan.small:
        compared = any(s.metric == metric and s.paper is not None for s in found)
        note += f" {_COMPARED if compared else 'The paper has no such value.'}"
    if task == CLASSIFICATION:
        note = f"{DISCLAIMER.capitalize()}. {note}"
    return ReproductionTable(title, note, header, rows)


def _cell(s: ModelScore | None) -> str:
    if s is None:
        return "not run"
    interval = None if s.low is None or s.high is None else (s.low, s.high)
    text = Estimate.of(s.value, interval, s.n, s.patients).text(".3f")
    lines = [text, sample_size(s.n, s.patients)]
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
