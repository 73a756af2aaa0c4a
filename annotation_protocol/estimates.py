"""Estimates with their 95 % intervals over groups (patients), and the rule for too few groups.

`annotation_protocol.intervals` says how an interval is made. Arrays: N images, C classes, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.intervals import (
    MIN_GROUPS,
    Floats,
    Interval,
    Scale,
    contrast_interval,
    interval,
    jackknife_parts,
    median_interval,
)
from annotation_protocol.metrics import dice_per_class, iou_per_class, overlaps, ratio

#: How the intervals of a stored record were made.
METHOD = {"over": "patients", "method": "jackknife", "fewest_patients": MIN_GROUPS}

_ROUNDING = 1e-9  #: a mean may be this far outside the range of its scale


def too_few(groups: int | tuple[int, int]) -> bool:
    """Return whether so many groups (patients) are too few for an interval, in either of two samples.

    This is the one rule: below MIN_GROUPS a value is shown with its n, and without an interval.
    """
    return (min(groups) if isinstance(groups, tuple) else groups) < MIN_GROUPS


def sample_size(n: int | tuple[int, int], groups: int | tuple[int, int] | None) -> str:
    """Return the size of a sample, such as "n = 40 images of 30 patients"; of two, both sizes."""
    return f"n = {_images(n)}" if groups is None else f"n = {_images(n)} of {_patients(groups)}"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the size of its sample.

    The value is None without any image, or where it is not defined; the interval is None with it, and
    where there are too few groups for one.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0  #: images
    groups: int | None = None  #: groups (patients) of these images; None where that is not stored
    #: What is too few for an interval or a value, where it is not the groups: "5 malignant, 5 benign".
    lacking: str = ""

    @classmethod
    def of(
        cls, value: float | None, interval: Sequence[float] | None, n: int, groups: int | None
    ) -> Self:
        """Return the estimate; a value of NaN becomes None, and too few groups get no interval.

        So an interval that an older version stored for too few groups is not shown either. Some old
        records don't say how many groups there were.
        """
        value = None if value is None or math.isnan(value) else value
        if interval is None or value is None or (groups is not None and too_few(groups)):
            return cls(value, None, None, n, groups)
        low, high = interval
        return cls(value, low, high, n, groups)

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def text(self, form: str = ".2f", *, scale: float = 1, unit: str = "") -> str:
        """Return value and interval, "0.71 [0.62, 0.80]", or why there is none, "0.71 (too few: 2 patients)"."""
        if self.value is None and self.lacking:
            return f"too few: {self.lacking}"
        size = _images(self.n) if self.groups is None else _patients(self.groups)
        return _text(self.value, self.interval, self.lacking or size, form, scale, unit)

    def sized(self, form: str = ".2f") -> str:
        """Return value, interval and sizes, as a sentence has them."""
        size = sample_size(self.n, self.groups)
        if self.value is None or self.interval is not None:
            return f"{self.text(form)} ({size})"
        few = "too few for an interval" + (f": {self.lacking}" if self.lacking else "")
        return f"{self.value:{form.replace('.', 'z.')}} ({size}, {few})"

    def to_json(self, name: str = "value") -> dict[str, Any]:
        """Return the estimate under the keys of a stored record; `name` is the key of the value.

        The interval's key follows from it: "interval" for "value", "ci95" for "mean", else
        "<name>_ci95". Unknown groups are left out.
        """
        interval = None if self.interval is None else list(self.interval)
        stored = {name: self.value, _interval_key(name): interval, "n": self.n}
        if self.groups is not None:
            stored["patients"] = self.groups
        return {**stored, "lacking": self.lacking} if self.lacking else stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], name: str = "value") -> Self:
        """Return the estimate that `to_json` wrote with the same `name`."""
        interval = stored.get(_interval_key(name))
        read = cls.of(stored.get(name), interval, stored.get("n", 0), stored.get("patients"))
        return replace(read, lacking=stored.get("lacking", ""))


@dataclass(frozen=True)
class EstimateDifference:
    """The value of one sample minus that of another; None where either has no image."""

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
        return _text(self.value, self.interval, _patients(self.groups), form, scale, unit)

    def to_json(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        sizes = {"n": list(self.n), "patients": list(self.groups)}
        return {"value": self.value, "interval": interval, **sizes}


class Statistic(StrEnum):
    """The number that stands for a sample."""

    MEAN = "mean"
    MEDIAN = "median"


_RANGES = {
    Scale.FRACTION: (0, 1),
    Scale.SHARE: (0, 1),
    Scale.POSITIVE: (0, math.inf),
    Scale.SIGNED: (-math.inf, math.inf),
}


class Sample:
    """Values of images with the group (patient) of each, both (N,), and their statistic.

    Groups are names, or small numbers from 0 on, which takes less time where there are many.
    """

    def __init__(
        self,
        values: Sequence[float] | Floats,
        groups: Sequence[str] | NDArray[np.intp],
        statistic: Statistic = Statistic.MEAN,
        scale: Scale = Scale.FRACTION,
    ) -> None:
        if len(values) != len(groups):
            raise ValueError(f"{len(groups)} groups for {len(values)} values; give one a value")
        self.values = np.asarray(values, np.float64)
        low, high = _RANGES[scale]
        outside = (self.values < low - _ROUNDING) | (self.values > high + _ROUNDING)
        if outside.any():
            raise ValueError(
                f"{self.values[outside][0]:g} is outside {low} to {high}, the range of the scale "
                f"{scale.value!r}"
            )
        self.names, self.cluster = _numbered(groups)
        self.statistic, self.scale = statistic, scale

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def n_groups(self) -> int:
        return len(self.names)

    def value(self) -> float:
        middle = np.median if self.statistic is Statistic.MEDIAN else np.mean
        return float(middle(self.values))

    def estimate(self) -> Estimate:
        """Return the value, with its interval where there are enough groups."""
        if not self.n:
            return Estimate(groups=0)
        ends = None if too_few(self.n_groups) else self.spread()[0]
        return Estimate.of(self.value(), ends, self.n, self.n_groups)

    def spread(self) -> tuple[Interval, Floats]:
        """Return the interval, and the part of each group in the error (G,); needs two groups."""
        if self.statistic is Statistic.MEDIAN:
            return median_interval(self.values, self.cluster)
        counts = np.bincount(self.cluster)
        sums = np.bincount(self.cluster, weights=self.values)
        parts = jackknife_parts((sums.sum() - sums) / (self.n - counts))
        return interval(self.value(), float(parts @ parts), self.n_groups, self.scale), parts


#: Groups numbered up to so many times the number of images are counted; higher ones are sorted.
_SPARSE = 4


def _numbered(
    groups: Sequence[str] | NDArray[np.intp],
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the groups (G,) that there are, ascending, and the place of each image's group (N,)."""
    if not isinstance(groups, np.ndarray) or groups.dtype.kind != "i":
        return np.unique(np.asarray(groups, np.str_), return_inverse=True)
    if groups.size and groups.max() > _SPARSE * groups.size:
        return np.unique(groups, return_inverse=True)
    present = np.bincount(groups) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[groups]


