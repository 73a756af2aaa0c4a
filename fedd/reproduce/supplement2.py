"""The supplement's figure 2: ROC curves of DeepDerm and FEDD by fraction, with the dermatologists' point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedd.figures import INK, LINE, MUTED, PAPER, SERIES, new_figure
from fedd.malignancy.discrimination import roc_curve
from fedd.paper import results as paper_results
from fedd.reproduce.cells import Workbench
from fedd.reproduce.plan import CLASSIFICATION, DEEPDERM, FEDD, Cell
from fedd.reproduce.results import Result
from fedd.reproduce.scores import truth_and_probabilities
from fedd.reproduce.split import ImageSet

#: The fractions' colours, from the smallest on.
_COLOURS = (SERIES[3], SERIES[7], SERIES[4], SERIES[0], *SERIES)


def draw_supplement2(results: Sequence[Result], workbench: Workbench) -> Any:
    """Draw a panel of each model: ours by fraction, and the paper's curves, dashed."""
    plan = workbench.plan
    figure, axes = new_figure(10.5, 4.6, 1, 2, sharey=True)
    for axis, model in zip(axes[0], (DEEPDERM, FEDD), strict=True):
        axis.plot((0, 1), (0, 1), color=LINE, linewidth=1, zorder=0)
        counts = "not run"
        for fraction, colour in zip(plan.fractions, _COLOURS, strict=False):
            if not plan.small:
                _draw_papers(axis, model, fraction, colour)
            for result in results:
                if result.cell == Cell(CLASSIFICATION, model, fraction, plan.seeds[0]):
                    tested = workbench.split.sets[ImageSet.BALANCED]
                    truth, found = truth_and_probabilities(result, tested)
                    false_positive, true_positive, _ = roc_curve(truth, found)
                    axis.plot(false_positive, true_positive, color=colour, linewidth=2.2, zorder=5)
                    counts = f"n = {len(truth)}, {int(truth.sum())} malignant"
        if not plan.small:
            mark_dermatologists(axis)
        axis.set_aspect("equal")
        axis.set_title(f"{model}, {counts}", loc="left", fontsize=10, color=INK)
        axis.set_xlabel("false positive rate", color=MUTED, fontsize=9)
    axes[0, 0].set_ylabel("true positive rate", color=MUTED, fontsize=9)
    figure.legend(
        handles=_handles(plan.fractions, paper=not plan.small), loc="center left",
        bbox_to_anchor=(0.92, 0.5), frameon=False, fontsize=8.5, labelcolor=MUTED, handlelength=1.8,
    )  # fmt: skip
    return figure


def mark_dermatologists(axis: Any) -> None:
    """Draw the paper's point of the ensemble of dermatologists."""
    point = paper_results()["dermatologists"]
    axis.plot(
        point["false_positive_rate"], point["true_positive_rate"], "o", color=INK, markersize=7,
        markeredgecolor=PAPER, zorder=9,
    )  # fmt: skip


def dermatologists_handle() -> Any:
    """Return the point's entry in a legend."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=INK,
        marker="o",
        markersize=7,
        linewidth=0,
        label="dermatologists, in the paper",
    )


def _draw_papers(axis: Any, model: str, fraction: int, colour: str) -> None:
    curves = paper_results()["roc_curves"]
    steps = curves.get(model, {}).get(str(fraction))
    if steps is None:
        return
    whole = curves["images_of_each_class"]
    x, y = ([step[which] / whole for step in steps] for which in (0, 1))
    axis.plot(x, y, color=colour, linewidth=1.1, linestyle=(0, (3, 2)), zorder=3)


def _handles(fractions: Sequence[int], *, paper: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linewidth=2.2, label=f"{fraction} % of DDI")
        for fraction, colour in zip(fractions, _COLOURS, strict=False)
    ]
    if paper:
        dashes = Line2D(
            [], [], color=MUTED, linewidth=1.1, linestyle=(0, (3, 2)), label="the paper's"
        )
        handles += [dashes, dermatologists_handle()]
    return handles
