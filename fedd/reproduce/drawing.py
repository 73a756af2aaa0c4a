"""Figures of a reproduction: those of the paper and its supplement, F1 by tone, costs.

Ours are filled marks with 95 % intervals; the paper's are hollow marks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedd.dataset import ALL, DatasetImage
from fedd.errors import FeddError
from fedd.explore.ablation import Ablation
from fedd.figures import INK, LINE, MUTED, PAPER, SERIES, new_figure, save
from fedd.malignancy.discrimination import roc_curve
from fedd.paper import results as paper_results
from fedd.reproduce import captions
from fedd.reproduce.cells import Workbench
from fedd.reproduce.figure1 import draw_figure1
from fedd.reproduce.improvement import next_best
from fedd.reproduce.pictures import draw_figure5, write_supplement1
from fedd.reproduce.plan import CLASSIFICATION, DEEPDERM, FEDD, SEGMENTATION, Cell, Plan, Task
from fedd.reproduce.results import Result
from fedd.reproduce.scores import Key, ModelScore, by_key, truth_and_probabilities
from fedd.reproduce.split import ImageSet, PaperSplit
from fedd.reproduce.supplement2 import (
    dermatologists_handle,
    draw_supplement2,
    mark_dermatologists,
)
from fedd.reproduce.table import GROUP_LABELS, GROUPS, called

#: The models' colours in all figures.
COLOURS = {
    FEDD: SERIES[0],
    "EfficientNetB0": SERIES[1],
    "VGG16": SERIES[4],
    "DenseNet121": SERIES[5],
    "ResNet50": SERIES[7],
    "MobileNetV2": SERIES[3],
    DEEPDERM: INK,
}

#: The scale from 0 to 1, with room for a mark at either end.
_UNIT_SCALE = (-0.03, 1.03)

Scores = Mapping[Key, ModelScore]


def draw_all(
    found: Sequence[ModelScore],
    results: Sequence[Result],
    workbench: Workbench,
    folder: Path,
    ablation: Ablation | None = None,
) -> tuple[list[tuple[Path, str]], list[str]]:
    """Write the figures that have results, and those of an ablation.

    Returns each file that was written with its caption, and why the others could not be.
    """
    made = _figures(found, results, workbench)
    written: list[tuple[Path, str]] = []
    problems: list[str] = []
    for name, figure, caption in made:
        with _noted(problems):
            save(figure, folder / name)
            written.append((folder / name, caption))
    plan = workbench.plan
    if ablation is not None:
        with _noted(problems):
            maps = _heat_maps(ablation, plan)
            written += [(path, captions.figure6(path, paper=not plan.small)) for path in maps]
    supplement1 = folder / "supplement1.png"
    with _noted(problems):
        write_supplement1(workbench, supplement1)
        written.append((supplement1, captions.SUPPLEMENT1))
    return sorted(written, key=lambda each: _place(each[0])), problems


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Note why a figure can't be written: the others are."""
    try:
        yield
    except FeddError as error:
        problems.append(str(error))


