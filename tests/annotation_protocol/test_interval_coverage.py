"""How often the intervals hold the true value: the benchmark at a small size."""

from __future__ import annotations

import pytest

from annotation_protocol.intervals import MIN_GROUPS
from benchmarks import interval_coverage

#: What every page shows most; the benchmark has all.
SHOWN = (
    "mean IoU 0.68",
    "pooled IoU, area spread 0.9",
    "share 30%",
    "median seconds",
    "paired difference of IoU",
    "difference of arms, IoU",
    "ROC-AUC 0.76, 50% malignant",
)
SITUATIONS = {each.name: each for each in interval_coverage._situations()}
SAMPLES = 300


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("groups", [MIN_GROUPS, 20])
def test_coverage__where_an_interval_is_printed(name: str, groups: int) -> None:
    found = interval_coverage.coverage(SITUATIONS[name], groups, SAMPLES)
    assert found.intervals > 0.8 * SAMPLES, "some arms have fewer patients"
    # Three Monte Carlo standard errors at 0.95 are 0.038.
    assert 0.90 - 0.02 <= found.rate <= 0.98 + 0.02


@pytest.mark.slow
def test_coverage__bootstrap_of_two_patients_is_far_off() -> None:
    assert interval_coverage._bootstrap_coverage("percentile bootstrap", 2) < 0.75