def difference(one: Sample, other: Sample) -> EstimateDifference:
    """Return the value of `one` minus that of `other`.

    A group with images in both counts as one group. For paired values, one of each an image, take the
    `Sample` of their differences instead.
    """
    sizes = (one.n, other.n), (one.n_groups, other.n_groups)
    return EstimateDifference(*_contrast([one, other], [1, -1]), *sizes)


def difference_of_changes(
    one: tuple[Sample, Sample], other: tuple[Sample, Sample]
) -> EstimateDifference:
    """Return how much more `one` changed than `other`; each is (earlier, later) of one statistic.

    The sizes are those of both halves of each together.
    """
    sizes = (
        (one[0].n + one[1].n, other[0].n + other[1].n),
        (_n_groups(one), _n_groups(other)),
    )
    return EstimateDifference(*_contrast([*one, *other], [-1, 1, 1, -1]), *sizes)


def _contrast(
    samples: Sequence[Sample], signs: Sequence[int]
) -> tuple[float | None, float | None, float | None]:
    """Return the sum of the samples' values with their signs, and the ends of its interval."""
    if not all(sample.n for sample in samples):
        return None, None, None
    values = np.array([sample.value() for sample in samples])
    if any(too_few(sample.n_groups) for sample in samples):
        return float(np.dot(signs, values)), None, None
    names = np.unique(np.concatenate([sample.names for sample in samples]))
    errors = np.zeros((len(samples), names.size))
    intervals = np.zeros((len(samples), 2))
    for row, sample in enumerate(samples):
        intervals[row], parts = sample.spread()
        if parts.any():
            errors[row, np.searchsorted(names, sample.names)] = parts / np.linalg.norm(parts)
    correlation = errors @ errors.T
    np.fill_diagonal(correlation, 1)
    value = float(np.dot(signs, values))
    return value, *contrast_interval(values, intervals, np.array(signs, float), correlation)


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
) -> dict[str, ClassEstimates]:
    """Return IoU and Dice of each class over a set of images.

    The interval of a class does not depend on the other classes.

    Args:
        confusions: (N, C, C), one confusion matrix an image.
        groups: N group names (patients).
        valid: (N, C), the classes that the truth of each image could hold at all.
        classes: C class names.

    Raises:
        ValueError: the arguments' lengths do not agree.
    """
    _check_shapes(confusions, groups, valid, classes)
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
        estimates[name] = _estimate_class(terms, identifiers[rows])
    return estimates


