"""What a `WorkReport` comes to: one sentence a finding, none without its n and interval.

A sentence begins with what the interval allows to say. Where there is no figure there is no
sentence; what is missing, and how to get it, is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from annotation_protocol.estimates import Estimate, EstimateDifference, counted
from ddiseg.evaluation.annotator_study import WorkReport
from ddiseg.evaluation.arms import Arms
from ddiseg.evaluation.drift import PERIOD_MASKS, Drift, Halves
from ddiseg.evaluation.measures import Metric
from ddiseg.report.wording import quoted

T = TypeVar("T")

ALL = "all tones"

#: How the numbers are to be read.
LEGEND = (
    "Square brackets hold 95 % intervals, from a bootstrap over patients. Where fewer masks than the "
    "row has could be measured, n=9/8 says that 9 images of 8 patients were."
)


@dataclass(frozen=True)
class Line:
    """One sentence."""

    scope: str  #: what it is about, such as a tone
    text: str
    few: bool = False  #: it says that there are too few


@dataclass(frozen=True)
class Finding:
    """What was found of one thing."""

    heading: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Part:
    """Findings that answer one question."""

    title: str
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]  #: what can't be said, and what to do about it
    notes: tuple[str, ...]  #: how the sentences are to be read


def sentences(report: WorkReport) -> list[str]:
    """What the report comes to, a sentence a finding, and what is missing or was left out."""
    found = overview(report)
    for part in parts(report):
        found.append(f"{part.title}:")
        found += [
            f"  {finding.heading}, {line.scope}: {line.text}"
            for finding in part.findings
            for line in finding.lines
        ]
        found += [f"  {line}" for line in (*part.missing, *part.notes)]
    return found


def overview(report: WorkReport) -> list[str]:
    """What was counted, and what was not."""
    found = []
    if report.accepted is not None:
        first, last = (at[:10] for at in report.accepted)
        period = f"on {first}" if first == last else f"from {first} to {last}"
        found.append(
            f"Drawn on a labelling server and accepted, {period} "
            f"({counted(report.n, report.patients)})."
        )
    if report.in_no_arm:
        found.append(
            f"In no figure, n = {report.in_no_arm}: images that were given out again with a person's "
            "mask painted in place of the model's."
        )
    return [*found, *(f"Left out: {line}" for line in report.left_out)]


def parts(report: WorkReport) -> list[Part]:
    """With and without the model's mask, and over time; nothing without any accepted mask."""
    if report.n == 0:
        return []
    if report.arms.shown.n == 0:
        return [Part("With and without the model's mask", (), (_NOTHING_SHOWN,), ())]
    return [_side_by_side(report), _over_time(report)]


_NOTHING_SHOWN = (
    "No accepted mask was drawn with a model's mask in sight: 'ddiseg prelabel' paints the images "
    "that are open, 'ddiseg label push' gives them to people."
)
_NO_CONTROL = (
    "No accepted mask was drawn with the model's mask withheld, so what seeing it does to people "
    "can't be said: 'ddiseg label push --control 20' withholds it from every fifth image, by lot."
)
_NOT_TIMED = (
    "The labelling server counted no seconds for these masks; it does for what is drawn in its own "
    "window."
)
_NOT_READ_TWICE = (
    "No accepted image was read by two people, so nothing says how far they agree: 'ddiseg label "
    "push --readers 2 --sample 20' gives every fifth image to two."
)
_NOT_TOLD_APART = (
    "Without masks that were drawn with the model's mask withheld, a better model and people who "
    "look less closely can't be told apart: 'ddiseg label push --control 20'."
)
_HOW_TO_TELL = (
    "How to tell the two readings apart: where the model's mask was withheld, nobody can have "
    "followed it, so a lesion's Dice that rises there is the model's doing. A rise that is larger "
    "where the mask was shown is people's."
)


class _Said(NamedTuple):
    """The words for one measure."""

    heading: str
    less: str  #: where it is smaller with the model's mask in sight
    more: str


