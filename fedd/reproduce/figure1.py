"""The paper's figure 1: how many photographs of each tone are malignant, and of which diagnoses.

Counts of the data set, not estimates: they have no intervals. The paper's are those of all of DDI.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedd.dataset import TONES, DatasetImage
from fedd.figures import INK, LINE, MUTED, PAPER, new_figure, short
from fedd.paper import results as paper_results

#: The tones' colours: they differ in lightness, for readers without colour too.
TONE_COLOURS = dict(zip(TONES, ("#e3c4a3", "#a9714b", "#4a2c1d"), strict=True))

#: Diagnoses that are drawn; the others are counted together.
_MOST = 20

#: Counts by tone.
Counts = Mapping[str, int]


def draw_figure1(items: Sequence[DatasetImage], labels: Mapping[str, str], *, paper: bool) -> Any:
    """Draw the counts of photographs of known tone and malignancy; `labels` are the tones' names.

    With `paper`, hollow marks are the paper's counts.
    """
    known = [i for i in items if i.malignant is not None and i.tone in TONES]
    theirs = paper_results()["dataset"] if paper else {}
    diagnoses = _diagnoses(known)
    if paper:
        for name in theirs["malignant_diagnoses"]:
            diagnoses.setdefault(name, dict.fromkeys(TONES, 0))
    papers = theirs.get("malignant_diagnoses", {})
    count = {n: max(sum(c.values()), sum(papers.get(n, {}).values())) for n, c in diagnoses.items()}
    shown = {name: diagnoses[name] for name in sorted(count, key=lambda n: (-count[n], n))[:_MOST]}
    height = max(3.4, 1.2 + 0.23 * len(shown))
    figure, axes = new_figure(
        13, height, 1, 2, gridspec_kw={"width_ratios": (1, 2), "wspace": 0.75}
    )
    _malignant_and_benign(axes[0, 0], known, theirs, labels)
    _malignant_diagnoses(axes[0, 1], shown, papers)
    left_out = f", the {_MOST} most frequent" if len(diagnoses) > _MOST else ""
    malignant = sum(bool(item.malignant) for item in known)
    for axis, title in (
        (axes[0, 0], f"n = {len(known)} photographs"),
        (axes[0, 1], f"Malignant diagnoses{left_out}, n = {malignant} photographs"),
    ):
        axis.set_title(title, loc="left", fontsize=10, color=INK)
    _legend(figure, labels, paper=paper)
    return figure


def _malignant_and_benign(
    axis: Any, known: Sequence[DatasetImage], theirs: Mapping[str, Any], labels: Mapping[str, str]
) -> None:
    counts = Counter((bool(item.malignant), item.tone) for item in known)
    axis.grid(axis="y", color=LINE, linewidth=0.8)
    for place, (malignant, name) in enumerate(((True, "malignant"), (False, "benign"))):
        for number, tone in enumerate(TONES):
            at = place + (number - 1) * 0.27
            count = counts[malignant, tone]
            axis.bar(at, count, 0.25, color=TONE_COLOURS[tone])
            axis.annotate(
                str(count), (at, count), (0, 4), textcoords="offset points", ha="center",
                fontsize=8, color=MUTED,
            )  # fmt: skip
            if theirs:
                _mark(axis, at, theirs[name][tone])
    axis.set_xticks((0, 1), ("malignant", "benign"))
    axis.tick_params(axis="x", labelcolor=INK)
    axis.set_ylabel("photographs", color=MUTED, fontsize=9)


def _malignant_diagnoses(
    axis: Any, diagnoses: Mapping[str, Counts], theirs: Mapping[str, Counts]
) -> None:
    axis.grid(axis="x", color=LINE, linewidth=0.8)
    for row, (name, by_tone) in enumerate(diagnoses.items()):
        start = 0
        for tone in TONES:
            axis.barh(row, by_tone[tone], 0.7, left=start, color=TONE_COLOURS[tone])
            start += by_tone[tone]
        if theirs:
            _mark(axis, sum(theirs.get(name, {}).values()), row)
    axis.set_yticks(range(len(diagnoses)), [_title(name) for name in diagnoses], fontsize=8)
    axis.tick_params(axis="y", labelcolor=INK)
    axis.set_ylim(len(diagnoses) - 0.4, -0.6)
    axis.set_xlim(left=-0.3)
    axis.set_xlabel("photographs", color=MUTED, fontsize=9)


def _mark(axis: Any, x: float, y: float) -> None:
    axis.plot(
        x, y, "o", markersize=5, markerfacecolor=PAPER, markeredgecolor=INK, markeredgewidth=1.1,
        clip_on=False, zorder=5,
    )  # fmt: skip


def _diagnoses(known: Sequence[DatasetImage]) -> dict[str, dict[str, int]]:
    """Return the number of malignant photographs by diagnosis, in DDI's spelling, and tone."""
    counts = Counter((_key(i.diagnosis), i.tone) for i in known if i.malignant and i.diagnosis)
    names = {name for name, _ in counts}
    return {name: {tone: counts[name, tone] for tone in TONES} for name in names}


def _key(diagnosis: str) -> str:
    """Return a diagnosis in one spelling: DDI writes words with hyphens."""
    return " ".join(diagnosis.replace("-", " ").split()).lower()


def _title(name: str) -> str:
    return short(name.title(), 46)


def _legend(figure: Any, labels: Mapping[str, str], *, paper: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(facecolor=TONE_COLOURS[t], label=labels[t]) for t in TONES]
    if paper:
        handles.append(
            Line2D(
                [], [], color=INK, marker="o", markersize=5, markerfacecolor=PAPER, linewidth=0,
                label="the paper's, of all tones at the right",
            )
        )  # fmt: skip
    above = figure.subplotpars.top + 0.3 / figure.get_size_inches()[1]
    figure.legend(
        handles=handles, ncols=len(handles), loc="lower left", bbox_to_anchor=(0.115, above),
        frameon=False, fontsize=8.5, labelcolor=MUTED, handlelength=1.2, columnspacing=1.3,
    )  # fmt: skip
