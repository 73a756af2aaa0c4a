"""What the report says: the catalogue's numbers as the page's tables and figures have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from annotation_protocol import Protocol
from annotation_protocol.estimates import FEW, ClassEstimates, Estimate, too_few
from ddiseg.catalogue import Catalogue, State
from ddiseg.catalogue.tables import Image
from ddiseg.report.figures import Bar, Dot, dot_panels, stacked_bars

#: Diagnoses that get a bar of their own.
TOP_DIAGNOSES = 15


@dataclass(frozen=True)
class Table:
    """Counts by row and column, with totals; rows and columns of the protocol come in its order."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...], int], ...]  #: label, counts, total
    totals: tuple[int, ...]
    n: int


def table(counts: dict[tuple[str, str], int], rows: Sequence[str], columns: Sequence[str]) -> Table:
    """Counts by (row, column) as a table; columns and rows without any image are left out."""
    used = [c for c in columns if any(counts.get((r, c)) for r in rows)]
    body = []
    for row in rows:
        found = tuple(counts.get((row, c), 0) for c in used)
        if any(found):
            body.append((row, found, sum(found)))
    totals = tuple(sum(found[k] for _, found, _ in body) for k in range(len(used)))
    return Table(tuple(used), tuple(body), totals, sum(totals))


def tones_by_state(catalogue: Catalogue, protocol: Protocol) -> Table:
    states = [state.value for state in State]
    return table(catalogue.images.counts(), [t.name for t in protocol.tones], states)


def skips_by_tone(catalogue: Catalogue, protocol: Protocol, images: Sequence[Image]) -> Table:
    tone = {i.id: i.tone for i in images}
    labels = {r.key: r.label for r in protocol.skip_reasons}
    counts = Counter(
        (labels.get(s.reason, s.reason), tone[s.image_id]) for s in catalogue.images.skips()
    )
    reasons = list(dict.fromkeys([*labels.values(), *(reason for reason, _ in counts)]))
    return table(counts, reasons, [t.name for t in protocol.tones])


def subsets_by_tone(catalogue: Catalogue, protocol: Protocol) -> Table:
    sizes = catalogue.subsets.sizes()
    counts = {(name, tone): n for name, tones in sizes.items() for tone, n in tones.items()}
    return table(counts, list(sizes), [t.name for t in protocol.tones])


@dataclass(frozen=True)
class Diagnoses:
    """The images by diagnosis, as figure 1 of the paper shows them."""

    series: tuple[tuple[str, str], ...]  #: name, and what the page calls its colour
    bars: tuple[Bar, ...]
    figure: str  #: SVG


def diagnoses(images: Sequence[Image], protocol: Protocol) -> Diagnoses | None:
    """Bars split by malignancy, or by tone where no malignancy is known; None without diagnoses."""
    if not any(i.diagnosis for i in images):
        return None
    if any(i.malignant is not None for i in images):
        names = {True: "malignant", False: "benign", None: "not known"}
        part = {i.id: names[i.malignant] for i in images}
        series = dict(zip(names.values(), ("malignant", "benign", "unknown"), strict=True))
    else:
        part = {i.id: i.tone for i in images}
        series = {t.name: f"tone-{k}" for k, t in enumerate(protocol.tones, 1)}
    counts = Counter(((i.diagnosis or "").strip() or "not given", part[i.id]) for i in images)
    totals: Counter[str] = Counter()
    for (diagnosis, _), n in counts.items():
        totals[diagnosis] += n
    named = sorted(totals.keys() - {"not given"}, key=lambda d: (-totals[d], d))
    top, rest = named[:TOP_DIAGNOSES], named[TOP_DIAGNOSES:]

    def bar(label: str, of: Sequence[str]) -> Bar:
        return Bar(label, tuple(sum(counts[d, s] for d in of) for s in series))

    bars = [bar(d, [d]) for d in top]
    if rest:
        bars.append(bar(f"other ({len(rest)} diagnoses)", rest))
    if "not given" in totals:
        bars.append(bar("not given", ["not given"]))
    title = f"Number of images by diagnosis, n = {len(images)}"
    figure = stacked_bars(bars, list(series.values()), "diagnoses", title)
    return Diagnoses(tuple(series.items()), tuple(bars), figure)


@dataclass(frozen=True)
class Score:
    """One row of the evaluation, as text."""

    name: str
    iou_mean: str
    iou_pooled: str
    dice_mean: str
    n: int
    patients: int
    few: bool


@dataclass(frozen=True)
class Evaluation:
    """The last evaluation, as the page shows it."""

    at: str
    models: dict[str, int]  #: images by the model whose prediction was scored
    truth: str
    subset: str | None
    n_images: int
    patients: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]  #: whose predictions they are, what flatters the figures
    by_class: tuple[Score, ...]
    by_tone: tuple[tuple[str, tuple[Score, ...]], ...]
    figure: str | None  #: SVG


def last_evaluation(catalogue: Catalogue, protocol: Protocol) -> Evaluation | None:
    """Return the newest evaluation; None where nothing was evaluated yet."""
    last = catalogue.evaluations.last()
    if last is None:
        return None
    at, found = last
    tones = sorted(found.by_tone, key=_order([t.name for t in protocol.tones]))
    counts = (
        (found.learned_from, "whose mask the model learned from"),
        (found.without_prediction, "without a prediction"),
        (len(found.refused), "whose true mask could not be used"),
    )
    return Evaluation(
        at=at,
        models=found.models,
        truth=PurePath(found.truth).name or found.truth,
        subset=found.subset,
        n_images=found.n_images,
        patients=found.patients,
        left_out=tuple(f"{n} {which}" for n, which in counts if n),
        notes=found.notes,
        by_class=_scores(found.classes, protocol),
        by_tone=tuple((tone, _scores(found.by_tone[tone], protocol)) for tone in tones),
        figure=_figure(found.classes, {tone: found.by_tone[tone] for tone in tones}, protocol),
    )


def _scores(values: dict[str, ClassEstimates], protocol: Protocol) -> tuple[Score, ...]:
    return tuple(
        Score(
            name=name,
            iou_mean=_with_interval(values[name].iou_mean),
            iou_pooled=_with_interval(values[name].iou_pooled),
            dice_mean=_with_interval(values[name].dice_mean),
            n=values[name].n,
            patients=values[name].groups,
            few=too_few(values[name].n),
        )
        for name in sorted(values, key=_order(protocol.class_names))
    )


def _with_interval(estimate: Estimate) -> str:
    """Return the value and its interval; without an interval neither."""
    return estimate.text() if estimate.interval else "—"


def _figure(
    classes: dict[str, ClassEstimates],
    by_tone: dict[str, dict[str, ClassEstimates]],
    protocol: Protocol,
) -> str | None:
    panels = {}
    for name in sorted(classes, key=_order(protocol.class_names)):
        if classes[name].iou_mean.value is not None:
            groups = {"all": classes, **by_tone}
            panels[name] = {group: _dot(of[name]) for group, of in groups.items()}
    if not panels:
        return None
    title = "Mean IoU with its 95 % interval by class and tone; the table below has the numbers"
    return dot_panels(panels, FEW, "evaluation", title)


def _dot(score: ClassEstimates) -> Dot:
    interval = score.iou_mean.interval
    return Dot(None if interval is None else score.iou_mean.value, interval, score.n)


def _order(names: Sequence[str]) -> Any:
    """A sort key: the order of `names`, whatever is not among them last."""
    return lambda name: (names.index(name) if name in names else len(names), name)