_SAID = {
    Metric.MEDIAN_SECONDS: _Said(
        "Time, the median on an image",
        "Faster with the model's mask in sight",
        "Slower with the model's mask in sight",
    ),
    Metric.CHANGED_PIXELS: _Said(
        "Pixels that differ between the model's mask and the accepted one",
        "Fewer with the model's mask in sight",
        "More with the model's mask in sight",
    ),
    Metric.LESION_DICE: _Said(
        "Dice of the lesion between the model's mask and the accepted one",
        "Further from the model with its mask in sight",
        "Closer to the model with its mask in sight",
    ),
    Metric.READERS_DICE: _Said(
        "Dice of the lesion between two readers of an image",
        "They agree less with the model's mask in sight",
        "They agree more with the model's mask in sight",
    ),
}


def _side_by_side(report: WorkReport) -> Part:
    arms = _scopes(report.arms, report.by_tone)
    controlled = report.arms.control.n > 0
    say = _compared if controlled else _shown
    findings = [
        _finding(said.heading, arms, partial(say, measure)) for measure, said in _SAID.items()
    ]
    findings.append(_finding("Model's masks accepted unchanged", arms, _unchanged))
    figures = report.arms.shown.estimates, report.arms.control.estimates

    def never(measure: Metric) -> bool:
        return not any(of[measure].n for of in figures)

    missing = (
        (not controlled, _NO_CONTROL),
        (never(Metric.MEDIAN_SECONDS), _NOT_TIMED),
        (never(Metric.READERS_DICE), _NOT_READ_TWICE),
    )
    return Part(
        "With and without the model's mask",
        tuple(finding for finding in findings if finding.lines),
        tuple(line for holds, line in missing if holds),
        (
            "Two numbers of images or patients: with the model's mask shown, and with it withheld.",
            "That two readers agree more does not make them right: both may follow the model.",
        )
        if controlled
        else (),
    )


def _compared(measure: Metric, arms: Arms) -> tuple[str, bool] | None:
    """The painted arm against the control arm; None where nothing was measured in either."""
    difference, said = arms.difference[measure], _SAID[measure]
    if not any(difference.n):
        return None
    if difference.value is None:
        return _too_few(difference)
    verdict = {-1: said.less, 0: "No difference can be told", 1: said.more}[difference.sign]
    painted, control = arms.shown.estimates[measure], arms.control.estimates[measure]
    return (
        f"{verdict}: {quoted(measure, painted)} with it, {quoted(measure, control)} without, "
        f"difference {quoted(measure, difference)} "
        f"({counted(difference.n, difference.groups)}).",
        False,
    )


def _shown(measure: Metric, arms: Arms) -> tuple[str, bool] | None:
    """The painted arm alone."""
    figure = arms.shown.estimates[measure]
    if figure.n == 0:
        return None
    if figure.value is None:
        return _too_few(figure)
    return (
        f"With the model's mask in sight {quoted(measure, figure)} "
        f"({counted(figure.n, figure.groups)}).",
        False,
    )


def _unchanged(arms: Arms) -> tuple[str, bool] | None:
    figure = arms.shown.estimates[Metric.UNCHANGED]
    if figure.n == 0:
        return None
    if figure.value is None:
        return _too_few(figure)
    return (
        f"{quoted(Metric.UNCHANGED, figure)} of the masks that people saw were accepted without a "
        f"changed pixel ({counted(figure.n, figure.groups)}).",
        False,
    )


def _over_time(report: WorkReport) -> Part:
    notes = [
        "Earlier and later: the first and the second half of the masks that people saw, in the order "
        "of their acceptance in the event log. Two numbers of images or patients: of the two halves."
    ]
    if report.set_back:
        notes.append(
            f"n = {report.set_back} of {report.n} masks carry a time before that of the one accepted "
            "before them: a clock was set back, or two machines' clocks differ. The order is the log's."
        )
    drifts = _scopes(report.drift, report.drift_by_tone)
    findings = [_finding("Share of the model's masks accepted unchanged", drifts, _trend)]
    missing = []
    if report.drift.shown is None:
        missing.append(
            f"A trend needs {2 * PERIOD_MASKS} accepted masks that people drew with the model's mask "
            "in sight; accept more, and it stands here."
        )
    else:
        findings.append(
            Finding("What went with it", tuple(_beside(report.drift.shown, report.drift)))
        )
        if report.arms.control.n:
            notes.append(_HOW_TO_TELL)
        else:
            missing.append(_NOT_TOLD_APART)
    return Part("Over time", tuple(findings), tuple(missing), tuple(notes))