def _figures(
    found: Sequence[ModelScore], results: Sequence[Result], workbench: Workbench
) -> list[tuple[str, Any, str]]:
    """Return name, figure and caption of the figures of the results."""
    known, plan = by_key(found), workbench.plan
    tasks = {result.cell.task for result in results}

    def marks(
        measured_on: Collection[ImageSet], metrics: Sequence[str], tones: Sequence[str]
    ) -> str:
        shown = [
            s
            for s in found
            if s.measured_on in measured_on and s.metric in metrics and s.tone in tones
        ]
        return captions.marks(shown)

    figure1 = draw_figure1(_photographs(workbench.split), GROUP_LABELS, paper=not plan.small)
    made: list[tuple[str, Any, str]] = [("figure1.png", figure1, captions.FIGURE1)]
    if SEGMENTATION in tasks:
        of4 = marks([ImageSet.SEGMENTATION_TEST], ["miou", "lesion_iou"], GROUPS)
        made.append(("figure4.png", _figure4(known, plan), f"{captions.FIGURE4} {of4}"))
        validation, most = ImageSet.SEGMENTATION_VALIDATION, max(plan.fractions)
        other, _ = next_best(known, plan.segmenters, validation, "miou", most)
        chosen = captions.NEXT_BEST.format(other) if other else ""
        figure5 = draw_figure5(workbench, other)
        made.append(("figure5.png", figure5, f"{captions.FIGURE5} {chosen}"))
    if CLASSIFICATION in tasks:
        of7 = marks([ImageSet.BALANCED, ImageSet.REMAINING], [name for name, _ in _COLUMNS7], [ALL])
        of_tones = marks([ImageSet.REMAINING], ["accuracy", "roc_auc"], GROUPS)
        of_f1 = marks([ImageSet.BALANCED], ["f1"], GROUPS)
        made += [
            ("figure7.png", _figure7(known, plan), f"{captions.FIGURE7} {of7}"),
            ("figure7-by-tone.png", _figure7_by_tone(known, plan), f"{captions.BY_TONE} {of_tones}"),
            ("roc.png", _roc(results, workbench), captions.ROC),
            ("supplement2.png", draw_supplement2(results, workbench), captions.SUPPLEMENT2),
            ("f1.png", _f1(known, plan), f"{captions.F1} {of_f1}"),
        ]  # fmt: skip
        made[-5:] = [
            (name, figure, f"{text} {captions.RESEARCH}") for name, figure, text in made[-5:]
        ]
    if results:
        made.append(("costs.png", _costs(results, plan), captions.COSTS))
    return made


#: Figures in the order of the page; the heat maps are between figures 5 and 7.
_ORDER = ("figure1", "figure4", "figure5", "figure6", "figure7", "roc", "supplement", "f1", "costs")


def _place(path: Path) -> tuple[int, str]:
    return next(n for n, name in enumerate(_ORDER) if path.stem.startswith(name)), path.stem


def _photographs(split: PaperSplit) -> list[DatasetImage]:
    """Return the photographs of all parts of the split, each once."""
    parts = (*split.learned.values(), *split.sets.values())
    return list({item.path: item for part in parts for item in part}.values())


def _heat_maps(ablation: Ablation, plan: Plan) -> list[Path]:
    """Draw the heat maps of an ablation, and return them; those by tone not in a small plan.

    Files of an earlier ablation under the same names are replaced, or not among the returned ones.
    """
    found = sorted(ablation.draw(), key=lambda path: path.stem)
    return [path for path in found if not (plan.small and path.stem.endswith("by-tone"))]


def _figure4(known: Scores, plan: Plan) -> Any:
    rows = (("miou", "mean IoU of the classes"), ("lesion_iou", "IoU of the lesion"))
    figure, axes = new_figure(13, 6.6, 2, len(GROUPS), sharex=True, sharey="row")
    for row, (name, label) in enumerate(rows):
        for column, tone in enumerate(GROUPS):
            _by_fraction(axes[row, column], known, plan, ImageSet.SEGMENTATION_TEST, name, tone)
        axes[row, 0].set_ylabel(label, color=MUTED, fontsize=9)
        axes[row, 0].set_ylim(*_UNIT_SCALE)
    _finish(figure, axes, known, plan, ImageSet.SEGMENTATION_TEST, "miou")
    return figure


#: The columns of figure 7: metric and label.
_COLUMNS7 = (
    ("accuracy", "accuracy at 0.5"),
    ("accuracy_youden", "accuracy at Youden's J of the test"),
    ("roc_auc", "ROC-AUC of malignant"),
)


