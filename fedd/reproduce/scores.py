"""Scores of the cells by tone, each with n, interval and the paper's value.

Segmentation, from confusion matrices over the test:

- `miou`: IoU of each class pooled over the photographs, averaged over the classes, as in ddpm-segmentation,
  on which FEDD builds. The paper does not say which mean its figure 4 shows; this one is compared with it.
- `miou_per_image`: mean over the photographs of the mean over the classes.
- `lesion_iou` (pooled, compared with figure 4) and `lesion_iou_per_image`; the other classes pooled.

Classification: `roc_auc`; `f1` and `accuracy` at the best threshold of the test itself, as in the paper and
compared with it; `f1_validation` and `accuracy_validation` at the threshold chosen on the validation split,
which are unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from annotation_protocol.estimates import Estimate, Sample, estimate_classes, fraction_estimate
from annotation_protocol.metrics import iou_per_class
from fedd.dataset import ALL, TONES, DatasetImage
from fedd.malignancy.discrimination import best_threshold, discrimination
from fedd.paper import published
from fedd.reproduce.plan import SEGMENTATION, Plan, Task
from fedd.reproduce.results import Result
from fedd.reproduce.split import PaperSplit


@dataclass(frozen=True)
class ModelScore:
    """A metric of a model; its 95 % interval is None with too few patients.

    With several seeds, value and ends of the interval are means over the seeds, because more seeds do not
    enlarge the test; `lowest` and `highest` are those of the seeds. In files the metric's name is called
    `figure`.
    """

    task: Task
    model: str
    fraction: int
    tone: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int  #: test photographs
    patients: int
    learned: int  #: training photographs
    seeds: int
    lowest: float | None
    highest: float | None
    paper: float | None  #: None in a small plan

    @property
    def difference(self) -> float | None:
        """Return our value minus the paper's."""
        return None if self.value is None or self.paper is None else self.value - self.paper


def scores(results: Sequence[Result], split: PaperSplit, plan: Plan) -> list[ModelScore]:
    """Return the scores of all results, averaged over seeds, in the order of the plan's cells."""
    found: dict[tuple[Task, str, int, str, str], list[tuple[Estimate, int]]] = {}
    for result in results:
        cell = result.cell
        for (tone, metric), estimate in _of_cell(result, split).items():
            key = (cell.task, cell.model, cell.fraction, tone, metric)
            found.setdefault(key, []).append((estimate, result.learned))
    ordered = []
    for (task, model, fraction, tone, metric), of_seeds in found.items():
        first, learned = of_seeds[0]
        paper = None if plan.small else published(task, metric, tone, model, fraction)
        values = [e.value for e, _ in of_seeds if e.value is not None]
        intervals = [e.interval for e, _ in of_seeds if e.interval is not None]
        value = low = high = lowest = highest = None
        if len(values) == len(of_seeds):
            value, lowest, highest = float(np.mean(values)), min(values), max(values)
        if len(intervals) == len(of_seeds):
            low, high = np.mean(intervals, axis=0).tolist()
        ordered.append(
            ModelScore(
                task, model, fraction, tone, metric, value, low, high, first.n, first.groups or 0,
                learned, len(of_seeds), lowest, highest, paper,
            )
        )  # fmt: skip
    return ordered


def class_mean_iou(confusions: NDArray[np.int64], patients: Sequence[str]) -> Estimate:
    """Return the mean over the classes of the pooled IoU of (N, C, C).

    A class in no mask does not count.
    """
    names, cluster = np.unique(np.asarray(patients, np.str_), return_inverse=True)
    by_patient = np.zeros((names.size, *confusions.shape[1:]), np.int64)
    np.add.at(by_patient, cluster, confusions)
    total = by_patient.sum(0)
    without = _nanmean(iou_per_class(total - by_patient))
    return fraction_estimate(float(_nanmean(iou_per_class(total))), without, len(confusions))


def _of_cell(result: Result, split: PaperSplit) -> dict[tuple[str, str], Estimate]:
    """Return the estimates of one cell by tone and metric."""
    tested = [
        item
        for item in split.tested(result.cell.task)
        if item.stem in result.confusions or item.stem in result.probabilities
    ]
    groups = {ALL: tested} | {t: [i for i in tested if i.tone == t] for t in TONES}
    measure = _segmentation if result.cell.task == SEGMENTATION else _classification
    threshold = _threshold_on_test(result, tested)
    return {
        (tone, metric): estimate
        for tone, items in groups.items()
        if items
        for metric, estimate in measure(result, items, threshold).items()
    }


def _segmentation(
    result: Result, items: Sequence[DatasetImage], _threshold: float
) -> dict[str, Estimate]:
    classes = load_protocol().class_names
    confusions = np.array([result.confusions[item.stem] for item in items], np.int64)
    patients = [item.patient for item in items]
    per_image = [float(_nanmean(iou)) for iou in iou_per_class(confusions)]
    valid = np.ones((len(items), len(classes)), np.bool_)
    by_class = estimate_classes(confusions, patients, valid, classes)
    return {
        "miou": class_mean_iou(confusions, patients),
        "miou_per_image": Sample(per_image, patients).estimate(),
        **{f"{name}_iou": estimates.iou_pooled for name, estimates in by_class.items()},
        "lesion_iou_per_image": by_class["lesion"].iou_mean,
    }


def _classification(
    result: Result, items: Sequence[DatasetImage], threshold_on_test: float
) -> dict[str, Estimate]:
    truth, found = truth_and_probabilities(result, items)
    patients = [item.patient for item in items]
    on_test = discrimination(truth, found, patients, threshold_on_test)
    threshold = math.nan if result.threshold is None else result.threshold
    unbiased = discrimination(truth, found, patients, threshold)
    return {
        "roc_auc": on_test.roc_auc,
        "f1": on_test.f1,
        "accuracy": on_test.accuracy,
        "f1_validation": unbiased.f1,
        "accuracy_validation": unbiased.accuracy,
    }


def truth_and_probabilities(
    result: Result, items: Sequence[DatasetImage]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return truth and probabilities, (N,) each, of the images in a classification result."""
    tested = [item for item in items if item.stem in result.probabilities]
    truth = np.array([bool(item.malignant) for item in tested])
    return truth, np.array([result.probabilities[item.stem] for item in tested])


def _threshold_on_test(result: Result, tested: Sequence[DatasetImage]) -> float:
    """Return the best threshold of the test itself for all tones; NaN for segmentation."""
    if result.cell.task == SEGMENTATION:
        return math.nan
    truth, found = truth_and_probabilities(result, tested)
    return best_threshold(truth, found) if truth.any() else math.nan


def _nanmean(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis, ignoring NaN; NaN if all are NaN."""
    known = ~np.isnan(iou)
    total = np.where(known, iou, 0.0).sum(-1)
    result = np.full(total.shape, np.nan)
    np.divide(total, known.sum(-1), out=result, where=known.any(-1))
    return result


def by_key(found: Sequence[ModelScore]) -> Mapping[tuple[str, str, int, str, str], ModelScore]:
    """Return scores by task, model, fraction, tone and metric."""
    return {(s.task, s.model, s.fraction, s.tone, s.metric): s for s in found}
