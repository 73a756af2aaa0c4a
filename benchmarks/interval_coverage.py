"""How often the 95 % intervals hold the true value, by the number of patients.

Simulated patients have one to five images that are alike; the true value is known from how they are
made. Each row is what `annotation_protocol.estimates` prints, in 2,000 samples (Monte Carlo standard
error at most 0.011, at 0.95 it is 0.005). In brackets: so few patients that no interval is printed.
Goal: 0.90 to 0.98. Below, bootstrap intervals of the same samples of mean IoU, the first 500.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from annotation_protocol import estimates
from annotation_protocol.estimates import Sample, Statistic, difference, estimate_classes
from annotation_protocol.intervals import MIN_GROUPS, Interval, Scale, t_quantile
from annotation_protocol.metrics import ratio
from benchmarks.bootstrap import bootstrap_weights, percentile_interval
from fedd.malignancy.discrimination import discrimination

GROUPS = (2, 3, 5, 8, 10, 15, 20, 50)
SAMPLES, BOOTSTRAPPED, SEED = 2000, 500, 0

Floats = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Situation:
    """A value that is estimated from simulated patients."""

    name: str
    truth: float
    interval: Callable[[Rng, int], Interval | None]


@dataclass
class Coverage:
    """How many intervals held the true value."""

    held: int = 0
    intervals: int = 0  #: samples in which there was one
    widths: list[float] = field(default_factory=list)

    def add(self, ends: Interval | None, truth: float) -> None:
        if ends is not None:
            self.intervals += 1
            self.held += ends[0] - 1e-12 <= truth <= ends[1] + 1e-12
            self.widths.append(ends[1] - ends[0])

    @property
    def rate(self) -> float:
        return self.held / self.intervals if self.intervals else math.nan

    @property
    def error(self) -> float:
        """Monte Carlo standard error."""
        return math.sqrt(self.rate * (1 - self.rate) / self.intervals)


def main() -> None:
    situations = list(_situations())
    width = max(len(each.name) for each in situations) + 2
    print(f"{'patients':<{width}}" + "".join(f"{groups:>8}" for groups in GROUPS))
    outside = []
    for situation in situations:
        cells = []
        for groups in GROUPS:
            found = coverage(situation, groups)
            printed = groups >= MIN_GROUPS and found.intervals > 0
            if printed and not 0.90 - 2 * found.error <= found.rate <= 0.98 + 2 * found.error:
                outside.append(f"{situation.name} at {groups}: {found.rate:.3f}")
            cells.append(f"{found.rate:.3f}" if printed else f"({found.rate:.3f})")
        print(f"{situation.name:<{width}}" + "".join(f"{cell:>8}" for cell in cells))
        sys.stdout.flush()
    print(f"outside 0.90 to 0.98 by more than two standard errors: {'; '.join(outside) or 'none'}")
    print(f"n = {SAMPLES} samples each, seed {SEED}; no interval below {MIN_GROUPS} patients\n")
    for name in BOOTSTRAPS:
        rates = [_bootstrap_coverage(name, groups) for groups in GROUPS]
        cells = "".join(f"{rate:>8.3f}" for rate in rates)
        print(f"{f'mean IoU, {name}':<{width}}{cells}")
        sys.stdout.flush()


def coverage(situation: Situation, groups: int, samples: int = SAMPLES) -> Coverage:
    """Return the coverage of a situation, also where too few patients get no interval."""
    found = Coverage()
    rng = np.random.default_rng([SEED, groups])
    with patch.object(estimates, "MIN_GROUPS", min(MIN_GROUPS, groups)):
        for _ in range(samples):
            found.add(situation.interval(rng, groups), situation.truth)
    return found


# Simulated images: patients of one to five.


def _sizes(rng: Rng, groups: int) -> NDArray[np.int64]:
    """Return the patient of each image, (N,)."""
    return np.repeat(np.arange(groups), rng.choice(5, groups, p=[0.5, 0.25, 0.15, 0, 0.1]) + 1)


def _alike(rng: Rng, cluster: NDArray[np.int64], share: float = 0.5) -> Floats:
    """Return a normal value of each image; `share` of the variance is the patient's."""
    between, within = rng.normal(size=int(cluster.max()) + 1), rng.normal(size=len(cluster))
    return np.asarray(math.sqrt(share) * between[cluster] + math.sqrt(1 - share) * within)