def estimate_classes_by_stratum(
    confusions: NDArray[np.int64],
    groups: Sequence[str],
    valid: NDArray[np.bool_],
    strata: Sequence[str],
    classes: Sequence[str],
) -> dict[str, dict[str, ClassEstimates]]:
    """Return `estimate_classes` of each stratum by itself, such as each tone; in sorted order.

    Args:
        strata: N names of strata; the other arguments are those of `estimate_classes`.
    """
    _check_shapes(confusions, groups, valid, classes)
    if len(strata) != len(confusions):
        raise ValueError(f"{len(strata)} strata for {len(confusions)} images; give one an image")
    estimates: dict[str, dict[str, ClassEstimates]] = {}
    for stratum in sorted(set(strata)):
        rows = [row for row, name in enumerate(strata) if name == stratum]
        of_stratum = [groups[row] for row in rows]
        estimates[stratum] = estimate_classes(confusions[rows], of_stratum, valid[rows], classes)
    return estimates


def _estimate_class(terms: Floats, groups: NDArray[np.str_]) -> ClassEstimates:
    """Return the estimates from (images, 5) of 1, IoU, Dice, intersection and union."""
    names, cluster = np.unique(groups, return_inverse=True)
    sums = np.zeros((names.size, terms.shape[1]))
    np.add.at(sums, cluster, terms)
    total = sums.sum(axis=0)
    iou_mean, dice_mean, iou_pooled = (
        fraction_estimate(float(value), without, len(terms))
        for value, without in zip(_class_values(total), _class_values(total - sums), strict=True)
    )
    return ClassEstimates(iou_mean=iou_mean, iou_pooled=iou_pooled, dice_mean=dice_mean)


def fraction_estimate(
    value: float,
    without: Floats,
    n: int,
    scale: Scale = Scale.FRACTION,
    *,
    trials: int | None = None,
) -> Estimate:
    """Return the estimate of a value from 0 to 1.

    Args:
        value: NaN where it is not defined.
        without: (G,), the value without each of the groups.
        n: number of images.
        scale: FRACTION or SHARE.
        trials: as for `intervals.interval`.
    """
    groups = len(without)
    if math.isnan(value) or too_few(groups):
        return Estimate.of(value, None, n, groups)
    parts = jackknife_parts(without)
    ends = interval(value, float(parts @ parts), groups, scale, trials=trials)
    return Estimate.of(value, ends, n, groups)


def _class_values(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean IoU, mean Dice and pooled IoU from (..., 5) sums of terms."""
    images, iou, dice, both, either = np.moveaxis(sums, -1, 0)
    return ratio(iou, images), ratio(dice, images), ratio(both, either)


def _n_groups(samples: Sequence[Sample]) -> int:
    return len(np.unique(np.concatenate([sample.names for sample in samples])))


def _text(
    value: float | None, interval: Interval | None, size: str, form: str, scale: float, unit: str
) -> str:
    if value is None:
        return "no images" if size.startswith("0 ") else f"too few: {size}"
    # "z" prints what rounds to 0 without a minus.
    form = form.replace(".", "z.")
    number = f"{scale * value:{form}}{unit}"
    if interval is None:
        return f"{number} (too few: {size})"
    low, high = (f"{scale * each:{form}}" for each in interval)
    return f"{number} [{low}, {high}]"


def _images(count: int | tuple[int, int]) -> str:
    return f"{_and(count)} image{'' if count == 1 else 's'}"


def _patients(count: int | tuple[int, int]) -> str:
    return f"{_and(count)} patient{'' if count == 1 else 's'}"


def _and(count: int | tuple[int, int]) -> str:
    return f"{count[0]} and {count[1]}" if isinstance(count, tuple) else str(count)


def _interval_key(name: str) -> str:
    return {"value": "interval", "mean": "ci95"}.get(name, f"{name}_ci95")


def _check_shapes(
    confusions: NDArray[np.int64],
    groups: Sequence[str],
    valid: NDArray[np.bool_],
    classes: Sequence[str],
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
