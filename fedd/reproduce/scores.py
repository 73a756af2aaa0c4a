"""Scores of the cells by set of photographs and tone, each with n, interval and the paper's value.

Segmentation, from confusion matrices; the values compared with the paper are computed as in the authors'
notebook DDI_Baseline_U_Nets_Segmentation:

- `miou`: of a tone, IoU of each class pooled over its photographs, averaged over the classes; of all, the
  mean of the three tones. `miou_pooled`: of all photographs, pooled over all of them.
- `lesion_iou` and the other classes: likewise, with `lesion_iou_pooled`.
- `miou_per_image`, `lesion_iou_per_image`: means over the photographs.

Classification, from probabilities; compared with the paper, as in DDI_Baseline_CNN_Classifiers:

- `roc_auc`; `accuracy` at 0.5; `f1` at `paper_threshold` of the set itself, for all tones;
- `accuracy_youden`: at Youden's J of the set itself, which is where the paper's FEDD has it on its 30
  photographs, by its ROC curves.

`f1_validation` and `accuracy_validation` are at Youden's J of the validation photographs, and unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from annotation_protocol.estimates import Estimate, Sample, estimate_classes
from annotation_protocol.metrics import iou_per_class
from fedd.dataset import ALL, TONES, DatasetImage
from fedd.malignancy.discrimination import (
    ABOVE_HALF,
    discrimination,
    paper_threshold,
    youden_threshold,
)
from fedd.paper import published
from fedd.reproduce.means import mean_nan, mean_of_tones, pooled
from fedd.reproduce.plan import SEGMENTATION, Plan, Task
from fedd.reproduce.results import Result
from fedd.reproduce.split import ImageSet, PaperSplit

#: The name of a score: set, model, fraction, tone, metric.
Key = tuple[ImageSet, str, int, str, str]


@dataclass(frozen=True)
class ModelScore:
    """A metric of a model; its 95 % interval is None with too few patients.

    With several seeds, value and ends of the interval are means over the seeds, because more seeds do not
    enlarge the test; `lowest` and `highest` are those of the seeds. In files the metric's name is called
    `figure`.
    """

    task: Task
    measured_on: ImageSet
    model: str
    fraction: int
    tone: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int  #: photographs of the set
    patients: int
    learned: int  #: training photographs
    seeds: int
    lowest: float | None
    highest: float | None
    paper: float | None  #: None in a small plan
    too_few: str = ""  #: what is lacking for an interval or a value, where it is not patients

    @property
    def difference(self) -> float | None:
        """Return our value minus the paper's."""
        return None if self.value is None or self.paper is None else self.value - self.paper

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, self.low, self.high, self.n, self.patients, self.too_few)


def scores(results: Sequence[Result], split: PaperSplit, plan: Plan) -> list[ModelScore]:
    """Return the scores of all results, averaged over seeds, in the order of the plan's cells."""
    found: dict[Key, list[tuple[Estimate, int]]] = {}
    for result in results:
        cell = result.cell
        for (measured_on, tone, metric), estimate in _of_cell(result, split).items():
            key = (measured_on, cell.model, cell.fraction, tone, metric)
            found.setdefault(key, []).append((estimate, result.learned))
    return [_over_seeds(key, of_seeds, plan) for key, of_seeds in found.items()]


def by_key(found: Sequence[ModelScore]) -> Mapping[Key, ModelScore]:
    """Return scores by set, model, fraction, tone and metric."""
    return {(s.measured_on, s.model, s.fraction, s.tone, s.metric): s for s in found}


def measured_images(result: Result, split: PaperSplit, measured_on: ImageSet) -> list[DatasetImage]:
    """Return the photographs of a set that a result measures."""
    known = result.confusions or result.probabilities
    return [item for item in split.sets.get(measured_on, ()) if item.stem in known]


