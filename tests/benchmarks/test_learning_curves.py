"""Learning curves: how many masks are saved, and what is resampled."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning_curves import Bootstrap, area, at_point, masks_needed, share_saved

POINTS = (10, 50, 90)


@pytest.mark.parametrize(
    ("ours", "random", "needed"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.3, 0.5], 50.0),
        ([0.1, 0.3, 0.7], [0.1, 0.3, 0.5], 70.0),  # halfway between two points
        ([0.5, 0.6, 0.7], [0.1, 0.3, 0.5], 10.0),  # at once
        ([0.1, 0.2, 0.3], [0.1, 0.3, 0.5], 90.0),  # never
        ([0.1, 0.5, 0.1], [0.1, 0.3, 0.5], 90.0),  # a lucky point in between does not count
    ],
)
def test_masks_needed(ours: list[float], random: list[float], needed: float) -> None:
    assert masks_needed(np.array(ours), np.array(random), POINTS) == pytest.approx(needed)


def test_means__of_the_sample_and_of_each_resample_of_seeds_and_patients() -> None:
    rng = np.random.default_rng(0)
    curve = rng.random((2, 3, 8))
    means = Bootstrap(["p", "p", *map(str, range(6))], 2).means(curve)
    assert means.shape == (2001, 3)
    np.testing.assert_allclose(means[0], curve.mean(axis=(0, 2)))
    np.testing.assert_allclose(means[1:].mean(axis=0), means[0], atol=0.02)
    assert (means[1:].std(axis=0) > 0.01).all()
    # Seeds alone: nothing differs between patients, so that two seeds give two means and their middle.
    flat = np.repeat(rng.random((2, 3, 1)), 8, axis=2)
    resampled = Bootstrap(list(map(str, range(8))), 2).means(flat)[1:, 0]
    assert len(np.unique(resampled.round(9))) == 3


def test_area_and_share_saved__against_random() -> None:
    boot = Bootstrap(list(map(str, range(12))), 2)
    random = boot.means(np.tile(np.array([0.1, 0.3, 0.5])[None, :, None], (2, 1, 12)))
    better = boot.means(np.tile(np.array([0.1, 0.5, 0.9])[None, :, None], (2, 1, 12)))
    gain = area(better, POINTS) - area(random, POINTS)
    assert gain.value == pytest.approx(0.2)
    assert boot.text(gain, 12, "+.3f") == "+0.200 [+0.200, +0.200]"
    assert share_saved(better, random, POINTS).value == pytest.approx(1 - 50 / 90)
    assert share_saved(random, random, POINTS).value == pytest.approx(0)
    assert at_point(better, 2).value == pytest.approx(0.9)
