"""From what the cells measured to figures by tone, each with its n, its interval and the paper's value.

Segmentation, from confusion matrices over the test part:

- `miou`: IoU of each class pooled over the photographs, mean over the classes. ddpm-segmentation,
  which FEDD builds on, computes it so. The paper does not say which mean its figure 4 shows; this one
  is compared with it.
- `miou_per_image`: mean over the photographs of the mean over the classes in each.
- `lesion_iou` (pooled, compared with figure 4) and `lesion_iou_per_image`; the other classes pooled.

Classification: `roc_auc`; `f1` and `accuracy` at the threshold that was best on the test itself, as in
the paper and compared with it; `f1_validation` and `accuracy_validation` at the one chosen on the
validation part, which are the honest ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from annotation_protocol.estimates import (
    FEW,
    Interval,
    Sample,
    bootstrap_weights,
    estimate_classes,
    percentile_interval,
)
from annotation_protocol.metrics import iou_per_class
from fedd.dataset import TONES, DatasetImage
from fedd.malignancy.discrimination import best_threshold, discrimination
from fedd.paper import published
from fedd.reproduce.plan import SEGMENTATION, Plan, Task
from fedd.reproduce.results import Result
from fedd.reproduce.split import PaperSplit

#: All tones together.
ALL = "all"


@dataclass(frozen=True)
class ModelScore:
    """One figure of one model; `value` and its 95 % interval are None where too few stand behind it.

    With several seeds, value and ends of the interval are the means of the seeds': more seeds make
    the figure steadier and do not make the test part larger. `lowest` and `highest` are the seeds'.
    """

    task: Task
    model: str
    fraction: int
    tone: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    n: int  #: photographs of the test behind it
    patients: int
    learned: int  #: photographs learned from
    seeds: int
    lowest: float | None
    highest: float | None
    paper: float | None  #: None in a small plan: there is nothing to compare

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.value is None or self.paper is None else self.value - self.paper


@dataclass(frozen=True)
class _One:
    """A figure of one cell."""

    value: float | None
    interval: Interval | None
    n: int
    patients: int


def scores(results: Sequence[Result], parts: PaperSplit, plan: Plan) -> list[ModelScore]:
    """The figures of all results, seeds taken together, ordered as the plan has its cells."""
    found: dict[tuple[Task, str, int, str, str], list[tuple[_One, int]]] = {}
    for result in results:
        cell = result.cell
        for (tone, figure), one in _of_cell(result, parts, plan.resamples).items():
            key = (cell.task, cell.model, cell.fraction, tone, figure)
            found.setdefault(key, []).append((one, result.learned))
    ordered = []
    for (task, model, fraction, tone, figure), of_seeds in found.items():
        ones = [one for one, _ in of_seeds]
        paper = None if plan.small else published(task, figure, tone, model, fraction)
        values = [one.value for one in ones if one.value is not None]
        ends = [one.interval for one in ones if one.interval is not None]
        complete = len(values) == len(ends) == len(ones)
        low, high = np.mean(ends, axis=0).tolist() if complete else (None, None)
        ordered.append(
            ModelScore(
                task, model, fraction, tone, figure,
                float(np.mean(values)) if complete else None, low, high,
                ones[0].n, ones[0].patients, of_seeds[0][1], len(ones),
                min(values) if complete else None, max(values) if complete else None, paper,
            )
        )  # fmt: skip
    return ordered


def class_mean_iou(
    confusions: NDArray[np.int64], patients: Sequence[str], resamples: int
) -> tuple[float, Interval | None]:
    """Mean over the classes of the IoU pooled over (N, C, C), with a bootstrap over patients.

    A class that is in no mask at all does not count.
    """
    value = float(_nanmean(iou_per_class(confusions.sum(0))))
    names, cluster = np.unique(np.asarray(patients, np.str_), return_inverse=True)
    if names.size < 2 or not resamples:
        return value, None
    by_patient = np.zeros((names.size, *confusions.shape[1:]))
    np.add.at(by_patient, cluster, confusions)
    weights = bootstrap_weights(names.size, resamples, 0)
    drawn = np.tensordot(weights, by_patient, 1).round().astype(np.int64)
    return value, percentile_interval(_nanmean(iou_per_class(drawn)))


def _of_cell(result: Result, parts: PaperSplit, resamples: int) -> dict[tuple[str, str], _One]:
    """Figures of one cell by tone and name."""
    tested = [
        item
        for item in parts.tested(result.cell.task)
        if item.stem in result.confusions or item.stem in result.probabilities
    ]
    groups = {ALL: tested} | {t: [i for i in tested if i.tone == t] for t in TONES}
    measure = _segmentation if result.cell.task == SEGMENTATION else _classification
    threshold = _threshold_on_test(result, tested)
    return {
        (tone, figure): one
        for tone, items in groups.items()
        if items
        for figure, one in measure(result, items, threshold, resamples).items()
    }


def _segmentation(
    result: Result, items: Sequence[DatasetImage], _threshold: float, resamples: int
) -> dict[str, _One]:
    classes = load_protocol().class_names
    confusions = np.array([result.confusions[item.stem] for item in items], np.int64)
    patients = [item.patient for item in items]
    n, people = len(items), len(set(patients))
    value, interval = class_mean_iou(confusions, patients, resamples)
    each = np.array([_nanmean(iou) for iou in iou_per_class(confusions)])
    per_image = Sample(each, patients).estimate(fewest=0, resamples=resamples)
    found = {
        "miou": _One(value, interval, n, people),
        "miou_per_image": _One(per_image.value, per_image.interval, n, people),
    }
    valid = np.ones((n, len(classes)), np.bool_)
    by_class = estimate_classes(confusions, patients, valid, classes, resamples=resamples)
    for name, of_class in by_class.items():
        behind = of_class.n, of_class.groups
        found[f"{name}_iou"] = _One(
            of_class.iou_pooled.value, of_class.iou_pooled.interval, *behind
        )
        if name == "lesion":
            found["lesion_iou_per_image"] = _One(
                of_class.iou_mean.value, of_class.iou_mean.interval, *behind
            )
    return {name: _if_enough(one) for name, one in found.items()}


def _classification(
    result: Result, items: Sequence[DatasetImage], threshold_on_test: float, resamples: int
) -> dict[str, _One]:
    truth, found = truth_and_probabilities(result, items)
    patients = [item.patient for item in items]
    on_test = discrimination(truth, found, patients, threshold_on_test, resamples=resamples)
    threshold = math.nan if result.threshold is None else result.threshold
    honest = discrimination(truth, found, patients, threshold, resamples=resamples)
    behind = on_test.n, on_test.patients
    figures = {
        "roc_auc": _One(on_test.roc_auc, on_test.roc_auc_ci95, *behind),
        "f1": _One(on_test.f1, on_test.f1_ci95, *behind),
        "accuracy": _One(on_test.accuracy, on_test.accuracy_ci95, *behind),
        "f1_validation": _One(honest.f1, honest.f1_ci95, *behind),
        "accuracy_validation": _One(honest.accuracy, honest.accuracy_ci95, *behind),
    }
    return {name: _if_enough(one) for name, one in figures.items()}


def truth_and_probabilities(
    result: Result, items: Sequence[DatasetImage]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(N,) of the items that a result of classification has."""
    stems = [item for item in items if item.stem in result.probabilities]
    truth = np.array([bool(item.malignant) for item in stems])
    return truth, np.array([result.probabilities[item.stem] for item in stems])


def _threshold_on_test(result: Result, tested: Sequence[DatasetImage]) -> float:
    """The best on the test itself, one for all tones; NaN for segmentation."""
    if result.cell.task == SEGMENTATION:
        return math.nan
    truth, found = truth_and_probabilities(result, tested)
    return best_threshold(truth, found) if truth.any() else math.nan


def _if_enough(one: _One) -> _One:
    """The figure, without value where there is none or too few photographs stand behind it."""
    if one.value is None or math.isnan(one.value) or one.n < FEW:
        return replace(one, value=None, interval=None)
    return one


def _nanmean(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is a number; NaN where nothing is."""
    known = ~np.isnan(iou)
    total = np.where(known, iou, 0.0).sum(-1)
    result = np.full(total.shape, np.nan)
    np.divide(total, known.sum(-1), out=result, where=known.any(-1))
    return result


def by_key(found: Sequence[ModelScore]) -> Mapping[tuple[str, str, int, str, str], ModelScore]:
    """Scores by task, model, fraction, tone and figure."""
    return {(s.task, s.model, s.fraction, s.tone, s.figure): s for s in found}
