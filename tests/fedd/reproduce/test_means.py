from __future__ import annotations

import numpy as np
import pytest

from annotation_protocol.intervals import Scale
from fedd.dataset import TONES
from fedd.reproduce.means import Jackknifed, mean, mean_of_tones, pooled, share

ONE = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
TWO = np.array([[1, 1, 0], [2, 0, 0], [0, 0, 0]])


def _patients(count: int) -> list[str]:
    return [f"{n:02d}" for n in range(count)]


def test_pooled__by_hand() -> None:
    """Two photographs of two classes; the third class is nowhere and does not count."""
    found = pooled(np.stack([ONE, TWO]), ["a", "b"]).estimate()
    assert found.value == pytest.approx((4 / 8 + 4 / 8) / 2)
    assert found.interval is None
    many = pooled(np.stack([ONE, TWO] * 6), _patients(12)).estimate()
    assert many.value == pytest.approx(found.value)
    assert many.low < many.value < many.high


def test_pooled__one_class() -> None:
    assert pooled(np.stack([ONE, TWO]), ["a", "b"], 1).value == pytest.approx(4 / 8)
    assert np.isnan(pooled(np.stack([ONE, TWO]), ["a", "b"], 2).value)


def test_pooled__of_one_patient_has_no_interval() -> None:
    assert pooled(np.ones((3, 2, 2), np.int64), ["a"] * 3).estimate().interval is None


def test_mean_of_tones__a_larger_tone_weighs_no_more() -> None:
    confusions = np.stack([ONE, TWO, TWO, TWO, ONE])
    tones = [TONES[0], TONES[1], TONES[1], TONES[1], TONES[2]]
    of_one, of_two = (pooled(c[None], ["a"]).value for c in (ONE, TWO))
    found = mean_of_tones(confusions, _patients(5), tones)
    assert found.value == pytest.approx((2 * of_one + of_two) / 3)
    assert found.lacking == "1 patients of I-II, 3 of III-IV, 1 of V-VI"


def test_mean_of_tones__unknown_tone_does_not_count() -> None:
    confusions = np.stack([ONE, ONE, ONE, TWO])
    found = mean_of_tones(confusions, _patients(4), [*TONES, "unknown"])
    assert (found.value, found.n) == (pytest.approx(pooled(ONE[None], ["a"]).value), 3)


def test_mean_of_tones__jackknife_leaves_out_one_patient_of_the_whole_statistic() -> None:
    rng = np.random.default_rng(0)
    confusions = rng.integers(0, 50, (60, 5, 5))
    tones = [TONES[n % 3] for n in range(60)]
    patients = [f"{n % 33}" for n in range(60)]
    found = mean_of_tones(confusions, patients, tones)
    for name, without in zip(sorted(set(patients)), found.without, strict=True):
        rows = [n for n in range(60) if patients[n] != name]
        left = mean_of_tones(
            confusions[rows], [patients[n] for n in rows], [tones[n] for n in rows]
        )
        assert without == pytest.approx(left.value)
    assert found.estimate().interval is not None


def test_share__by_hand() -> None:
    found = share(np.array([True, False, True, True]), ["a", "a", "b", "c"])
    assert found.value == 0.75
    np.testing.assert_allclose(found.without, [1, 2 / 3, 2 / 3])


def test_minus__paired_values_have_the_spread_of_their_difference() -> None:
    right = np.arange(40) % 4 > 0
    wrong_once_more = right & (np.arange(40) != 1)
    one, other = (share(each, _patients(40)) for each in (right, wrong_once_more))
    found = one.minus(other).estimate(Scale.SIGNED)
    assert found.value == pytest.approx(1 / 40)
    assert found.low > -0.03, "unpaired, the interval would reach to -0.17"
    assert one.minus(one).estimate(Scale.SIGNED).interval == (0, 0)


def test_mean__of_seeds() -> None:
    values = [Jackknifed(v, np.full(12, v), 12) for v in (0.2, 0.4)]
    assert mean(values).value == pytest.approx(0.3)
    np.testing.assert_allclose(mean(values).without, 0.3)
