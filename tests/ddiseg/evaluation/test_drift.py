"""Masks over time: periods, halves, and what the control arm says to them."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import numpy as np
import pytest

from ddiseg.catalogue import Arm
from ddiseg.evaluation.annotator_study import summarise
from ddiseg.evaluation.drift import PERIODS, SHOWN, WITHHELD, Drift, measure_drift
from ddiseg.evaluation.measures import MeasuredMasks, Metric
from tests.ddiseg.evaluation.mask_rows import mask

UNCHANGED, DICE = Metric.UNCHANGED, Metric.LESION_DICE


def drift_of(flags: list[bool]) -> Drift:
    return measure_drift(
        MeasuredMasks.of([mask(k, unchanged=flag) for k, flag in enumerate(flags, 1)]),
        np.arange(1, len(flags) + 1),
    )


def test_periods__hold_equally_many_masks_in_order() -> None:
    found = drift_of([k % 10 < k // 10 for k in range(83)])
    sizes = [period.masks.n for period in found.periods]
    assert len(sizes) == PERIODS
    assert sum(sizes) == 83
    assert set(sizes) == {10, 11}
    ends = [(period.first, period.last) for period in found.periods]
    assert ends[0][0] == 1
    assert ends[-1][1] == 83
    assert all(after[0] == before[1] + 1 for before, after in pairwise(ends))
    values = [period.masks.estimates[UNCHANGED].value for period in found.periods]
    assert values == sorted(v for v in values if v is not None)
    assert all(period.masks.estimates[UNCHANGED].interval for period in found.periods)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "periods"), [(0, 0), (19, 0), (20, 2), (39, 3), (1000, 8)])
def test_periods__as_many_as_there_are_masks_for(n: int, periods: int) -> None:
    found = drift_of([True, False] * (n // 2) + [True] * (n % 2))
    assert (len(found.periods), found.n) == (periods, n)
    assert (found.shown is None) == (found.withheld is None) == (periods == 0)


def test_halves__later_minus_earlier() -> None:
    found = drift_of([k in (3, 7) for k in range(10)] + [k < 8 for k in range(11)])
    assert found.shown is not None
    assert found.shown.earlier.estimates[UNCHANGED].value == pytest.approx(0.2)
    assert found.shown.later.estimates[UNCHANGED].value == pytest.approx(8 / 11)
    difference = found.shown.difference[UNCHANGED]
    assert difference.value == pytest.approx(8 / 11 - 0.2)
    assert difference.n == (11, 10)
    assert difference.sign == 1
    assert tuple(found.shown.difference) == SHOWN


def test_halves__all_unchanged_is_no_trend_and_no_certainty() -> None:
    found = drift_of([True] * 24)
    assert found.shown is not None
    difference = found.shown.difference[UNCHANGED]
    assert (difference.value, difference.sign) == (0, 0)
    assert difference.interval is not None
    assert difference.interval[0] < -0.2
    assert difference.interval[1] > 0.2


def test_halves__one_patient_in_a_half_has_no_interval() -> None:
    rows = [mask(k, patient="the same" if k < 10 else None) for k in range(20)]
    found = measure_drift(MeasuredMasks.of(rows), np.arange(20))
    assert found.shown is not None
    assert found.shown.difference[UNCHANGED].interval is None
    assert found.periods[0].masks.estimates[UNCHANGED].interval is None
    assert found.periods[1].masks.estimates[UNCHANGED].interval is not None


def both_arms(shown: tuple[float, float], withheld: tuple[float, float]) -> Drift:
    """Twenty masks shown and ten withheld a half, of these Dice on average."""
    generator = np.random.default_rng(2)
    rows = []
    for half in (0, 1):
        for k in range(30):
            arm = Arm.CONTROL if k % 3 == 2 else Arm.PREDICTED
            middle = (withheld if arm is Arm.CONTROL else shown)[half]
            rows.append(mask(30 * half + k, arm=arm, dice=middle + generator.normal(0, 0.02)))
    return summarise(rows).drift


@pytest.mark.slow
def test_control__people_who_look_less_move_beyond_it() -> None:
    found = both_arms((0.80, 0.95), (0.80, 0.80))
    assert found.withheld is not None
    assert found.beyond is not None
    assert tuple(found.withheld.difference) == WITHHELD
    assert found.withheld.difference[DICE].sign == 0
    assert found.beyond.value == pytest.approx(0.15, abs=0.02)
    assert found.beyond.sign == 1
    assert found.beyond.n == (40, 20)


@pytest.mark.slow
def test_control__a_better_model_moves_both() -> None:
    found = both_arms((0.70, 0.85), (0.70, 0.85))
    assert found.shown is not None
    assert found.withheld is not None
    assert found.beyond is not None
    assert found.shown.difference[DICE].sign == found.withheld.difference[DICE].sign == 1
    assert found.beyond.sign == 0


@pytest.mark.slow
def test_control__is_parted_at_the_same_moment_as_the_masks_shown() -> None:
    rows = [mask(k) for k in range(20)]
    rows += [mask(100 + k, arm=Arm.CONTROL) for k in range(8)]  # only lately was a lot drawn
    found = summarise(rows).drift
    assert found.withheld is not None
    assert (found.withheld.earlier.n, found.withheld.later.n) == (0, 8)
    assert found.beyond is not None
    assert (found.beyond.value, found.beyond.n) == (None, (20, 8))


@pytest.mark.slow
def test_summary__by_tone_numbers_places_among_all_tones() -> None:
    rows = [mask(k, tone=("I-II", "V-VI")[k % 2], unchanged=k > 20) for k in range(40)]
    rows += [mask(50 + k, tone="III-IV") for k in range(3)]
    report = summarise(rows)
    assert list(report.drift_by_tone) == ["I-II", "III-IV", "V-VI"]
    light = report.drift_by_tone["I-II"].periods
    assert [(p.first, p.last, p.masks.n) for p in light] == [(1, 19, 10), (21, 39, 10)]
    assert report.drift_by_tone["III-IV"] == Drift(3, 3)


@pytest.mark.slow
def test_summary__order_of_the_rows_does_not_matter() -> None:
    rows = [mask(k, unchanged=k % 3 == 0, day=f"2026-01-{1 + k % 28:02d}") for k in range(60)]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert summarise(shuffled) == summarise(rows)


def test_summary__counts_the_times_that_the_clock_was_set_back() -> None:
    days = ["2026-02-03", "2026-02-03", "2026-02-01", "2026-02-02", "2026-01-01"]
    assert summarise([mask(k, day=day) for k, day in enumerate(days)]).set_back == 2


@pytest.mark.slow
def test_as_dict__periods_and_halves_for_who_quotes_them() -> None:
    data = json.loads(json.dumps(both_arms((0.7, 0.8), (0.7, 0.8)).as_dict(), allow_nan=False))
    assert data["n"] == 40
    assert [period["n"] for period in data["periods"]] == [10] * 4
    assert data["periods"][0]["from"] == data["periods"][0]["to"] == "2026-01-05"
    assert data["painted"]["later_minus_earlier"]["unchanged"]["n"] == [20, 20]
    assert data["control"]["earlier"]["n"] == 10
    beyond = data["rise_of_lesion_dice_painted_minus_control"]
    assert beyond["interval"][0] < beyond["value"] < beyond["interval"][1]
    empty = json.loads(json.dumps(Drift(3, 2).as_dict()))
    assert (empty["n"], empty["periods"], empty["painted"]) == (3, [], None)