def _figure7(known: Scores, plan: Plan) -> Any:
    """Draw accuracy and ROC-AUC on the two tests."""
    tests = (ImageSet.BALANCED, ImageSet.REMAINING)
    figure, axes = new_figure(
        13, 7.2, len(tests), len(_COLUMNS7), sharex=True, sharey="row", gridspec_kw={"hspace": 0.28}
    )
    for row, test in enumerate(tests):
        for column, (metric, label) in enumerate(_COLUMNS7):
            axis = axes[row, column]
            _by_fraction(axis, known, plan, test, metric, ALL)
            axis.set_title(label, loc="left", fontsize=10, color=INK)
            if metric == "roc_auc":
                axis.axhline(0.5, color=LINE, linewidth=1.4, zorder=0)
            axis.set_ylim(*_UNIT_SCALE)
            axis.tick_params(labelbottom=True)
        n = _count(known, test, ALL, "accuracy")
        axes[row, 0].set_ylabel(called(test, n), color=INK, fontsize=10)
    if not plan.small:
        doctors = paper_results()["dermatologists_roc_auc"]
        axes[0, -1].axhline(doctors, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    for axis in axes[-1]:
        axis.set_xlabel(captions.SHARE, color=MUTED, fontsize=9)
    _legend(
        figure, _measured(known, plan, CLASSIFICATION), paper=not plan.small, doctors=not plan.small
    )
    return figure


def _figure7_by_tone(known: Scores, plan: Plan) -> Any:
    rows = (("accuracy", "accuracy at 0.5"), ("roc_auc", "ROC-AUC of malignant"))
    figure, axes = new_figure(13, 6.6, len(rows), len(GROUPS), sharex=True, sharey="row")
    for row, (metric, label) in enumerate(rows):
        for column, tone in enumerate(GROUPS):
            _by_fraction(axes[row, column], known, plan, ImageSet.REMAINING, metric, tone)
        axes[row, 0].set_ylabel(label, color=MUTED, fontsize=9)
        axes[row, 0].set_ylim(*_UNIT_SCALE)
    _finish(figure, axes, known, plan, ImageSet.REMAINING, "accuracy")
    return figure


def _by_fraction(
    axis: Any, known: Scores, plan: Plan, measured_on: ImageSet, metric: str, tone: str
) -> None:
    """Draw lines over the fractions, shifted by model so that no interval hides another."""
    axis.grid(axis="y", color=LINE, linewidth=0.8)
    models = _measured(known, plan, measured_on.task)
    for number, model in enumerate(models):
        shift = (number - (len(models) - 1) / 2) * 0.1
        colour = COLOURS[model]
        ours = [known.get((measured_on, model, f, tone, metric)) for f in plan.fractions]
        theirs = [s.paper if s else None for s in ours]
        at = np.arange(len(plan.fractions)) + shift
        if model == FEDD:  # lines for all would hide one another
            axis.plot(
                at, _numbers(theirs), color=colour, linewidth=1, linestyle=(0, (2, 2)), zorder=2
            )
        axis.plot(
            at, _numbers(theirs), "o", markersize=4.5, markerfacecolor=PAPER, markeredgecolor=colour,
            zorder=3,
        )  # fmt: skip
        _with_intervals(axis, at, ours, colour, joined=True, bold=model == FEDD)
    of_panel = [s for key, s in known.items() if (key[0], *key[3:]) == (measured_on, tone, metric)]
    if all(s.value is None for s in of_panel):
        axis.text(0.5, 0.5, "too few to say", transform=axis.transAxes, ha="center", color=MUTED)
    axis.set_xticks(range(len(plan.fractions)), [f"{f} %" for f in plan.fractions])
    axis.set_xlim(-0.5, len(plan.fractions) - 0.5)


def _f1(known: Scores, plan: Plan) -> Any:
    figure, axes = new_figure(13, 3.9, 1, len(plan.fractions), sharey="row")
    models = [m for m in plan.classified if any(k[:2] == (ImageSet.BALANCED, m) for k in known)]
    for axis, fraction in zip(axes[0], plan.fractions, strict=True):
        axis.grid(axis="y", color=LINE, linewidth=0.8)
        for number, model in enumerate(models):
            shift = (number - (len(models) - 1) / 2) * 0.11
            ours = [known.get((ImageSet.BALANCED, model, fraction, tone, "f1")) for tone in GROUPS]
            at = np.arange(len(GROUPS)) + shift
            axis.plot(
                at, _numbers([s.paper if s else None for s in ours]), "o", markersize=4.5,
                markerfacecolor=PAPER, markeredgecolor=COLOURS[model], zorder=3,
            )  # fmt: skip
            _with_intervals(axis, at, ours, COLOURS[model], joined=False, bold=model == FEDD)
        axis.set_xticks(
            range(len(GROUPS)),
            [f"{t}\nn = {_count(known, ImageSet.BALANCED, t, 'f1')}" for t in GROUPS],
            fontsize=8,
        )
        axis.set_title(f"{fraction} % of DDI", loc="left", fontsize=10, color=INK)
    axes[0, 0].set_ylim(*_UNIT_SCALE)
    axes[0, 0].set_ylabel("F1 of malignant", color=MUTED, fontsize=9)
    _legend(figure, models, paper=not plan.small)
    return figure


def _with_intervals(
    axis: Any,
    at: NDArray[np.floating[Any]],
    ours: Sequence[ModelScore | None],
    colour: str,
    *,
    joined: bool,
    bold: bool,
) -> None:
    # A percentile interval need not contain the value itself.
    low, value, high = (
        _numbers([getattr(s, name) if s else None for s in ours])
        for name in ("low", "value", "high")
    )
    axis.vlines(at, low, high, color=colour, linewidth=1.2, alpha=0.55, zorder=4)
    axis.plot(
        at, value, "o-" if joined else "o", color=colour, markersize=5.5 if bold else 4,
        linewidth=2.2 if bold else 1.1, zorder=6 if bold else 5,
    )  # fmt: skip


def _roc(results: Sequence[Result], workbench: Workbench) -> Any:
    plan = workbench.plan
    figure, axes = new_figure(13, 3.0, 1, len(plan.fractions), sharex=True, sharey="row")
    for axis, fraction in zip(axes[0], plan.fractions, strict=True):
        axis.plot((0, 1), (0, 1), color=LINE, linewidth=1, zorder=0)
        axis.set_aspect("equal")
        counts = ""
        for result in results:
            cell = result.cell
            if cell != Cell(CLASSIFICATION, cell.model, fraction, plan.seeds[0]):
                continue
            truth, found = truth_and_probabilities(result, workbench.split.sets[ImageSet.BALANCED])
            false_positive, true_positive, _ = roc_curve(truth, found)
            bold = cell.model == FEDD
            axis.plot(
                false_positive, true_positive, color=COLOURS[cell.model],
                linewidth=2.4 if bold else 1.2, zorder=6 if bold else 5,
            )  # fmt: skip
            counts = f"n = {len(truth)}, {int(truth.sum())} malignant"
        if not plan.small:
            mark_dermatologists(axis)
        axis.set_title(f"{fraction} % of DDI", loc="left", fontsize=10, color=INK, pad=18)
        _under_title(axis, counts)
        axis.set_xlabel("false positive rate", color=MUTED, fontsize=9)
    axes[0, 0].set_ylabel("true positive rate", color=MUTED, fontsize=9)
    models = {r.cell.model for r in results if r.cell.task == CLASSIFICATION}
    shown = [m for m in plan.classified if m in models]
    _legend(figure, shown, paper=False, rise=0.5, point=not plan.small)
    return figure


def _costs(results: Sequence[Result], plan: Plan) -> Any:
    labels = [(t, m) for t, models in plan.models.items() for m in models]
    labels = [x for x in labels if any((r.cell.task, r.cell.model) == x for r in results)]
    figure, axes = new_figure(10, 0.9 + 0.3 * len(labels), 1, 2, sharey=True)
    for result in results:
        cell = result.cell
        row = labels.index((cell.task, cell.model))
        values = result.cost.seconds, result.cost.peak_rss / 1e9
        for axis, value in zip(axes[0], values, strict=True):
            axis.plot(value, row, "o", color=COLOURS[cell.model], markersize=5, alpha=0.8)
    for axis, label in zip(axes[0], ("seconds of a cell", "peak memory, GB"), strict=True):
        axis.grid(axis="x", color=LINE, linewidth=0.8)
        axis.set_xlabel(label, color=MUTED, fontsize=9)
    axes[0, 0].set_xscale("log")
    axes[0, 0].xaxis.set_major_formatter("{x:g}")
    axes[0, 0].tick_params(which="minor", length=0, labelbottom=False)
    axes[0, 1].set_xlim(left=0)
    axes[0, 0].set_yticks(range(len(labels)), [f"{model}, {task}" for task, model in labels])
    axes[0, 0].invert_yaxis()
    axes[0, 0].tick_params(axis="y", labelcolor=INK)
    return figure


def _finish(
    figure: Any, axes: Any, known: Scores, plan: Plan, measured_on: ImageSet, name: str
) -> None:
    """Draw the columns' titles with n, and the legend."""
    for axis, tone in zip(axes[0], GROUPS, strict=True):
        axis.set_title(_title(known, measured_on, tone, name), loc="left", fontsize=10, color=INK)
    for axis in axes[-1]:
        axis.set_xlabel(captions.SHARE, color=MUTED, fontsize=9)
    paper = any(s.paper is not None for key, s in known.items() if key[0] == measured_on)
    _legend(figure, _measured(known, plan, measured_on.task), paper=paper)


def _measured(known: Scores, plan: Plan, task: Task) -> list[str]:
    """Return the models of a task that have scores."""
    return [m for m in plan.models[task] if any(k[0].task == task and k[1] == m for k in known)]


def _title(known: Scores, measured_on: ImageSet, tone: str, name: str) -> str:
    return f"{GROUP_LABELS[tone]}, n = {_count(known, measured_on, tone, name)}"


def _count(known: Scores, measured_on: ImageSet, tone: str, name: str) -> int:
    """Return the number of photographs of a metric: the largest of any model."""
    of_metric = (measured_on, tone, name)
    return max((s.n for key, s in known.items() if (key[0], *key[3:]) == of_metric), default=0)


def _under_title(axis: Any, text: str) -> None:
    axis.annotate(
        text, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points",
        fontsize=8, color=MUTED,
    )  # fmt: skip


def _legend(
    figure: Any,
    models: Sequence[str],
    *,
    paper: bool,
    doctors: bool = False,
    point: bool = False,
    rise: float = 0.3,
) -> None:
    """Draw the legend of the models, `rise` inches above the axes."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[m], marker="o", markersize=5, linewidth=1.5, label=m)
        for m in models
    ]
    if paper:
        handles.append(
            Line2D(
                [], [], color=MUTED, marker="o", markersize=5, markerfacecolor=PAPER,
                linewidth=0.8, linestyle=(0, (2, 2)), label="the paper's",
            )
        )  # fmt: skip
    if doctors:
        handles.append(
            Line2D([], [], color=MUTED, linestyle=(0, (1, 2)), label="dermatologists, in the paper")
        )
    if point:
        handles.append(dermatologists_handle())
    above = figure.subplotpars.top + rise / figure.get_size_inches()[1]
    figure.legend(
        handles=handles, ncols=len(handles), loc="lower left", bbox_to_anchor=(0.115, above),
        frameon=False, fontsize=8.5, labelcolor=MUTED, handlelength=1.6, columnspacing=1.3,
    )  # fmt: skip


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in values])
