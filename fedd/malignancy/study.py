"""Training of a malignancy classifier on a data set, prediction, and results by tone.

The output is research, not a diagnosis.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedd.backbone import Backbone, Placed, other_precision, precision_of
from fedd.dataset import DatasetImage
from fedd.errors import DatasetError, TrainingDataError
from fedd.malignancy.classifier import (
    ClassifierSettings,
    Examples,
    MalignancyClassifier,
    Training,
    default_settings,
    read_classifier,
    train_classifier,
)
from fedd.malignancy.discrimination import (
    ABOVE_HALF,
    DiscriminationResult,
    discrimination_by_tone,
    paper_threshold,
)
from fedd.pipeline import Source, features
from fedd.validation import malignancy_split

logger = logging.getLogger(__name__)

#: Called with (done, total) during a long job.
Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True)
class Usable:
    """The usable images of a data set, and the others."""

    items: list[DatasetImage]
    unknown: int = 0  #: photographs of unknown malignancy
    refused: list[str] = field(default_factory=list)  #: a line for each that can't be opened


@dataclass(frozen=True)
class Learned:
    """A trained classifier, its training images, and its results on the validation split."""

    training: Training
    used: Usable
    validation: NDArray[np.bool_]  #: (N,) of the used images, those of the validation split
    results: dict[str, DiscriminationResult]  #: by tone, "all" first
    precision: str  #: of the activations

    @property
    def classifier(self) -> MalignancyClassifier:
        return self.training.classifier

    def save(self, path: Path) -> None:
        """Write the classifier with the fingerprints of its training images."""
        learned = sorted(set().union(*(fingerprints(item) for item in self.used.items)))
        extra = {"learned_from": json.dumps(learned), "precision": self.precision}
        self.classifier.save(path, extra)


@dataclass(frozen=True)
class MalignancyPrediction:
    """A classifier's prediction for a photograph."""

    item: DatasetImage
    malignant: float
    learned_from: bool  #: whether it was trained on this photograph or another of the patient


def learn(
    items: Sequence[DatasetImage],
    backbone: Placed,
    settings: ClassifierSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Learned:
    """Train on the images of known malignancy, with a validation split of them.

    `settings` default to those for the backbone and the number of images; `seed` replaces theirs. The
    results are on the validation split, which also determined the epoch and the threshold, and are
    therefore optimistic. Raises TrainingDataError if a class is missing.
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
    validated = malignancy_split(used.items, settings.validation, settings.seed)
    validation = examples.part(validated)
    training = train_classifier(examples.part(~validated), validation, backbone, settings)
    probabilities = training.classifier.probabilities(validation.features)
    chosen = [item for item, inside in zip(used.items, validated, strict=True) if inside]
    results = results_by_tone(chosen, probabilities, training.classifier.threshold)
    return Learned(training, used, validated, results, precision_of(backbone))


def predict(
    path: Path, items: Sequence[DatasetImage], backbone: Backbone, progress: Progress = silent
) -> tuple[MalignancyClassifier, list[MalignancyPrediction], list[str]]:
    """Return the classifier in a file, its predictions, and a line for each refused photograph.

    Raises WeightsError if the file holds no classifier or one for another backbone.
    """
    classifier, header = read_classifier(path)
    classifier.check_backbone(backbone)
    trained_in = header.get("precision", "float32")
    if note := other_precision("the classifier", trained_in, precision_of(backbone)):
        logger.info(note)
    learned = set(json.loads(header.get("learned_from", "[]")))
    found: list[MalignancyPrediction] = []
    refused: list[str] = []
    for item, pooled in _features(items, backbone, classifier.settings, refused, progress):
        (value,) = classifier.probabilities(torch.from_numpy(pooled[None]))
        found.append(MalignancyPrediction(item, float(value), bool(fingerprints(item) & learned)))
    return classifier, found, refused


def results_on_unseen(
    probabilities: Sequence[MalignancyPrediction],
    threshold: float,
    *,
    as_paper: bool = False,
) -> dict[str, DiscriminationResult]:
    """Return results by tone, "all" first, on photographs of known malignancy not learned from.

    With `as_paper` F1 is at the paper's threshold, chosen on these same photographs and therefore
    optimistic, and accuracy at 0.5. Empty if there is no such photograph.
    """
    scored = [p for p in probabilities if p.item.malignant is not None and not p.learned_from]
    values = np.array([p.malignant for p in scored])
    truth = np.array([bool(p.item.malignant) for p in scored])
    if not as_paper:
        return results_by_tone([p.item for p in scored], values, threshold)
    if truth.any() and not truth.all():
        threshold = paper_threshold(truth, values)
    return results_by_tone([p.item for p in scored], values, threshold, ABOVE_HALF)


def results_by_tone(
    items: Sequence[DatasetImage],
    probabilities: NDArray[np.float64],
    threshold: float,
    accuracy_threshold: float | None = None,
) -> dict[str, DiscriminationResult]:
    """Return results on images of known malignancy, "all" first, then by tone."""
    if not items:
        return {}
    return discrimination_by_tone(
        np.array([bool(item.malignant) for item in items]),
        probabilities,
        [item.patient for item in items],
        [item.tone for item in items],
        threshold,
        accuracy_threshold,
    )


def fingerprints(item: DatasetImage) -> set[str]:
    """Return hashes of an image's file and of its patient's name, to recognise training images.

    An unnamed patient has none: its stand-in is the photograph's stem, which two data sets may share.
    Names themselves are not stored, because classifier files are passed on.
    """
    found = {hashlib.sha256(item.path.read_bytes()).hexdigest()}
    if item.patient != item.stem:
        found.add(hashlib.sha256(f"patient {item.patient}".encode()).hexdigest())
    return found


def _examples(
    items: Sequence[DatasetImage],
    backbone: Placed,
    settings: ClassifierSettings,
    progress: Progress,
) -> tuple[Examples, Usable]:
    refused: list[str] = []
    found = list(_features(items, backbone, settings, refused, progress))
    if not found:
        raise TrainingDataError(f"no photograph can be opened, first: {refused[0]}")
    used = [item for item, _ in found]
    features = torch.from_numpy(np.stack([pooled for _, pooled in found]))
    malignant = np.array([bool(item.malignant) for item in used])
    return Examples(features, malignant), Usable(used, refused=refused)


def _features(
    items: Sequence[DatasetImage],
    backbone: Backbone,
    settings: ClassifierSettings,
    refused: list[str],
    progress: Progress,
) -> Iterator[tuple[DatasetImage, NDArray[np.float32]]]:
    """Yield images with their pooled activations (F,); adds a line to `refused` for the others."""
    settings.check_block(backbone)
    sources = [Source(item, item.photograph) for item in items]
    done = features(
        backbone, sources, settings.timestep, (settings.block,), expected=(DatasetError,)
    )
    with closing(done):
        for number, each in enumerate(done, start=1):
            if each.features is None:
                refused.append(str(each.error))
            else:
                yield each.key, each.features[0]
            progress(number, len(items))