@dataclass(frozen=True)
class _Iou:
    """IoU of images: a beta distribution, and patients on whom the model fails."""

    mean: float
    concentration: float
    failing: float = 0.0  #: share of the patients; their IoU is a tenth
    alike: float = 0.5

    def quantiles(self, at: Floats) -> Floats:
        a, b = self.mean * self.concentration, (1 - self.mean) * self.concentration
        return np.asarray(np.interp(at, _GRID, _beta(a, b)))

    @property
    def truth(self) -> float:
        return self.mean * (1 - 0.9 * self.failing)

    def draw(self, rng: Rng, cluster: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the IoU of each image, and the normal value that it was made from."""
        z = _alike(rng, cluster, self.alike)
        failed = rng.random(int(cluster.max()) + 1) < self.failing
        return self.quantiles(stats.norm.cdf(z)) * np.where(failed[cluster], 0.1, 1.0), z


_GRID = np.linspace(0, 1, 5001)
_TABLES: dict[tuple[float, float], Floats] = {}


def _beta(a: float, b: float) -> Floats:
    if (a, b) not in _TABLES:
        _TABLES[a, b] = stats.beta.ppf(_GRID, a, b)
    return _TABLES[a, b]


#: Mean and spread of lesion IoU on pad300 (0.69, standard deviation 0.23), and a better model.
TYPICAL = _Iou(0.69, 3.0, failing=0.02)
GOOD = _Iou(0.88, 8.0, failing=0.02)


def _situations() -> Iterator[Situation]:
    yield _mean("mean IoU 0.68", TYPICAL)
    yield _mean("mean IoU 0.68, images alike", _Iou(0.69, 3.0, 0.02, alike=0.9))
    yield _mean("mean IoU 0.86", GOOD)
    yield _mean("mean IoU 0.90, no failures", _Iou(0.90, 10.0))
    yield _mean("mean IoU 0.97, light changed", _Iou(0.97, 60.0))
    yield _mean("pixels changed 3 %", _Iou(0.03, 30.0))
    yield _mean("mean IoU 0.60, little spread", _Iou(0.60, 8.0))
    yield _mean("mean IoU 0.79, 8 % fail", _Iou(0.85, 8.0, 0.08))
    for spread in (0.9, 1.3):
        yield _pooled(f"pooled IoU, area spread {spread}", spread)
    for share in (0.5, 0.3, 0.1, 0.05):
        yield _share(f"share {share:.0%}", share)
    yield _seconds("mean seconds", Statistic.MEAN, math.exp(3 + 0.7**2 / 2))
    yield _seconds("median seconds", Statistic.MEDIAN, math.exp(3))
    yield Situation("paired difference of IoU", 0.02 * 0.8, _paired)
    yield Situation("difference of arms, IoU", 0.0, _arms)
    yield Situation("difference of shares 30 %, 10 %", 0.2, _shares)
    yield Situation("difference of median seconds", math.exp(3) - math.exp(2.8), _medians)
    for prevalence, apart in ((0.5, 1.0), (0.5, 2.0), (0.3, 1.5)):
        yield from _discrimination(prevalence, apart)


def _mean(name: str, iou: _Iou) -> Situation:
    def interval(rng: Rng, groups: int) -> Interval | None:
        cluster = _sizes(rng, groups)
        return Sample(iou.draw(rng, cluster)[0], _names(cluster)).estimate().interval

    return Situation(name, iou.truth, interval)


def _pooled(name: str, spread: float, link: float = 0.4) -> Situation:
    """Large lesions weigh more, and are segmented a little better."""
    middle = (np.arange(20000) + 0.5) / 20000
    weight = np.exp(spread * link * stats.norm.ppf(middle))
    truth = float((TYPICAL.quantiles(middle) * weight).mean() / weight.mean())

    def interval(rng: Rng, groups: int) -> Interval | None:
        cluster = _sizes(rng, groups)
        iou, z = TYPICAL.draw(rng, cluster)
        area = np.exp(
            spread * (link * z + math.sqrt(1 - link**2) * rng.normal(size=len(cluster))) + 12
        ).astype(np.int64)
        both = (iou * area).astype(np.int64)
        confusions = np.stack([area, area - both, np.zeros_like(both), both], 1).reshape(-1, 2, 2)
        valid = np.ones((len(cluster), 2), np.bool_)
        found = estimate_classes(confusions, _names(cluster), valid, ["skin", "lesion"])
        return found["lesion"].iou_pooled.interval

    return Situation(name, truth * (1 - 0.9 * TYPICAL.failing), interval)


def _share(name: str, share: float) -> Situation:
    def interval(rng: Rng, groups: int) -> Interval | None:
        return _flags(rng, groups, share).estimate().interval

    return Situation(name, share, interval)


def _flags(rng: Rng, groups: int, share: float) -> Sample:
    cluster = _sizes(rng, groups)
    of_patient = rng.beta(share / 0.3 * 0.7, (1 - share) / 0.3 * 0.7, groups)
    flags = (rng.random(len(cluster)) < of_patient[cluster]).astype(float)
    return Sample(flags, _names(cluster), scale=Scale.SHARE)


def _seconds(name: str, statistic: Statistic, truth: float) -> Situation:
    def interval(rng: Rng, groups: int) -> Interval | None:
        return _timed(rng, groups, 3, statistic).estimate().interval

    return Situation(name, truth, interval)


def _timed(rng: Rng, groups: int, middle: float, statistic: Statistic) -> Sample:
    cluster = _sizes(rng, groups)
    seconds = np.exp(middle + 0.7 * _alike(rng, cluster, 0.3))
    return Sample(seconds, _names(cluster), statistic, Scale.POSITIVE)


def _paired(rng: Rng, groups: int) -> Interval | None:
    """A new model 0.02 better; a fifth of the images are predicted as before."""
    cluster = _sizes(rng, groups)
    noise = 0.05 * rng.standard_t(4, groups)[cluster] + 0.06 * rng.standard_t(4, len(cluster))
    changed = rng.random(len(cluster)) < 0.8
    return Sample((0.02 + noise) * changed, _names(cluster), scale=Scale.SIGNED).estimate().interval


def _arms(rng: Rng, groups: int) -> Interval | None:
    """Half of the images are in each arm, so that some patients are in both."""
    cluster = _sizes(rng, 2 * groups)
    iou, _ = TYPICAL.draw(rng, cluster)
    shown = rng.random(len(cluster)) < 0.5
    one, other = (Sample(iou[rows], [f"p{k}" for k in cluster[rows]]) for rows in (shown, ~shown))
    return difference(one, other).interval


def _shares(rng: Rng, groups: int) -> Interval | None:
    one, other = _flags(rng, groups, 0.3), _flags(rng, groups, 0.1)
    other.names = np.array([f"other {name}" for name in other.names])
    return difference(one, other).interval


def _medians(rng: Rng, groups: int) -> Interval | None:
    one, other = (_timed(rng, groups, middle, Statistic.MEDIAN) for middle in (3, 2.8))
    other.names = np.array([f"other {name}" for name in other.names])
    return difference(one, other).interval


def _discrimination(prevalence: float, apart: float) -> Iterator[Situation]:
    found = stats.norm.cdf(apart / 2)
    right = prevalence * found
    truths = {
        "roc_auc": float(stats.norm.cdf(apart / math.sqrt(2))),
        "f1": 2 * right / (prevalence + right + (1 - prevalence) * (1 - found)),
        "accuracy": float(found),
    }

    def of(metric: str) -> Callable[[Rng, int], Interval | None]:
        def interval(rng: Rng, groups: int) -> Interval | None:
            # So many of each class: the rule counts the patients of the rarer one.
            total = math.ceil(groups / prevalence)
            cluster = _sizes(rng, total)
            truth = (np.arange(total) < groups)[cluster]
            scores = _alike(rng, cluster, 0.4) + apart * truth
            result = discrimination(truth, scores, _names(cluster), apart / 2)
            return getattr(result, metric).interval  # type: ignore[no-any-return]

        return interval

    for metric, truth in truths.items():
        name = f"{metric.replace('roc_auc', 'ROC-AUC')} {truth:.2f}, {prevalence:.0%} malignant"
        yield Situation(name, truth, of(metric))


def _names(cluster: NDArray[np.int64]) -> list[str]:
    return [str(k) for k in cluster]


# Peers: what the bootstrap gives.

Resampled = tuple[
    float, Floats, Floats
]  #: value, resampled values (R,), values without a group (G,)


def _percentile(value: float, resampled: Floats, without: Floats) -> Interval:
    return percentile_interval(resampled)


def _expanded(value: float, resampled: Floats, without: Floats) -> Interval:
    """Hesterberg 2015, The American Statistician 69, 371-386: percentiles as far out as Student's t."""
    groups = len(without)
    reach = math.sqrt(groups / (groups - 1)) * t_quantile(groups - 1)
    return percentile_interval(resampled, float(1 - 2 * stats.norm.sf(reach)))


def _bca(value: float, resampled: Floats, without: Floats) -> Interval:
    """Bias-corrected and accelerated: Efron 1987, JASA 82, 171-185."""
    below = np.clip((resampled < value).mean() + (resampled == value).mean() / 2, 1e-4, 1 - 1e-4)
    bias, apart = stats.norm.ppf(below), without.mean() - without
    squares = (apart**2).sum()
    bend = (apart**3).sum() / (6 * squares**1.5) if squares else 0.0
    ends = [bias + (bias + z) / (1 - bend * (bias + z)) for z in (-1.96, 1.96)]
    low, high = np.quantile(resampled, np.clip(stats.norm.cdf(ends), 0, 1))
    return float(low), float(high)


BOOTSTRAPS: dict[str, Callable[[float, Floats, Floats], Interval]] = {
    "percentile bootstrap": _percentile,
    "expanded percentile": _expanded,
    "BCa bootstrap": _bca,
}


def _bootstrap_coverage(name: str, groups: int) -> float:
    found = Coverage()
    rng = np.random.default_rng([SEED, groups])
    for seed in range(BOOTSTRAPPED):
        cluster = _sizes(rng, groups)
        iou, _ = TYPICAL.draw(rng, cluster)
        sums, counts = np.bincount(cluster, weights=iou), np.bincount(cluster)
        weights = bootstrap_weights(groups, seed=seed)
        resampled = ratio(weights @ sums, weights @ counts)
        without = ratio(sums.sum() - sums, counts.sum() - counts)
        found.add(BOOTSTRAPS[name](float(iou.mean()), resampled, without), TYPICAL.truth)
    return found.rate


__all__: Sequence[str] = ["SAMPLES", "Coverage", "Situation", "coverage", "main"]
