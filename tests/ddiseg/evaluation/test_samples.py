"""Intervals and differences: against loops by hand, and how often they hold what is true."""

from __future__ import annotations

import numpy as np
import pytest

from annotation_protocol.metrics import mean_interval
from ddiseg.catalogue import Arm
from ddiseg.evaluation import samples
from ddiseg.evaluation.measures import MaskMeasures, Metric
from ddiseg.evaluation.samples import (
    RESAMPLES,
    Difference,
    Estimate,
    MetricSample,
    difference,
    difference_of_changes,
)
from tests.ddiseg.evaluation.drawn import mask

DICE, UNCHANGED = Metric.LESION_DICE, Metric.UNCHANGED

VALUES = [0.9, 0.2, 0.5, 0.7, 0.4, 0.95]
PATIENTS = ["a", "a", "b", "c", "c", "d"]
OTHERS = [0.1, 0.6, 0.3, 0.2, 0.8]
OTHER_PATIENTS = ["a", "b", "b", "e", "f"]


def sample(measure: Metric, values: list[float], patients: list[str]) -> MetricSample:
    pairs = zip(values, patients, strict=True)
    return MetricSample(
        measure, [mask(k, dice=v, seconds=v, patient=p) for k, (v, p) in enumerate(pairs)]
    )


def shares(unchanged: int, n: int, first: int = 0) -> MetricSample:
    return MetricSample(UNCHANGED, [mask(first + k, unchanged=k < unchanged) for k in range(n)])


def test_figure__mean_is_scoring_s() -> None:
    figure = sample(DICE, VALUES, PATIENTS).figure()
    expected = mean_interval(np.array(VALUES), PATIENTS, resamples=RESAMPLES)
    assert figure.value == pytest.approx(np.mean(VALUES))
    assert figure.interval == pytest.approx(expected)
    assert (figure.n, figure.patients) == (6, 4)


@pytest.mark.parametrize("measure", [DICE, Metric.MEDIAN_SECONDS])
def test_difference__draws_a_patient_for_both(measure: Metric) -> None:
    middle = np.median if measure is Metric.MEDIAN_SECONDS else np.mean
    found = difference(sample(measure, VALUES, PATIENTS), sample(measure, OTHERS, OTHER_PATIENTS))
    drawn = np.random.default_rng(samples.SEED).integers(6, size=(RESAMPLES, 6))
    slow = []
    for row in drawn:
        names = ["abcdef"[k] for k in row]
        one = [v for name in names for v, p in zip(VALUES, PATIENTS, strict=True) if p == name]
        two = [
            v for name in names for v, p in zip(OTHERS, OTHER_PATIENTS, strict=True) if p == name
        ]
        if one and two:
            slow.append(middle(one) - middle(two))
    assert len(slow) < RESAMPLES, "some draws hold nobody of one of the two"
    assert found.value == pytest.approx(middle(VALUES) - middle(OTHERS))
    assert found.interval == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])))
    assert (found.n, found.patients) == ((6, 5), (4, 4))


def test_difference__the_same_patients_in_both_cancel() -> None:
    """A patient whose lesion is easy is easy twice: only drawn together does that go."""
    easy = [0.1, 0.3, 0.5, 0.7, 0.9, 0.95]
    one, other = (sample(DICE, [v + s for v in easy], list("abcdef")) for s in (0.02, 0.0))
    found = difference(one, other)
    assert found.value == pytest.approx(0.02)
    assert found.interval == pytest.approx((0.02, 0.02))


def test_difference__shares_of_0_and_1_are_not_certain() -> None:
    # Clopper and Pearson: 10 of 10 is 0.6915 to 1, 0 of 10 is 0 to 0.3085.
    same = difference(shares(10, 10), shares(10, 10, 50))
    assert same.value == 0
    assert same.interval == pytest.approx((-0.3085, 0.3085), abs=1e-4)
    far = difference(shares(10, 10), shares(0, 10, 50))
    assert far.value == 1
    assert far.interval == pytest.approx((1 - 0.3085 * 2**0.5, 1.0), abs=1e-4)


def test_difference__one_share_of_0_takes_the_other_s_own_interval() -> None:
    some, none = shares(5, 10), shares(0, 10, 50)
    found = difference(some, none)
    low, high = some.interval()
    down, up = np.hypot(0.5 - low, 0.3085), high - 0.5
    assert found.interval == pytest.approx((0.5 - down, 0.5 + up), abs=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (-0.1, 0.0, 0)],
)
def test_difference__sign_only_where_the_interval_has_no_0(
    low: float, high: float, sign: int
) -> None:
    assert Difference(0.05, (low, high), (9, 9), (9, 9)).sign == sign


def test_difference__too_few_has_no_sign() -> None:
    found = difference(shares(2, 4), shares(2, 9, 50))
    assert found == Difference(None, None, (4, 9), (4, 9))
    assert found.sign == 0


def test_difference_of_changes__by_hand() -> None:
    def halves(
        first: int, earlier: float, later: float, arm: Arm
    ) -> tuple[MetricSample, MetricSample]:
        rows: list[list[MaskMeasures]] = [
            [mask(first + 100 * half + k, dice=value + k / 100, arm=arm) for k in range(6)]
            for half, value in enumerate((earlier, later))
        ]
        return MetricSample(DICE, rows[0]), MetricSample(DICE, rows[1])

    shown = halves(0, 0.5, 0.8, Arm.PREDICTED)
    withheld = halves(1000, 0.5, 0.6, Arm.CONTROL)
    found = difference_of_changes(shown, withheld)
    assert found.value == pytest.approx(0.3 - 0.1)
    assert (found.n, found.patients) == ((12, 12), (12, 12))
    assert found.interval is not None
    # The variance of the sum of four means, each of six values 0.01 apart, is four times theirs.
    half = 1.96 * 2 * np.std([k / 100 for k in range(6)]) / 6**0.5
    assert found.interval == pytest.approx((0.2 - half, 0.2 + half), abs=0.25 * half)
    few = difference_of_changes(shown, (withheld[0], MetricSample(DICE, [])))
    assert few == Difference(None, None, (12, 6), (12, 6))


def test_figure__too_few() -> None:
    assert shares(2, 4).figure() == Estimate(None, None, 4, 4)


@pytest.mark.parametrize(("n", "before", "after"), [(10, 0.1, 0.5), (10, 0.9, 0.9), (30, 0.2, 0.5)])
def test_difference__holds_the_truth_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch, n: int, before: float, after: float
) -> None:
    """Two images a patient that are alike, in both halves; 150 times, of which 95 % is 142."""
    monkeypatch.setattr(samples, "RESAMPLES", 400)
    generator = np.random.default_rng(5)

    def half(share: float, name: str) -> MetricSample:
        flags = np.repeat(generator.random(n) < share, 2)
        return MetricSample(
            UNCHANGED,
            [mask(k, unchanged=bool(f), patient=f"{name}{k // 2}") for k, f in enumerate(flags)],
        )

    held = 0
    for _ in range(150):
        interval = difference(half(after, "later"), half(before, "earlier")).interval
        assert interval is not None
        held += interval[0] - 1e-9 <= after - before <= interval[1] + 1e-9
    assert held >= 135
