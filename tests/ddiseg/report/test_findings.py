"""What is said of people: one sentence a finding, none without its n, none without a figure."""

from __future__ import annotations

import re

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Arm
from ddiseg.evaluation.annotator_study import WorkReport, summarise
from ddiseg.evaluation.measures import MaskMeasures
from ddiseg.report.findings import FindingsPart, Line, overview, parts, sentences
from tests.ddiseg.evaluation.mask_rows import mask

TIME = "Median time on an image"
PIXELS = "Pixels that differ between prediction and accepted mask"
LESION = "Dice of the lesion between prediction and accepted mask"
READERS = "Dice of the lesion between two readers of an image"
ACCEPTED = "Predictions accepted unchanged"
SHARE, OTHERS = "Share of predictions accepted unchanged", "Changes in other measures"

COUNTS = re.compile(r"\(n = (\d+ and )?\d+ images? of (\d+ and )?\d+ patients?\)")
INTERVAL = re.compile(r"\[[+-]?[\d.]+, [+-]?[\d.]+\]")


def arms(painted: dict[str, float], control: dict[str, float], n: int = 10) -> list[MaskMeasures]:
    """Masks of both arms one after the other, all with the same values."""
    rows = []
    for k in range(n):
        rows.append(mask(2 * k, **painted))
        rows.append(mask(2 * k + 1, arm=Arm.CONTROL, **control))
    return rows


def lines(part: FindingsPart, heading: str) -> dict[str, Line]:
    """Of one finding by scope; none where it is not there."""
    found = [finding for finding in part.findings if finding.heading == heading]
    return {line.scope: line for finding in found for line in finding.lines}


def said(rows: list[MaskMeasures], part: int, heading: str, scope: str = "all tones") -> str:
    return lines(parts(summarise(rows))[part], heading)[scope].text


def busy() -> WorkReport:
    """Both arms, two readers of some, three tones of which one has too few; the share rises."""
    generator = np.random.default_rng(1)
    rows = []
    for k in range(90):
        control = k % 3 == 0
        tone = "V-VI" if k in (1, 2, 3) else ("I-II", "III-IV")[k % 2]
        rows.append(
            mask(
                k,
                tone=tone,
                arm=Arm.CONTROL if control else Arm.PREDICTED,
                unchanged=not control and generator.random() < k / 90,
                dice=(0.7 if control else 0.9) + generator.normal(0, 0.02),
                changed=(0.1 if control else 0.03) * generator.random(),
                seconds=None
                if k % 10 == 4
                else (90.0 if control else 30.0) + generator.normal(0, 5),
                readers=(0.8 if control else 0.9) + generator.normal(0, 0.02) if k % 2 else None,
                patient=f"patient {k // 2}",
            )
        )
    return summarise(rows)


@pytest.mark.slow
def test_parts__no_sentence_without_its_n_and_interval() -> None:
    found = parts(busy())
    every = [line for part in found for finding in part.findings for line in finding.lines]
    assert len(every) > 25
    for line in every:
        assert len(COUNTS.findall(line.text)) == 1, line.text
        assert line.text.endswith("."), line.text
        assert ". " not in line.text, "one sentence"
        if line.few:
            assert "too few" in line.text.lower(), line.text
            assert not any(said in line.text for said in ("clear", "Faster", "Closer", "agree"))
        else:
            assert INTERVAL.search(line.text), line.text
    assert {line.scope for line in every} > {"all tones", "tone I-II", "tone III-IV", "tone V-VI"}
    few = [line for line in every if line.scope == "tone V-VI"]
    assert few
    assert all(line.few for line in few)
    assert not any(part.missing for part in found)


@pytest.mark.slow
def test_side_by_side__by_hand(wording: SnapshotAssertion) -> None:
    rows = arms(
        {"seconds": 30, "dice": 0.9, "changed": 0.02, "readers": 0.95},
        {"seconds": 90, "dice": 0.7, "changed": 0.06, "readers": 0.85},
    )
    counts = "(n = 10 and 10 images of 10 and 10 patients)."
    assert said(rows, 0, TIME) == (
        "Faster with the prediction: 30 s [30, 30] with it, 90 s [90, 90] without, "
        f"difference -60 s [-60, -60] {counts}"
    )
    assert said(rows, 0, PIXELS) == (
        "Fewer with the prediction shown: 2.0 % [2.0, 2.0] with it, 6.0 % [6.0, 6.0] without, "
        f"difference -4.0 points [-4.0, -4.0] {counts}"
    )
    assert said(rows, 0, LESION).startswith("Closer to the model with its prediction shown: 0.90 [")
    assert said(rows, 0, READERS).startswith("They agree more with the prediction shown: 0.95")
    assert said(rows, 0, ACCEPTED, "tone I-II") == wording


@pytest.mark.parametrize(
    ("painted", "verdict"),
    [(90.0, "Slower with the prediction: "), (60.0, "No clear difference: ")],
)
def test_side_by_side__says_what_the_interval_allows(painted: float, verdict: str) -> None:
    rows = arms({"seconds": painted}, {"seconds": 60.0})
    assert said(rows, 0, TIME).startswith(verdict)


@pytest.mark.slow
def test_side_by_side__too_few_says_nothing_else(wording: SnapshotAssertion) -> None:
    rows = arms({}, {}) + [mask(100 + k, tone="V-VI", patient=f"p{k % 2}") for k in range(3)]
    assert said(rows, 0, TIME, "tone V-VI") == wording
    assert said(rows, 0, ACCEPTED, "tone V-VI") == wording
    assert said(rows, 1, SHARE, "tone V-VI") == wording
    assert said([mask(1)], 0, ACCEPTED) == wording


