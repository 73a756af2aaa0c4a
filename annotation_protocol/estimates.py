"""Estimates with 95 % intervals from a bootstrap over groups (patients), and the rule for too few images.

Images of one patient are not independent, so whole groups are resampled, with replacement (cluster
bootstrap: Davison and Hinkley 1997, section 3.8). Arrays: N images, C classes, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.metrics import dice_per_class, iou_per_class, overlaps, ratio

#: Number of bootstrap resamples, and their seed.
RESAMPLES, SEED = 2000, 0

#: An estimate from fewer images is not reported.
FEW = 5

#: The ends of a 95 % interval.
Interval: TypeAlias = tuple[float, float]


def too_few(n: int, groups: int | None = None, *, fewest: int = FEW) -> bool:
    """Return whether `n` images of so many groups are too few for an estimate with an interval.

    An interval needs two groups, and a reported estimate FEW images. Callers differ in what they do
    with fewer images: the gate, the annotator study, model performance and the reproduction withhold
    value and interval; the tables of 'evaluate', 'sensitivity' and 'agreement' show the interval
    from two groups on (`fewest=0`), and the report marks their rows by the number of images alone
    (`groups=None`).
    """
    return n < fewest or (groups is not None and groups < 2)


def sample_size(n: int | tuple[int, int], groups: int | tuple[int, int] | None) -> str:
    """Return the size of a sample, such as "n = 40 images of 30 patients"; of two, both sizes."""
    images = f"n = {_and(n)} image{'' if n == 1 else 's'}"
    if groups is None:
        return images
    return f"{images} of {_and(groups)} patient{'' if groups == 1 else 's'}"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the size of its sample.

    The value is None without any image or where it is withheld; the interval is None with it, and
    where there are too few groups for one.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0  #: images
    groups: int | None = None  #: groups (patients) of these images; None where that is not stored

    @classmethod
    def of(
        cls, value: float | None, interval: Sequence[float] | None, n: int, groups: int | None
    ) -> Self:
        """Return the estimate with both ends of `interval`; a value of NaN becomes None."""
        low, high = (None, None) if interval is None else interval
        return cls(None if value is None or math.isnan(value) else value, low, high, n, groups)

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def if_enough(self) -> Estimate:
        """Return the estimate, without value and interval where it has no interval or too few images."""
        if self.interval is None or too_few(self.n):
            return Estimate(None, None, None, self.n, self.groups)
        return self

    def text(self, form: str = ".2f", *, scale: float = 1, unit: str = "") -> str:
        """Return value and interval, such as "0.71 [0.62, 0.80]", or that there are too few images."""
        return _text(self.value, self.interval, form, scale, unit)

    def to_json(self, name: str = "value") -> dict[str, Any]:
        """Return the estimate under the keys of a stored record; `name` is the key of the value.

        The interval's key follows from it: "interval" for "value", "ci95" for "mean", else
        "<name>_ci95". Unknown groups are left out.
        """
        interval = None if self.interval is None else list(self.interval)
        stored = {name: self.value, _interval_key(name): interval, "n": self.n}
        return stored if self.groups is None else {**stored, "patients": self.groups}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], name: str = "value") -> Self:
        """Return the estimate that `to_json` wrote with the same `name`."""
        interval = stored.get(_interval_key(name))
        return cls.of(stored.get(name), interval, stored.get("n", 0), stored.get("patients"))


@dataclass(frozen=True)
class EstimateDifference:
    """The value of one sample minus that of another; None where either has too few images."""

    value: float | None
    low: float | None
    high: float | None
    n: tuple[int, int]  #: images of the one and of the other
    groups: tuple[int, int]

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval is all above or all below 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def text(self, form: str = "+.2f", *, scale: float = 1, unit: str = "") -> str:
        """Return value and interval as `Estimate.text` does."""
        return _text(self.value, self.interval, form, scale, unit)

    def to_json(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        sizes = {"n": list(self.n), "patients": list(self.groups)}
        return {"value": self.value, "interval": interval, **sizes}


class Statistic(StrEnum):
    """The number that stands for a sample."""

    MEAN = "mean"
    MEDIAN = "median"
    SHARE = "share"  #: mean of zeros and ones; a share of 0 or 1 gets an exact interval


class Sample:
    """Values of images with the group (patient) of each, both (N,), and their statistic."""

    def __init__(
        self,
        values: Sequence[float] | NDArray[np.float64],
        groups: Sequence[str],
        statistic: Statistic = Statistic.MEAN,
    ) -> None:
        if len(values) != len(groups):
            raise ValueError(f"{len(groups)} groups for {len(values)} values; give one a value")
        self.values = np.asarray(values, np.float64)
        self.groups = np.asarray(groups, np.str_)
        self.statistic = statistic
        self.n_groups = len(set(groups))

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def too_few(self) -> bool:
        return too_few(self.n, self.n_groups)

    def value(self) -> float:
        middle = np.median if self.statistic is Statistic.MEDIAN else np.mean
        return float(middle(self.values))

    def interval(self, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
        """Return the interval of the value; needs an image."""
        if self.all_or_none:
            return _exact_interval(self.value(), self.n_groups)
        return percentile_interval(resampled([self], resamples=resamples, seed=seed)[0])

    def estimate(
        self, *, fewest: int = FEW, resamples: int = RESAMPLES, seed: int = SEED
    ) -> Estimate:
        """Return the estimate of the statistic.

        With fewer than `fewest` images, or one group, value and interval are withheld;
        `fewest=0` keeps the value of whatever images there are.
        """
        value, interval = None, None
        enough = not too_few(self.n, self.n_groups, fewest=fewest)
        if enough:
            interval = self.interval(resamples=resamples, seed=seed)
        if enough or (fewest == 0 and self.n):
            value = self.value()
        return Estimate.of(value, interval, self.n, self.n_groups)

    @property
    def all_or_none(self) -> bool:
        """Whether it is a share of 0 or 1, which has no spread in a bootstrap."""
        return self.statistic is Statistic.SHARE and self.value() in (0, 1)


def difference(
    one: Sample,
    other: Sample,
    *,
    independent: bool = False,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> EstimateDifference:
    """Return the value of `one` minus that of `other`.

    A group with images in both is resampled for both, unless `independent`. For paired values, one
    of each an image, take the `Sample` of their differences instead.
    """
    sizes = (one.n, other.n), (one.n_groups, other.n_groups)
    if one.too_few or other.too_few:
        return EstimateDifference(None, None, None, *sizes)
    options: dict[str, Any] = {"resamples": resamples}
    if one.all_or_none or other.all_or_none:
        interval = _recovered_interval(one, other, seed=seed, **options)
    elif independent:
        [others], [ones] = (
            resampled([s], seed=seed + k, **options) for k, s in enumerate((other, one))
        )
        interval = percentile_interval(ones - others)
    else:
        ones, others = resampled([one, other], seed=seed, **options)
        interval = percentile_interval(ones - others)
    return EstimateDifference(one.value() - other.value(), *interval, *sizes)


def difference_of_changes(
    one: tuple[Sample, Sample], other: tuple[Sample, Sample]
) -> EstimateDifference:
    """Return how much more `one` changed than `other`; each is (earlier, later) of one statistic.

    The sizes are those of both halves of each together.
    """
    halves = (*one, *other)
    sizes = (
        (one[0].n + one[1].n, other[0].n + other[1].n),
        (_n_groups(one), _n_groups(other)),
    )
    if any(sample.too_few for sample in halves):
        return EstimateDifference(None, None, None, *sizes)
    value = (one[1].value() - one[0].value()) - (other[1].value() - other[0].value())
    earlier, later, other_earlier, other_later = resampled(halves)
    interval = percentile_interval((later - earlier) - (other_later - other_earlier))
    return EstimateDifference(value, *interval, *sizes)


def resampled(
    samples: Sequence[Sample], *, resamples: int = RESAMPLES, seed: int = SEED
) -> list[NDArray[np.float64]]:
    """Return the value of each sample in each resample of the groups of all of them, (R,) each.

    NaN where a resample holds no group of a sample. Resamples of two seeds are independent.
    """
    names = np.unique(np.concatenate([sample.groups for sample in samples]))
    weights = bootstrap_weights(names.size, resamples, seed)
    values = []
    for sample in samples:
        cluster = np.searchsorted(names, sample.groups)
        resample = _medians if sample.statistic is Statistic.MEDIAN else _means
        values.append(resample(sample.values, cluster, weights))
    return values


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """Return the middle 95 % of a statistic's resampled values, (R,), without those that are NaN."""
    low, high = np.percentile(values[~np.isnan(values)], [2.5, 97.5])
    return float(low), float(high)