def truth_and_probabilities(
    result: Result, items: Sequence[DatasetImage]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return truth and probabilities, (N,) each, of the images in a classification result."""
    measured = [item for item in items if item.stem in result.probabilities]
    truth = np.array([bool(item.malignant) for item in measured], np.bool_)
    return truth, np.array([result.probabilities[item.stem] for item in measured])


def _over_seeds(key: Key, of_seeds: Sequence[tuple[Estimate, int]], plan: Plan) -> ModelScore:
    measured_on, model, fraction, tone, metric = key
    first, learned = of_seeds[0]
    paper = None if plan.small else published(measured_on, metric, tone, model, fraction)
    values = [e.value for e, _ in of_seeds if e.value is not None]
    intervals = [e.interval for e, _ in of_seeds if e.interval is not None]
    value = low = high = lowest = highest = None
    if len(values) == len(of_seeds):
        value, lowest, highest = float(np.mean(values)), min(values), max(values)
    if len(intervals) == len(of_seeds):
        low, high = np.mean(intervals, axis=0).tolist()
    return ModelScore(
        measured_on.task, measured_on, model, fraction, tone, metric, value, low, high, first.n,
        first.groups or 0, learned, len(of_seeds), lowest, highest, paper, first.lacking,
    )  # fmt: skip


def _of_cell(result: Result, split: PaperSplit) -> dict[tuple[ImageSet, str, str], Estimate]:
    """Return the estimates of one cell by set, tone and metric."""
    found = {}
    for measured_on in ImageSet:
        if measured_on.task != result.cell.task:
            continue
        items = measured_images(result, split, measured_on)
        of_set = _segmentation if measured_on.task == SEGMENTATION else _classification
        for (tone, metric), estimate in of_set(result, items, split).items():
            if measured_on.is_test or not metric.endswith(_ON_TESTS_ONLY):
                found[measured_on, tone, metric] = estimate
    return found


#: Metrics whose threshold is chosen on validation photographs, which says nothing of these themselves.
_ON_TESTS_ONLY = ("f1", "_validation", "_youden")


def _groups(items: Sequence[DatasetImage]) -> dict[str, list[DatasetImage]]:
    """Return the images of all tones and of each, without those that have none."""
    groups = {ALL: list(items)} | {t: [i for i in items if i.tone == t] for t in TONES}
    return {tone: found for tone, found in groups.items() if found}


def _segmentation(
    result: Result, items: Sequence[DatasetImage], _split: PaperSplit
) -> dict[tuple[str, str], Estimate]:
    found = {}
    for tone, group in _groups(items).items():
        for metric, estimate in _of_masks(result, group).items():
            found[tone, metric] = estimate
            if tone == ALL and metric in _AVERAGED:
                # Pooled over everything; the mean of the tones has the name.
                found[ALL, f"{metric}_pooled"] = estimate
    if not items:
        return found
    confusions = _confusions(result, items)
    patients, tones = [i.patient for i in items], [i.tone for i in items]
    for metric, index in _AVERAGED.items():
        found[ALL, metric] = mean_of_tones(confusions, patients, tones, index).estimate()
    return found


#: The metrics of which the paper averages the tones, and the row of the class; None for all classes.
_AVERAGED: dict[str, int | None] = {
    "miou": None,
    **{f"{name}_iou": index for index, name in enumerate(load_protocol().class_names)},
}


def _confusions(result: Result, items: Sequence[DatasetImage]) -> NDArray[np.int64]:
    return np.array([result.confusions[item.stem] for item in items], np.int64)


def _of_masks(result: Result, items: Sequence[DatasetImage]) -> dict[str, Estimate]:
    classes = load_protocol().class_names
    confusions = _confusions(result, items)
    patients = [item.patient for item in items]
    per_image = [float(mean_nan(iou)) for iou in iou_per_class(confusions)]
    valid = np.ones((len(items), len(classes)), np.bool_)
    by_class = estimate_classes(confusions, patients, valid, classes)
    return {
        "miou": pooled(confusions, patients).estimate(),
        "miou_per_image": Sample(per_image, patients).estimate(),
        **{f"{name}_iou": estimates.iou_pooled for name, estimates in by_class.items()},
        "lesion_iou_per_image": by_class["lesion"].iou_mean,
    }


def _classification(
    result: Result, items: Sequence[DatasetImage], split: PaperSplit
) -> dict[tuple[str, str], Estimate]:
    validation = measured_images(result, split, ImageSet.CLASSIFICATION_VALIDATION)
    of_validation = _threshold(youden_threshold, result, validation)
    of_paper = _threshold(paper_threshold, result, items)
    youden = _threshold(youden_threshold, result, items)
    found: dict[tuple[str, str], Estimate] = {}
    for tone, group in _groups(items).items():
        truth, probabilities = truth_and_probabilities(result, group)
        measured = truth, probabilities, [item.patient for item in group]
        on_test = discrimination(*measured, of_paper, ABOVE_HALF)
        unbiased = discrimination(*measured, of_validation)
        of_tone = {
            "roc_auc": on_test.roc_auc,
            "f1": on_test.f1,
            "accuracy": on_test.accuracy,
            "accuracy_youden": discrimination(*measured, youden).accuracy,
            "f1_validation": unbiased.f1,
            "accuracy_validation": unbiased.accuracy,
        }
        found |= {(tone, metric): estimate for metric, estimate in of_tone.items()}
    return found


def _threshold(
    choose: Callable[[NDArray[np.bool_], NDArray[np.float64]], float],
    result: Result,
    items: Sequence[DatasetImage],
) -> float:
    """Return the threshold chosen on images; NaN if they lack a class."""
    truth, probabilities = truth_and_probabilities(result, items)
    return choose(truth, probabilities) if truth.any() and not truth.all() else math.nan
