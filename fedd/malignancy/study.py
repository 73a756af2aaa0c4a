"""From a data set to a malignancy classifier, and from a classifier to probabilities and figures.

Everything that comes out is research output, not a diagnosis.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedd.backbone import DiffusionUNet
from fedd.dataset import DatasetImage
from fedd.errors import DatasetError, TrainingDataError
from fedd.malignancy.classifier import (
    ClassifierSettings,
    Examples,
    MalignancyClassifier,
    Training,
    default_settings,
    features_of,
    read_classifier,
    train_classifier,
)
from fedd.malignancy.discrimination import Discrimination, best_threshold, discrimination_by_tone
from fedd.validation import stratified_validation

#: Photographs read and run at once.
_PART = 32

#: Called with (done, total) as a long job goes on.
Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True)
class Usable:
    """The items of a data set that can be used, and why the others can't."""

    items: list[DatasetImage]
    unknown: int = 0  #: photographs of unknown malignancy, left out
    refused: list[str] = field(default_factory=list)  #: a line for each that can't be opened


@dataclass(frozen=True)
class Learned:
    """A trained classifier, what it learned from, and its figures on its validation part."""

    training: Training
    used: Usable
    validation: NDArray[np.bool_]  #: (N,) of the used items, those of the validation part
    figures: dict[str, Discrimination]  #: by tone, "all" first

    @property
    def classifier(self) -> MalignancyClassifier:
        return self.training.classifier

    def save(self, path: Path) -> None:
        """Write the classifier with the fingerprints of what it learned from."""
        learned = sorted(set().union(*(fingerprints(item) for item in self.used.items)))
        self.classifier.save(path, {"learned_from": json.dumps(learned)})


@dataclass(frozen=True)
class Probability:
    """What a classifier says of a photograph."""

    item: DatasetImage
    malignant: float
    learned_from: bool  #: the classifier saw this photograph, or another of the patient


def learn(
    items: Sequence[DatasetImage],
    backbone: DiffusionUNet,
    settings: ClassifierSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Learned:
    """Train on the items of known malignancy, a part of them held out for validation.

    `settings` are those that go with the backbone and the number of images unless given; `seed`
    replaces theirs. The figures are of the validation part, which also chose when training ended
    and the threshold: they flatter. Raises TrainingDataError where there is nothing to tell apart.
    """
    known = [item for item in items if item.malignant is not None]
    if not known:
        raise TrainingDataError(
            f"of {len(items)} photographs none is known to be malignant or benign: give a table "
            "with a column 'malignant' that says TRUE or FALSE"
        )
    settings = replace(settings or default_settings(backbone.config, len(known)), seed=seed)
    examples, used = _examples(known, backbone, settings, progress)
    used = replace(used, unknown=len(items) - len(known))
    held_out = stratified_validation(
        examples.malignant.tolist(),
        [item.tone for item in used.items],
        [item.patient for item in used.items],
        settings.validation,
        settings.seed,
    )
    validation = examples.part(held_out)
    training = train_classifier(examples.part(~held_out), validation, backbone, settings)
    probabilities = training.classifier.probabilities(validation.features)
    chosen = [item for item, held in zip(used.items, held_out, strict=True) if held]
    figures = figures_by_tone(chosen, probabilities, training.classifier.threshold)
    return Learned(training, used, held_out, figures)


def predict(
    path: Path, items: Sequence[DatasetImage], backbone: DiffusionUNet, progress: Progress = silent
) -> tuple[MalignancyClassifier, list[Probability], list[str]]:
    """The classifier in a file, its probability for each item, and a line for each item refused.

    Raises WeightsError where the file holds no classifier or was trained on another backbone.
    """
    classifier, header = read_classifier(path)
    classifier.check_backbone(backbone)
    learned = set(json.loads(header.get("learned_from", "[]")))
    found: list[Probability] = []
    refused: list[str] = []
    for part, photographs in _opened(items, refused, progress):
        for item, value in zip(part, classifier.predict(backbone, photographs), strict=True):
            found.append(Probability(item, float(value), bool(fingerprints(item) & learned)))
    return classifier, found, refused


def honest_figures(
    probabilities: Sequence[Probability], threshold: float, *, paper_threshold: bool = False
) -> dict[str, Discrimination]:
    """Figures by tone, "all" first, of photographs of known malignancy that were not learned from.

    With `paper_threshold` the threshold is the best on these very photographs, as in the paper; F1
    and accuracy then flatter. Empty where there is no such photograph.
    """
    scored = [p for p in probabilities if p.item.malignant is not None and not p.learned_from]
    values = np.array([p.malignant for p in scored])
    truth = np.array([bool(p.item.malignant) for p in scored])
    if paper_threshold and truth.any():
        threshold = best_threshold(truth, values)
    return figures_by_tone([p.item for p in scored], values, threshold)


def figures_by_tone(
    items: Sequence[DatasetImage], probabilities: NDArray[np.float64], threshold: float
) -> dict[str, Discrimination]:
    """Figures of items of known malignancy, "all" first, then by tone."""
    if not items:
        return {}
    return discrimination_by_tone(
        np.array([bool(item.malignant) for item in items]),
        probabilities,
        [item.patient for item in items],
        [item.tone for item in items],
        threshold,
    )


def fingerprints(item: DatasetImage) -> set[str]:
    """What tells whether an item was learned from: hashes of its file and of its patient's name.

    A patient that nobody named has none: the photograph's stem stands for it, and two data sets
    may well use the same. Names themselves are not kept, for a classifier's file travels.
    """
    found = {hashlib.sha256(item.path.read_bytes()).hexdigest()}
    if item.patient != item.stem:
        found.add(hashlib.sha256(f"patient {item.patient}".encode()).hexdigest())
    return found


def _examples(
    items: Sequence[DatasetImage],
    backbone: DiffusionUNet,
    settings: ClassifierSettings,
    progress: Progress,
) -> tuple[Examples, Usable]:
    import torch

    features, used = [], []
    refused: list[str] = []
    for part, photographs in _opened(items, refused, progress):
        features.append(features_of(photographs, backbone, settings))
        used += part
    if not used:
        raise TrainingDataError(f"no photograph can be opened, first: {refused[0]}")
    malignant = np.array([bool(item.malignant) for item in used])
    return Examples(torch.cat(features), malignant), Usable(used, refused=refused)


def _opened(
    items: Sequence[DatasetImage], refused: list[str], progress: Progress
) -> Iterator[tuple[list[DatasetImage], list[NDArray[np.uint8]]]]:
    """Items with their photographs, a few at a time; adds a line to `refused` for each other one."""
    for start in range(0, len(items), _PART):
        opened, photographs = [], []
        for item in items[start : start + _PART]:
            try:
                photographs.append(item.photograph())
                opened.append(item)
            except DatasetError as error:
                refused.append(str(error))
        if opened:
            yield opened, photographs
        progress(min(start + _PART, len(items)), len(items))