def bootstrap_weights(
    groups: int, resamples: int = RESAMPLES, seed: int = SEED
) -> NDArray[np.float64]:
    """Return how often each group is in each resample, (R, groups)."""
    chosen = np.random.default_rng(seed).integers(groups, size=(resamples, groups))
    chosen += groups * np.arange(resamples)[:, None]
    counts = np.bincount(chosen.ravel(), minlength=resamples * groups)
    return counts.reshape(resamples, groups).astype(np.float64)


@dataclass(frozen=True)
class ClassEstimates:
    """IoU and Dice of one class over a set of images, which all three estimates share.

    An image counts when its truth could hold the class, and the truth or the prediction does.
    """

    iou_mean: Estimate  #: mean over the images
    iou_pooled: Estimate  #: of the pixels of all images together, so that large regions weigh more
    dice_mean: Estimate  #: mean over the images

    @property
    def n(self) -> int:
        return self.iou_mean.n

    @property
    def groups(self) -> int:
        return self.iou_mean.groups or 0

    def to_json(self) -> dict[str, Any]:
        estimates = {f.name: getattr(self, f.name).to_json(f.name) for f in fields(self)}
        values = {k: each[k] for name, each in estimates.items() for k in (name, f"{name}_ci95")}
        return {**values, "n": self.n, "patients": self.groups}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        return cls(*(Estimate.from_json(stored, f.name) for f in fields(cls)))


