"""Findings of an annotator study: one sentence each, with its sizes and intervals.

A sentence begins with the conclusion that the interval allows. Where there is no estimate there is no
sentence; what is missing, and how to get it, is stated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from annotation_protocol.estimates import EstimateDifference, sample_size
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.evaluation.annotator_study import WorkReport
from ddiseg.evaluation.arms import Arms
from ddiseg.evaluation.drift import PERIOD_MASKS, Drift, Halves
from ddiseg.evaluation.measures import Metric
from ddiseg.report.tables import quoted

T = TypeVar("T")

ALL = "all tones"

#: Explains the notation of the numbers.
LEGEND = (
    "Square brackets hold 95 % intervals over patients. n=9/8 after a number: it could be measured on 9 "
    f"images of 8 patients only. There is no interval, and no conclusion, from fewer than {MIN_GROUPS} "
    "patients."
)


@dataclass(frozen=True)
class Line:
    """One sentence."""

    scope: str  #: a tone, or a measure
    text: str
    few: bool = False  #: there are too few patients for a conclusion


@dataclass(frozen=True)
class Finding:
    """The sentences about one measure."""

    heading: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class FindingsPart:
    """Findings that answer one question."""

    title: str
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]  #: what is not known, and what to do about it
    notes: tuple[str, ...]  #: how to read the sentences


def sentences(report: WorkReport) -> list[str]:
    """Return all findings as lines of text, with what is missing or was left out."""
    lines = overview(report)
    for part in parts(report):
        lines.append(f"{part.title}:")
        lines += [
            f"  {finding.heading}, {line.scope}: {line.text}"
            for finding in part.findings
            for line in finding.lines
        ]
        lines += [f"  {line}" for line in (*part.missing, *part.notes)]
    return lines


#: Masks that were left out and are named, so that a page stays short.
_NAMED = 20


def overview(report: WorkReport) -> list[str]:
    """Return what was counted and what was left out."""
    lines = []
    if report.accepted is not None:
        first, last = (at[:10] for at in report.accepted)
        period = f"on {first}" if first == last else f"from {first} to {last}"
        lines.append(
            f"Masks from a labelling server, accepted {period} "
            f"({sample_size(report.n, report.patients)})."
        )
    if report.in_no_arm:
        lines.append(
            f"Not counted, n = {report.in_no_arm}: images that were sent out again with a person's mask "
            "in place of the prediction."
        )
    lines += [f"Left out: {line}" for line in report.left_out[:_NAMED]]
    if more := len(report.left_out) - _NAMED:
        lines += [f"Left out: {more} more; 'ddiseg verify' names all files"] * (more > 0)
    return lines


def parts(report: WorkReport) -> list[FindingsPart]:
    """Return the findings of the arms, and over time; nothing without any accepted mask."""
    if report.n == 0:
        return []
    if report.arms.shown.n == 0:
        return [FindingsPart("With and without the prediction", (), (_NOTHING_SHOWN,), ())]
    return [_arms_part(report), _time_part(report)]


_TOO_FEW = "Too few patients for a conclusion"
_NOTHING_SHOWN = (
    "No accepted mask was drawn with a prediction shown: 'ddiseg prelabel' predicts the open images, "
    "'ddiseg label push' sends them to annotators."
)
_NO_CONTROL = (
    "No accepted mask was drawn with the prediction withheld, so the effect of showing it is not known: "
    "'ddiseg label push --control 20' withholds it from every fifth image, at random."
)
_NOT_TIMED = "The labelling server counted no seconds for these masks; it does for masks drawn in its own window."
_NOT_READ_TWICE = (
    "No accepted image was read by two annotators, so their agreement is not known: 'ddiseg label push "
    "--readers 2 --sample 20' gives every fifth image to two."
)
_NO_EXPLANATION = (
    "Without masks drawn with the prediction withheld, a better model and less careful annotators can't "
    "be told apart: 'ddiseg label push --control 20'."
)
_HOW_TO_TELL = (
    "How to tell the two explanations apart: where the prediction was withheld, nobody can have followed "
    "it, so a Dice of the lesion that rises there is due to the model. A larger rise where the "
    "prediction was shown is due to the annotators."
)


class _Words(NamedTuple):
    """The words for one metric of the arms."""

    heading: str
    less: str  #: where it is smaller with the prediction
    more: str


_WORDS = {
    Metric.MEDIAN_SECONDS: _Words(
        "Median time on an image", "Faster with the prediction", "Slower with the prediction"
    ),
    Metric.CHANGED_PIXELS: _Words(
        "Pixels that differ between prediction and accepted mask",
        "Fewer with the prediction shown",
        "More with the prediction shown",
    ),
    Metric.LESION_DICE: _Words(
        "Dice of the lesion between prediction and accepted mask",
        "Further from the model with its prediction shown",
        "Closer to the model with its prediction shown",
    ),
    Metric.READERS_DICE: _Words(
        "Dice of the lesion between two readers of an image",
        "They agree less with the prediction shown",
        "They agree more with the prediction shown",
    ),
}


def _arms_part(report: WorkReport) -> FindingsPart:
    arms = _scopes(report.arms, report.by_tone)
    controlled = report.arms.control.n > 0
    sentence = _compared if controlled else _shown
    findings = [
        _finding(words.heading, arms, partial(sentence, metric)) for metric, words in _WORDS.items()
    ]
    findings.append(_finding("Predictions accepted unchanged", arms, _unchanged))
    estimates = report.arms.shown.estimates, report.arms.control.estimates

    def never(metric: Metric) -> bool:
        return not any(of[metric].n for of in estimates)

    missing = (
        (not controlled, _NO_CONTROL),
        (never(Metric.MEDIAN_SECONDS), _NOT_TIMED),
        (never(Metric.READERS_DICE), _NOT_READ_TWICE),
    )
    notes = (
        "Two numbers of images or patients: with the prediction shown, and with it withheld.",
        "Readers who agree more are not therefore right: both may follow the model.",
    )
    return FindingsPart(
        "With and without the prediction",
        tuple(finding for finding in findings if finding.lines),
        tuple(line for holds, line in missing if holds),
        notes if controlled else (),
    )


_Sentence = tuple[str, bool]  #: text, and whether there are too few patients


def _compared(metric: Metric, arms: Arms) -> _Sentence | None:
    """Compare the shown with the control arm; None where nothing was measured in either."""
    difference, words = arms.difference[metric], _WORDS[metric]
    if not any(difference.n):
        return None
    shown, control = arms.shown.estimates[metric], arms.control.estimates[metric]
    size = sample_size(difference.n, difference.groups)
    numbers = f"{quoted(metric, shown)} with it, {quoted(metric, control)} without"
    if difference.interval is None:
        return f"{_TOO_FEW}: {numbers} ({size}).", True
    conclusion = {-1: words.less, 0: "No clear difference", 1: words.more}[difference.sign]
    return f"{conclusion}: {numbers}, difference {quoted(metric, difference)} ({size}).", False


def _shown(metric: Metric, arms: Arms, text: str = "With the prediction {}") -> _Sentence | None:
    """Describe the shown arm alone; None where nothing was measured."""
    estimate = arms.shown.estimates[metric]
    if estimate.n == 0:
        return None
    size = sample_size(estimate.n, estimate.groups)
    return f"{text.format(quoted(metric, estimate))} ({size}).", estimate.interval is None


def _unchanged(arms: Arms) -> _Sentence | None:
    text = "{} of the predictions shown were accepted without a changed pixel"
    return _shown(Metric.UNCHANGED, arms, text)


def _time_part(report: WorkReport) -> FindingsPart:
    notes = [
        "Earlier and later: the first and the second half of the masks whose prediction was shown, in "
        "the order of their acceptance. Two numbers of images or patients: of the two halves."
    ]
    if report.set_back:
        notes.append(
            f"n = {report.set_back} of {report.n} masks carry a time before that of the mask accepted "
            "before them: a clock was set back, or the clocks of two machines differ. The order is that "
            "of the event log."
        )
    drifts = _scopes(report.drift, report.drift_by_tone)
    findings = [_finding("Share of predictions accepted unchanged", drifts, _trend)]
    missing = []
    if report.drift.shown is None:
        missing.append(
            f"A trend needs {2 * PERIOD_MASKS} accepted masks drawn with the prediction shown: accept "
            "more, and make the report again."
        )
    else:
        lines = tuple(_other_changes(report.drift.shown, report.drift))
        findings.append(Finding("Changes in other measures", lines))
        if report.arms.control.n:
            notes.append(_HOW_TO_TELL)
        else:
            missing.append(_NO_EXPLANATION)
    return FindingsPart("Over time", tuple(findings), tuple(missing), tuple(notes))


def _trend(drift: Drift) -> _Sentence | None:
    metric, halves = Metric.UNCHANGED, drift.shown
    if drift.n == 0:
        return None
    if halves is None:
        return f"too few images ({sample_size(drift.n, drift.patients)}).", True
    if halves.difference[metric].interval is None:
        return f"{_TOO_FEW}: {_from_to(metric, halves)}.", True
    sign = halves.difference[metric].sign
    explanation = {
        -1: ": either the model predicts worse, or annotators check more closely",
        0: "",
        1: ": either the model predicts better, or annotators check less closely",
    }[sign]
    return f"{_MOVED[sign]}, {_from_to(metric, halves)}{explanation}.", False


def _other_changes(shown: Halves, drift: Drift) -> Iterator[Line]:
    """Yield the changes of the other metrics, and what the control arm adds."""
    yield from _line("pixels changed", Metric.CHANGED_PIXELS, shown, _MOVED)
    yield from _line("median time", Metric.MEDIAN_SECONDS, shown, _MOVED)
    yield from _line("two readers' lesion Dice", Metric.READERS_DICE, shown, _MOVED)
    yield from _line("lesion Dice, shown", Metric.LESION_DICE, shown, _MOVED)
    if drift.withheld is not None:
        yield from _line("lesion Dice, withheld", Metric.LESION_DICE, drift.withheld, _MODEL)
    if drift.beyond is not None and all(drift.beyond.n):
        yield Line("shown against withheld", *_beyond(drift.beyond))


def _beyond(beyond: EstimateDifference) -> _Sentence:
    number = f"{quoted(Metric.LESION_DICE, beyond)} ({sample_size(beyond.n, beyond.groups)})"
    if beyond.interval is None:
        return f"{_TOO_FEW}: {number}.", True
    conclusion = {
        -1: "The rise is smaller where the prediction was shown than where it was withheld: annotators "
        "follow it less",
        0: "No clear difference between the rise where the prediction was shown and where it was "
        "withheld: neither explanation is ruled out",
        1: "The rise is larger where the prediction was shown than where it was withheld: annotators "
        "follow it more than a better model explains",
    }[beyond.sign]
    return f"{conclusion}, {number}.", False


_Conclusions = Mapping[int, str]

_MOVED: _Conclusions = {-1: "It fell", 0: "No clear change", 1: "It rose"}
_MODEL: _Conclusions = {
    -1: "The withheld prediction is further from the accepted mask than it was: the model does worse",
    0: "No clear change in how close the withheld prediction is to the accepted mask",
    1: "The withheld prediction is closer to the accepted mask than it was: the model does better",
}


def _line(scope: str, metric: Metric, halves: Halves, conclusions: _Conclusions) -> Iterator[Line]:
    """Yield the change of one metric; nothing where it was not measured."""
    change = halves.difference[metric]
    if change.interval is not None:
        yield Line(scope, f"{conclusions[change.sign]}, {_from_to(metric, halves)}.")
    elif any(change.n):
        yield Line(scope, f"{_TOO_FEW}: {_from_to(metric, halves)}.", True)


def _from_to(metric: Metric, halves: Halves) -> str:
    earlier, later = halves.earlier.estimates[metric], halves.later.estimates[metric]
    change = halves.difference[metric]
    return (
        f"from {quoted(metric, earlier)} in the earlier half to {quoted(metric, later)} in the "
        f"later, a change of {quoted(metric, change)} ({_sizes(change)})"
    )


def _sizes(change: EstimateDifference) -> str:
    """Return the sizes of the earlier and the later half."""
    return sample_size(change.n[::-1], change.groups[::-1])


def _scopes(overall: T, by_tone: Mapping[str, T]) -> dict[str, T]:
    return {ALL: overall, **{f"tone {tone}": of for tone, of in by_tone.items()}}


def _finding(
    heading: str, scopes: Mapping[str, T], sentence: Callable[[T], _Sentence | None]
) -> Finding:
    found = {scope: sentence(of) for scope, of in scopes.items()}
    return Finding(heading, tuple(Line(scope, *line) for scope, line in found.items() if line))
