"""By how much FEDD is better than the next best model: supplementary table 3.

The paper takes the next best of each fraction on the test itself. Beside it stands the one that is best on
the validation photographs, which the test did not choose. Both models are measured on the same
photographs, so the interval is that of the paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

import numpy as np

from annotation_protocol.estimates import Estimate, too_few
from annotation_protocol.intervals import Scale
from fedd.dataset import ALL, DatasetImage
from fedd.malignancy.discrimination import ABOVE_HALF
from fedd.paper import published_improvement
from fedd.reproduce.means import Jackknifed, mean, mean_of_tones, share
from fedd.reproduce.plan import FEDD, SEGMENTATION, Plan
from fedd.reproduce.results import Result
from fedd.reproduce.scores import (
    Key,
    ModelScore,
    by_key,
    measured_images,
    truth_and_probabilities,
)
from fedd.reproduce.split import ImageSet, PaperSplit

#: The compared metrics with their test and the set of validation.
COMPARED = (
    ("miou", ImageSet.SEGMENTATION_TEST, ImageSet.SEGMENTATION_VALIDATION),
    ("accuracy", ImageSet.REMAINING, ImageSet.CLASSIFICATION_VALIDATION),
)

#: What chooses where a metric is not defined: validation that lacks a tone has no mean of the tones.
INSTEAD = {"miou": "miou_pooled"}


class ChosenOn(StrEnum):
    """The photographs that say which model is the next best."""

    TEST = "test"  #: as in the paper
    VALIDATION = "validation"


@dataclass(frozen=True)
class Improvement:
    """FEDD's value minus that of the next best model, on the same photographs."""

    measured_on: ImageSet
    metric: str
    fraction: int
    next_best: str
    chosen_on: ChosenOn
    estimate: Estimate  #: of the paired difference
    paper: float | None  #: None in a small plan
    chosen_by: str  #: the metric that chose the next best: `metric`, or that of `INSTEAD`

    @property
    def difference(self) -> float | None:
        """Return our value minus the paper's."""
        value = self.estimate.value
        return None if value is None or self.paper is None else value - self.paper


def improvements(
    results: Sequence[Result], found: Sequence[ModelScore], split: PaperSplit, plan: Plan
) -> list[Improvement]:
    """Return the improvements of all fractions for which FEDD and another model have results."""
    known, ordered = by_key(found), []
    for metric, test, validation in COMPARED:
        judges = {ChosenOn.TEST: test, ChosenOn.VALIDATION: validation}
        for fraction, (chosen_on, judge) in product(plan.fractions, judges.items()):
            of_model = _measured(results, split, test, fraction)
            other, chosen_by = next_best(known, of_model, judge, metric, fraction)
            if FEDD not in of_model or other is None:
                continue
            difference = of_model[FEDD].minus(of_model[other]).estimate(Scale.SIGNED)
            compared = not plan.small and chosen_on is ChosenOn.TEST
            paper = published_improvement(test, metric, fraction) if compared else None
            ordered.append(
                Improvement(test, metric, fraction, other, chosen_on, difference, paper, chosen_by)
            )
    return ordered


def next_best(
    known: Mapping[Key, ModelScore],
    models: Iterable[str],
    measured_on: ImageSet,
    metric: str,
    fraction: int,
) -> tuple[str | None, str]:
    """Return the model other than FEDD with the highest score on a set, None without one; and its metric.

    That is `metric`, or the one of `INSTEAD` where the set has no value of it.
    """
    models = list(models)
    values = {
        model: score.value
        for model in models
        if model != FEDD
        and (score := known.get((measured_on, model, fraction, ALL, metric)))
        and score.value is not None
    }
    if not values and metric in INSTEAD:
        return next_best(known, models, measured_on, INSTEAD[metric], fraction)
    return (max(values, key=lambda model: values[model]) if values else None), metric


def _measured(
    results: Sequence[Result], split: PaperSplit, measured_on: ImageSet, fraction: int
) -> dict[str, Jackknifed]:
    """Return the compared value of each model, over its seeds."""
    of_seeds: dict[str, list[Jackknifed]] = {}
    for result in results:
        cell = result.cell
        if (cell.task, cell.fraction) == (measured_on.task, fraction):
            items = measured_images(result, split, measured_on)
            if items:
                of_seeds.setdefault(cell.model, []).append(_value(result, items))
    return {model: mean(values) for model, values in of_seeds.items()}


def _value(result: Result, items: Sequence[DatasetImage]) -> Jackknifed:
    patients = [item.patient for item in items]
    if result.cell.task == SEGMENTATION:
        confusions = np.array([result.confusions[item.stem] for item in items], np.int64)
        return mean_of_tones(confusions, patients, [item.tone for item in items])
    truth, probabilities = truth_and_probabilities(result, items)
    found = share(truth == (probabilities >= ABOVE_HALF), patients)
    # The rule of `discrimination`: an interval needs enough patients of each class, a value both classes.
    counts = tuple(len(set(np.asarray(patients)[rows])) for rows in (truth, ~truth))
    if not too_few((counts[0], counts[1])):
        return found
    lacking = f"{counts[0]} malignant, {counts[1]} benign"
    return replace(found, value=found.value if all(counts) else math.nan, lacking=lacking)