def estimate_classes(
    confusions: NDArray[np.int64],
    groups: Sequence[str],
    valid: NDArray[np.bool_],
    classes: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, ClassEstimates]:
    """Return IoU and Dice of each class over a set of images, with an interval from two groups on.

    The interval of a class does not depend on the other classes.

    Args:
        confusions: (N, C, C), one confusion matrix an image.
        groups: N group names (patients).
        valid: (N, C), the classes that the truth of each image could hold at all.
        classes: C class names.
        resamples: number of bootstrap resamples; 0 for no intervals.
        seed: of the bootstrap; the same seed gives the same intervals.

    Raises:
        ValueError: the arguments' lengths do not agree.
    """
    _check_shapes(confusions, groups, valid, classes, resamples)
    both, either, _ = overlaps(confusions)
    iou, dice = iou_per_class(confusions), dice_per_class(confusions)
    counts = np.asarray(valid, dtype=np.bool_) & (either > 0)
    identifiers = np.asarray(groups, dtype=np.str_)
    estimates: dict[str, ClassEstimates] = {}
    for index, name in enumerate(classes):
        rows = counts[:, index]
        # (images that count, 5): each of the three estimates is a ratio of sums of these.
        columns = (np.ones_like(iou), iou, dice, both, either)
        terms = np.stack([column[rows, index] for column in columns], axis=1, dtype=np.float64)
        estimates[name] = _estimate_class(terms, identifiers[rows], resamples, seed)
    return estimates


def estimate_classes_by_stratum(
    confusions: NDArray[np.int64],
    groups: Sequence[str],
    valid: NDArray[np.bool_],
    strata: Sequence[str],
    classes: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, dict[str, ClassEstimates]]:
    """Return `estimate_classes` of each stratum by itself, such as each tone; in sorted order.

    Args:
        strata: N names of strata; the other arguments are those of `estimate_classes`.
    """
    _check_shapes(confusions, groups, valid, classes, resamples)
    if len(strata) != len(confusions):
        raise ValueError(f"{len(strata)} strata for {len(confusions)} images; give one an image")
    estimates: dict[str, dict[str, ClassEstimates]] = {}
    for stratum in sorted(set(strata)):
        rows = [row for row, name in enumerate(strata) if name == stratum]
        estimates[stratum] = estimate_classes(
            confusions[rows],
            [groups[row] for row in rows],
            valid[rows],
            classes,
            resamples=resamples,
            seed=seed,
        )
    return estimates


