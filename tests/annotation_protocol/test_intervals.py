"""95 % intervals: their formulas against other implementations, and their range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_protocol.estimates import Sample, Statistic
from annotation_protocol.intervals import (
    MIN_GROUPS,
    Scale,
    contrast_interval,
    interval,
    jackknife_parts,
    median_interval,
    t_quantile,
)


def test_jackknife_parts__variance_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=20)
    without = (values.sum() - values) / 19
    parts = jackknife_parts(without)
    assert parts @ parts == pytest.approx(values.var(ddof=1) / 20)


def test_t_quantile__of_a_table() -> None:
    assert t_quantile(9) == pytest.approx(2.262, abs=1e-3)
    assert t_quantile(1) == pytest.approx(12.706, abs=1e-3)


def test_interval__signed_is_student_s_t() -> None:
    values = np.random.default_rng(2).normal(size=15)
    found = Sample(values, [str(k) for k in range(15)], scale=Scale.SIGNED).estimate()
    half = 2.1448 * values.std(ddof=1) / 15**0.5
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-4)


def test_interval__share_is_wilson_s_of_the_effective_size() -> None:
    # A variance of v (1 - v) / 40 is that of 40 trials.
    share, q = 0.3, t_quantile(20)
    middle = (share + q**2 / 80) / (1 + q**2 / 40)
    half = q / (1 + q**2 / 40) * (share * (1 - share) / 40 + q**2 / 6400) ** 0.5
    found = interval(share, share * (1 - share) / 40, 21, Scale.SHARE)
    assert found == pytest.approx((middle - half, middle + half))


def test_interval__fraction_is_clopper_and_pearson_s_of_the_effective_size() -> None:
    # With so many groups that Student's quantile is the normal one: 8 of 40 trials, from their table.
    low, high = interval(0.2, 0.2 * 0.8 / 40, 10**6, Scale.FRACTION)
    assert (low, high) == pytest.approx((0.0905, 0.3565), abs=5e-4)
    fewer = interval(0.2, 0.2 * 0.8 / 40, 12, Scale.FRACTION)
    assert fewer[0] < low
    assert fewer[1] > high


def test_interval__positive_is_on_the_logarithm() -> None:
    low, high = interval(20.0, 16.0, 10, Scale.POSITIVE)
    assert low * high == pytest.approx(400)
    assert high / 20 == pytest.approx(np.exp(t_quantile(9) * 4 / 20))


@pytest.mark.parametrize(
    ("scale", "value"),
    [
        *((Scale.SHARE, value) for value in (0.0, 0.5, 1.0)),
        *((Scale.FRACTION, value) for value in (0.0, 1.0)),
    ],
)
def test_interval__groups_that_are_alike_are_not_certain(scale: Scale, value: float) -> None:
    low, high = interval(value, 0.0, 12, scale)
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.2


def test_median_interval__quantiles_of_single_images() -> None:
    values = np.arange(1.0, 42.0)
    (low, high), parts = median_interval(values, np.arange(41))
    # Wilson's interval of a half in 41 trials, as quantiles of 1 to 41.
    assert (low, high) == pytest.approx((15.2, 26.8), abs=0.5)
    assert parts @ parts == pytest.approx(((high - low) / 4) ** 2, rel=0.1)


def test_contrast_interval__adds_variances_of_independent_values() -> None:
    ends = np.array([[-3.0, 3.0], [-4.0, 4.0]])
    signs = np.array([1.0, -1.0])
    assert contrast_interval(np.zeros(2), ends, signs, np.eye(2)) == pytest.approx((-5.0, 5.0))
    alike = np.ones((2, 2))
    assert contrast_interval(np.zeros(2), ends, signs, alike) == pytest.approx((-1.0, 1.0))


@pytest.mark.property
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 25)), min_size=MIN_GROUPS, max_size=60),
    st.sampled_from(Statistic),
    st.sampled_from([Scale.FRACTION, Scale.SHARE]),
)
def test_sample__fraction_stays_in_its_range(
    images: list[tuple[float, int]], statistic: Statistic, scale: Scale
) -> None:
    values, groups = [v for v, _ in images], [str(g) for _, g in images]
    found = Sample(values, groups, statistic, scale).estimate()
    assert found.value is not None
    assert (found.interval is None) == (len(set(groups)) < MIN_GROUPS)
    if found.interval is not None:
        low, high = found.interval
        assert 0 <= low <= found.value + 1e-9
        assert found.value - 1e-9 <= high <= 1
        assert low < high or statistic is Statistic.MEDIAN or scale is Scale.FRACTION
