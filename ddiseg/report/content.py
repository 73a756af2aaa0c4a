"""Content of the report from the catalogue: counts, diagnoses, the last evaluation and robustness run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from annotation_protocol import Protocol
from annotation_protocol.estimates import ClassEstimates, Estimate, too_few
from ddiseg.catalogue import Catalogue, State
from ddiseg.catalogue.records import EvaluationRecord, RobustnessRecord
from ddiseg.report.figures import Bar, dot_panels, stacked_bars
from ddiseg.report.tables import ReportRow, ReportTable, count_table
from ddiseg.sampling.leaks import leaked_in_last_evaluation

#: Subsets that the table shows, so that a page stays short.
ROWS = 50

#: Diagnoses that get a bar of their own.
TOP_DIAGNOSES = 15


def tones_by_state(catalogue: Catalogue, protocol: Protocol) -> ReportTable:
    states, tones = [state.value for state in State], [t.name for t in protocol.tones]
    counts = catalogue.images.counts()
    return count_table("Number of images by tone and state", "tone", counts, tones, states)


def skips_by_tone(catalogue: Catalogue, protocol: Protocol) -> ReportTable:
    labels = {r.key: r.label for r in protocol.skip_reasons}
    counts: Counter[tuple[str, str]] = Counter()
    for (reason, tone), n in catalogue.images.skip_counts_by_tone().items():
        counts[labels.get(reason, reason), tone] += n
    reasons = list(dict.fromkeys([*labels.values(), *(reason for reason, _ in counts)]))
    tones = [t.name for t in protocol.tones]
    title = "Number of skipped images by reason and tone"
    return count_table(title, "reason", counts, reasons, tones)


def subsets_by_tone(catalogue: Catalogue, protocol: Protocol) -> ReportTable:
    sizes = catalogue.subsets.sizes()
    shown = dict(list(sizes.items())[:ROWS])
    counts = {(name, tone): n for name, tones in shown.items() for tone, n in tones.items()}
    tones = [t.name for t in protocol.tones]
    title = "Number of images by subset and tone"
    table = count_table(title, "subset", counts, list(shown), tones, disjoint=False)
    if len(sizes) == len(shown):
        return table
    more = f"The first {ROWS} of {len(sizes)} subsets by name; 'ddiseg subset list' shows all."
    return replace(table, notes=(more,))


@dataclass(frozen=True)
class Diagnoses:
    """The images by diagnosis, as in figure 1 of the paper."""

    series: tuple[tuple[str, str], ...]  #: name, and the page's name for its colour
    bars: tuple[Bar, ...]
    figure: str  #: SVG


def diagnoses(
    images: Mapping[tuple[str | None, bool | None, str], int], protocol: Protocol
) -> Diagnoses | None:
    """Return bars split by malignancy, or by tone where none is known; None without diagnoses.

    Args:
        images: numbers by (diagnosis, malignant, tone).
    """
    if not any(diagnosis for diagnosis, _, _ in images):
        return None
    by_malignancy = any(malignant is not None for _, malignant, _ in images)
    names = {True: "malignant", False: "benign", None: "not known"}
    if by_malignancy:
        series = dict(zip(names.values(), ("malignant", "benign", "unknown"), strict=True))
    else:
        series = {t.name: f"tone-{k}" for k, t in enumerate(protocol.tones, 1)}
    counts: Counter[tuple[str, str]] = Counter()
    for (diagnosis, malignant, tone), n in images.items():
        part = names[malignant] if by_malignancy else tone
        counts[(diagnosis or "").strip() or "not given", part] += n
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
    title = f"Number of images by diagnosis, n = {sum(images.values())}"
    figure = stacked_bars(bars, list(series.values()), "diagnoses", title)
    return Diagnoses(tuple(series.items()), tuple(bars), figure)


@dataclass(frozen=True)
class EvaluationSection:
    """The last evaluation, as the page shows it."""

    at: str
    record: EvaluationRecord
    leaked: int  #: images that turned out to share a group with what the model learned from
    truth: str
    left_out: tuple[str, ...]
    table: ReportTable
    figure: str | None  #: SVG


@dataclass(frozen=True)
class RobustnessSection:
    """The last robustness run, as the page shows it."""

    at: str
    record: RobustnessRecord
    left_out: tuple[str, ...]
    table: ReportTable
    figure: str | None  #: SVG


def last_evaluation(catalogue: Catalogue, protocol: Protocol) -> EvaluationSection | None:
    """Return the newest evaluation; None where nothing was evaluated yet."""
    last = catalogue.evaluations.last()
    if last is None:
        return None
    at, record = last
    tones = sorted(record.by_tone, key=_order([t.name for t in protocol.tones]))
    classes = sorted(record.classes, key=_order(protocol.class_names))
    groups = {"all": record.classes, **{tone: record.by_tone[tone] for tone in tones}}
    panels = {
        name: {tone: of[name].iou_mean for tone, of in groups.items()}
        for name in classes
        if record.classes[name].iou_mean.value is not None
    }
    by_group = {
        "all tones" if tone == "all" else f"tone {tone}": {
            name: of[name] for name in classes if name in of
        }
        for tone, of in groups.items()
    }
    return EvaluationSection(
        at=at,
        record=record,
        leaked=leaked_in_last_evaluation(catalogue),
        truth=PurePath(record.truth).name or record.truth,
        left_out=_left_out(
            (record.learned_from, "with masks that the model was trained on"),
            (
                record.same_group,
                "of a group (patient, lesion, near-duplicates) that it was trained on",
            ),
            (record.without_prediction, "without a prediction"),
            (len(record.refused), "with an unusable true mask"),
        ),
        table=_estimate_table(
            "IoU and Dice by tone and class",
            "tone and class",
            by_group,
            {"mean IoU": "iou_mean", "pooled IoU": "iou_pooled", "mean Dice": "dice_mean"},
            ".2f",
        ),
        figure=_figure(
            panels,
            "evaluation",
            "Mean IoU with its 95 % interval by class and tone; the table below has the numbers",
        ),
    )


def last_robustness_run(catalogue: Catalogue) -> RobustnessSection | None:
    """Return the newest robustness run; None where there was none yet."""
    last = catalogue.robustness.last()
    if last is None:
        return None
    at, record = last
    by_change = {
        f"{change} (control)" if change == record.control else change: by_tone
        for change, by_tone in record.by_change.items()
    }
    panels = {
        change: {tone: estimates.iou_mean for tone, estimates in by_tone.items()}
        for change, by_tone in by_change.items()
    }
    by_group = {
        change: {
            "all tones" if tone == "all" else f"tone {tone}": estimates
            for tone, estimates in by_tone.items()
        }
        for change, by_tone in by_change.items()
    }
    return RobustnessSection(
        at=at,
        record=record,
        left_out=_left_out(
            (record.learned_from, "that the model was trained on"),
            (
                record.same_group,
                "of a group (patient, lesion, near-duplicates) that it was trained on",
            ),
            (len(record.refused), "that can't be read"),
            (record.without_lesion, "without a lesion in any prediction"),
        ),
        table=_estimate_table(
            "Predictions of the lesion before and after a change, by change and tone",
            "change and tone",
            by_group,
            {"mean IoU": "iou_mean", "mean Dice": "dice_mean"},
            ".3f",  # values close to 1 differ in the third place
        ),
        figure=_figure(
            panels,
            "sensitivity",
            "Mean IoU of the lesion's predictions before and after a change of light, with its 95 % "
            "interval, by change and tone; the table below has the numbers",
        ),
    )


def _left_out(*counts: tuple[int, str]) -> tuple[str, ...]:
    return tuple(f"{n} {reason}" for n, reason in counts if n)


def _estimate_table(
    title: str,
    first: str,
    groups: Mapping[str, Mapping[str, ClassEstimates]],
    columns: Mapping[str, str],
    form: str,
) -> ReportTable:
    """Return a table with a column for each of the estimates, and the sizes that they share."""

    def row(label: str, estimates: ClassEstimates) -> ReportRow:
        few = too_few(estimates.groups)
        shown: list[Estimate] = [getattr(estimates, name) for name in columns.values()]
        cells = [estimate.text(form) if estimate.n else "—" for estimate in shown]
        sizes = str(estimates.n), str(estimates.groups)
        return ReportRow(label, (*cells, *sizes, "too few patients" if few else ""), few)

    return ReportTable(
        title=title,
        columns=(*(f"{name} [95 % CI]" for name in columns), "images (n)", "patients", "remark"),
        groups=tuple(
            (name, tuple(row(label, estimates) for label, estimates in of.items()))
            for name, of in groups.items()
        ),
        first=first,
    )


def _figure(panels: dict[str, dict[str, Estimate]], key: str, title: str) -> str | None:
    if not any(e.n for estimates in panels.values() for e in estimates.values()):
        return None
    return dot_panels(panels, key, title)


def _order(names: Sequence[str]) -> Any:
    """Return a sort key: the order of `names`, others last."""
    return lambda name: (names.index(name) if name in names else len(names), name)