def test_side_by_side__no_control_arm_says_how_to_make_one(wording: SnapshotAssertion) -> None:
    part, over_time = parts(summarise([mask(k, unchanged=k > 15) for k in range(30)]))
    assert lines(part, TIME)["all tones"].text == wording
    assert not any("without" in line.text for line in lines(part, LESION).values())
    assert [line for line in part.missing if "'ddiseg label push --control 20'" in line]
    assert [line for line in over_time.missing if "'ddiseg label push --control 20'" in line]
    assert set(lines(over_time, OTHERS)) == {"pixels changed", "median time", "lesion Dice, shown"}


def test_side_by_side__nothing_read_twice_and_nothing_timed() -> None:
    part = parts(summarise(arms({"seconds": None}, {"seconds": None})))[0]
    assert lines(part, TIME) == lines(part, READERS) == {}
    [timed, read] = part.missing
    assert "counted no seconds" in timed
    assert "'ddiseg label push --readers 2 --sample 20'" in read


def test_parts__nobody_was_shown_a_mask() -> None:
    [part] = parts(summarise([mask(k, arm=Arm.BARE, dice=None) for k in range(9)]))
    assert part.findings == ()
    assert len(part.missing) == 1
    assert "'ddiseg prelabel'" in part.missing[0]


def test_parts__no_data_at_all() -> None:
    report = summarise([])
    assert (parts(report), overview(report), sentences(report)) == ([], [], [])


def rising(**more: float) -> list[MaskMeasures]:
    return [
        mask(k, unchanged=k >= 20, changed=0.05 if k < 20 else 0.001, **more) for k in range(40)
    ]


@pytest.mark.slow
def test_over_time__a_rise_has_two_readings() -> None:
    text = said(rising(), 1, SHARE)
    assert text.startswith("It rose, from 0 % [0, 18] in the earlier half to 100 % [82, 100]")
    assert "a change of +100 points [+7" in text
    assert text.endswith(
        "(n = 20 and 20 images of 20 and 20 patients): either the model predicts better, or "
        "annotators check less closely."
    )
    assert said(rising(), 1, OTHERS, "pixels changed").startswith("It fell, from 5.0 % [")


@pytest.mark.slow
def test_over_time__a_fall_has_two_as_well() -> None:
    falling = [mask(39 - row.event_id, unchanged=row.event_id >= 20) for row in rising()]
    text = said(falling, 1, SHARE)
    assert text.startswith("It fell, from 100 %")
    assert "either the model predicts worse, or annotators check more closely" in text


@pytest.mark.slow
@pytest.mark.parametrize("unchanged", [True, False])
def test_over_time__all_alike_is_no_trend(unchanged: bool) -> None:
    text = said([mask(k, unchanged=unchanged) for k in range(30)], 1, SHARE)
    assert text.startswith("No clear change, from ")
    assert "either" not in text
    assert "a change of +0 points [-23, +23] (n = 15 and 15 images" in text


def test_over_time__too_few_for_a_trend_says_how_many_it_needs(wording: SnapshotAssertion) -> None:
    part = parts(summarise([mask(k) for k in range(19)]))[1]
    assert lines(part, SHARE)["all tones"].text == wording
    assert part.missing[0].startswith("A trend needs 20 accepted masks")


def two_arms_over_time(shown: float, withheld: float) -> list[MaskMeasures]:
    """Dice of both arms in the later half; in the earlier it is 0.7."""
    rows = []
    for k in range(66):
        control = k % 3 == 0
        later = withheld if control else shown
        dice = (0.7 if k < 34 else later) + (k % 5) / 100
        rows.append(mask(k, dice=dice, arm=Arm.CONTROL if control else Arm.PREDICTED))
    return rows


@pytest.mark.slow
def test_over_time__control_arm_tells_the_readings_apart() -> None:
    better = two_arms_over_time(0.9, 0.9)
    assert "the model does better" in said(better, 1, OTHERS, "lesion Dice, withheld")
    assert "neither explanation is ruled out" in said(better, 1, OTHERS, "shown against withheld")
    careless = two_arms_over_time(0.9, 0.7)
    assert "No clear change" in said(careless, 1, OTHERS, "lesion Dice, withheld")
    beyond = said(careless, 1, OTHERS, "shown against withheld")
    assert "annotators follow it more than a better model explains, +0.2" in beyond
    careful = two_arms_over_time(0.7, 0.9)
    assert "annotators follow it less, -0.2" in said(careful, 1, OTHERS, "shown against withheld")
    worse = two_arms_over_time(0.5, 0.5)
    assert "further from the accepted mask" in said(worse, 1, OTHERS, "lesion Dice, withheld")


@pytest.mark.slow
def test_over_time__clock_that_was_set_back_is_told(wording: SnapshotAssertion) -> None:
    days = ["2026-03-01"] * 12 + ["2026-02-01"] * 12
    report = summarise([mask(k, day=day) for k, day in enumerate(days)])
    notes = parts(report)[1].notes
    assert any(note.startswith("n = 1 of 24 masks carry a time before") for note in notes)
    assert overview(report) == wording
    still = summarise([mask(k) for k in range(24)])
    assert not any("carry a time before" in note for note in parts(still)[1].notes)
    assert "accepted on 2026-01-05 (n" in overview(still)[0]


def test_overview__given_out_again_is_counted() -> None:
    report = summarise([mask(1), mask(2, arm=None)])
    assert overview(report)[1].startswith("Not counted, n = 1: ")


@pytest.mark.slow
def test_sentences__every_line_of_every_part() -> None:
    report = busy()
    text = "\n".join(sentences(report))
    for part in parts(report):
        assert part.title in text
        for finding in part.findings:
            for line in finding.lines:
                assert f"{finding.heading}, {line.scope}: {line.text}" in text
        assert all(note in text for note in (*part.missing, *part.notes))