def _trend(drift: Drift) -> tuple[str, bool] | None:
    measure, halves = Metric.UNCHANGED, drift.shown
    if drift.n == 0:
        return None
    if halves is None or halves.difference[measure].value is None:
        return _too_few(Estimate(None, None, None, drift.n, drift.patients))
    said = {
        -1: ("It fell", ": either the model paints worse what it is given, or people look more closely"),
        0: ("Whether it rises or falls can't be told", ""),
        1: ("It rose", ": either the model paints better what it is given, or people look less closely"),
    }  # fmt: skip
    verdict, readings = said[halves.difference[measure].sign]
    return f"{verdict}, {_from_to(measure, halves)}{readings}.", False


def _beside(shown: Halves, drift: Drift) -> Iterator[Line]:
    """What moved together with the share, and what the control arm says to it."""
    yield from _line("pixels changed", Metric.CHANGED_PIXELS, shown, _MOVED)
    yield from _line("median time", Metric.MEDIAN_SECONDS, shown, _MOVED)
    yield from _line("two readers' lesion Dice", Metric.READERS_DICE, shown, _MOVED)
    yield from _line("lesion Dice, seen", Metric.LESION_DICE, shown, _MOVED)
    if drift.withheld is not None:
        yield from _line("lesion Dice, withheld", Metric.LESION_DICE, drift.withheld, _MODEL)
    if drift.beyond is not None and all(drift.beyond.n):
        yield Line("seen against withheld", *_beyond(drift.beyond))


def _beyond(beyond: EstimateDifference) -> tuple[str, bool]:
    if beyond.value is None:
        return _too_few(beyond)
    verdict = {
        -1: "The rise where people saw the model's mask is smaller than where it was withheld: they "
        "follow it less",
        0: "Whether the rise is larger where people saw the model's mask can't be told, so neither "
        "reading is ruled out",
        1: "The rise where people saw the model's mask is larger than where it was withheld: they "
        "follow it more than a better model explains",
    }[beyond.sign]
    number = quoted(Metric.LESION_DICE, beyond)
    return f"{verdict}, {number} ({counted(beyond.n, beyond.groups)}).", False


_Verdicts = Mapping[int, str]

_MOVED: _Verdicts = {-1: "It fell", 0: "Whether it rises or falls can't be told", 1: "It rose"}
_MODEL: _Verdicts = {
    -1: "The model's mask, not shown to anybody, came to be further from the accepted one",
    0: "Whether the model's mask, not shown to anybody, is closer to the accepted one can't be told",
    1: "The model's mask, not shown to anybody, came to be closer to the accepted one: the model "
    "does better",
}


def _line(scope: str, measure: Metric, halves: Halves, said: _Verdicts) -> Iterator[Line]:
    """The change of one measure; nothing where it was not measured at all."""
    earlier, later = halves.earlier.estimates[measure], halves.later.estimates[measure]
    if halves.difference[measure].value is not None:
        verdict = said[halves.difference[measure].sign]
        yield Line(scope, f"{verdict}, {_from_to(measure, halves)}.")
    elif later.n or earlier.n:
        yield Line(scope, f"too few to say ({_sizes(halves, measure)})", True)


def _from_to(measure: Metric, halves: Halves) -> str:
    earlier, later = halves.earlier.estimates[measure], halves.later.estimates[measure]
    return (
        f"from {quoted(measure, earlier)} in the earlier half to {quoted(measure, later)} in the "
        f"later, a change of {quoted(measure, halves.difference[measure])} "
        f"({_sizes(halves, measure)})"
    )


def _sizes(halves: Halves, measure: Metric) -> str:
    """Return the sizes of the earlier and the later half."""
    change = halves.difference[measure]
    return counted(change.n[::-1], change.groups[::-1])


def _too_few(estimate: Estimate | EstimateDifference) -> tuple[str, bool]:
    return f"too few to say ({counted(estimate.n, estimate.groups)})", True


def _scopes(overall: T, by_tone: Mapping[str, T]) -> dict[str, T]:
    return {ALL: overall, **{f"tone {tone}": of for tone, of in by_tone.items()}}


def _finding(
    heading: str, scopes: Mapping[str, T], say: Callable[[T], tuple[str, bool] | None]
) -> Finding:
    said = {scope: say(of) for scope, of in scopes.items()}
    return Finding(heading, tuple(Line(scope, *line) for scope, line in said.items() if line))