def _estimate_class(
    terms: NDArray[np.float64], groups: NDArray[np.str_], resamples: int, seed: int
) -> ClassEstimates:
    """Return the estimates from (images, 5) of 1, IoU, Dice, intersection and union."""
    names, cluster = np.unique(groups, return_inverse=True)
    by_group = np.zeros((names.size, terms.shape[1]))
    np.add.at(by_group, cluster, terms)
    values = _class_values(terms.sum(axis=0))
    intervals: list[Interval | None] = [None, None, None]
    if not too_few(len(terms), names.size, fewest=0) and resamples:
        per_resample = _class_values(bootstrap_weights(names.size, resamples, seed) @ by_group)
        ends = np.percentile(np.stack(per_resample), [2.5, 97.5], axis=1)
        intervals = [(float(low), float(high)) for low, high in ends.T]
    iou_mean, dice_mean, iou_pooled = (
        Estimate.of(float(value), interval, len(terms), int(names.size))
        for value, interval in zip(values, intervals, strict=True)
    )
    return ClassEstimates(iou_mean=iou_mean, iou_pooled=iou_pooled, dice_mean=dice_mean)


def _class_values(
    sums: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean IoU, mean Dice and pooled IoU from (..., 5) sums of terms."""
    images, iou, dice, both, either = np.moveaxis(sums, -1, 0)
    return ratio(iou, images), ratio(dice, images), ratio(both, either)


def _means(
    values: NDArray[np.float64], cluster: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    clusters = weights.shape[1]
    sums = weights @ np.bincount(cluster, weights=values, minlength=clusters)
    return ratio(sums, weights @ np.bincount(cluster, minlength=clusters))


def _medians(
    values: NDArray[np.float64], cluster: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    order = np.argsort(values)
    ordered, cluster = values[order], cluster[order]
    medians = np.full(len(weights), np.nan)
    for index, weight in enumerate(weights):  # one resample at a time keeps the memory small
        chosen = np.repeat(ordered, weight[cluster].astype(np.intp))
        if chosen.size:
            medians[index] = (chosen[(chosen.size - 1) // 2] + chosen[chosen.size // 2]) / 2
    return medians


def _exact_interval(share: float, groups: int) -> Interval:
    """Return the exact 95 % interval of a share that is 0 or 1.

    Clopper and Pearson 1934, with the groups as the independent trials.
    """
    reach = 1 - 0.025 ** (1 / groups)
    return (0.0, reach) if share == 0 else (1 - reach, 1.0)


def _recovered_interval(one: Sample, other: Sample, *, resamples: int, seed: int) -> Interval:
    """Return the interval of `one` minus `other`, recovered from the intervals of the two.

    For shares of 0 or 1, which have no spread in a bootstrap of the difference. Zou and Donner 2008,
    Statistics in Medicine 27, 1693-1702 (Newcombe 1998 with any intervals).
    """
    low, high = one.interval(resamples=resamples, seed=seed)
    other_low, other_high = other.interval(resamples=resamples, seed=seed)
    value = one.value() - other.value()
    down = math.hypot(one.value() - low, other_high - other.value())
    up = math.hypot(high - one.value(), other.value() - other_low)
    return value - down, value + up


def _n_groups(samples: Sequence[Sample]) -> int:
    return len(np.unique(np.concatenate([sample.groups for sample in samples])))


def _text(
    value: float | None, interval: Interval | None, form: str, scale: float, unit: str
) -> str:
    if value is None or interval is None:
        return "too few to say"
    # "z" prints what rounds to 0 without a minus.
    form = form.replace(".", "z.")
    number, low, high = (f"{scale * each:{form}}" for each in (value, *interval))
    return f"{number}{unit} [{low}, {high}]"


def _and(count: int | tuple[int, int]) -> str:
    return f"{count[0]} and {count[1]}" if isinstance(count, tuple) else str(count)


def _interval_key(name: str) -> str:
    return {"value": "interval", "mean": "ci95"}.get(name, f"{name}_ci95")


def _check_shapes(
    confusions: NDArray[np.int64],
    groups: Sequence[str],
    valid: NDArray[np.bool_],
    classes: Sequence[str],
    resamples: int,
) -> None:
    images, count = len(confusions), len(classes)
    if confusions.shape != (images, count, count):
        raise ValueError(
            f"confusions has shape {confusions.shape}; with {count} classes it must be "
            f"(images, {count}, {count})"
        )
    if len(groups) != images:
        raise ValueError(f"{len(groups)} groups for {images} images; give one an image")
    if valid.shape != (images, count):
        raise ValueError(f"valid has shape {valid.shape}; it must be ({images}, {count})")
    if len(set(classes)) != count:
        raise ValueError(f"class names {list(classes)} repeat; give each class its own name")
    if resamples < 0:
        raise ValueError(f"resamples is {resamples}; give 0 or more")
