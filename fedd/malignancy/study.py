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
    check_blocks,
    default_settings,
    train_classifier,
)
from fedd.malignancy.covariates import Answers, imputed_in_words, read_clinical
from fedd.malignancy.discrimination import (
    ABOVE_HALF,
    DiscriminationResult,
    discrimination_by_tone,
    paper_threshold,
)
from fedd.malignancy.linear import (
    Configured,
    LinearClassifier,
    LinearExamples,
    LinearSettings,
    LinearTraining,
    Reader,
    linear_settings,
    train_linear,
)
from fedd.malignancy.stored import Classifier, probability, read_classifier
from fedd.pipeline import Source, Summary, summaries
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
        _save(self.classifier, self.used, self.precision, path)


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
    known = _known(items)
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


@dataclass(frozen=True)
class LearnedOurs:
    """A trained classifier of the recipe "ours", and its cross-validated results on its training images."""

    training: LinearTraining
    used: Usable
    results: dict[str, DiscriminationResult]  #: by tone, "all" first
    beside: dict[
        Reader, dict[str, DiscriminationResult]
    ]  #: of colour alone and of the covariates alone
    imputed: dict[str, int]  #: training images without an answer, by covariate
    precision: str  #: of the activations

    @property
    def classifier(self) -> LinearClassifier:
        return self.training.classifier

    def save(self, path: Path) -> None:
        """Write the classifier with the fingerprints of its training images."""
        _save(self.classifier, self.used, self.precision, path)


def learn_ours(
    items: Sequence[DatasetImage],
    backbone: Configured,
    settings: LinearSettings | None = None,
    table: Path | None = None,
    progress: Progress = silent,
) -> LearnedOurs:
    """Train the recipe "ours" on the images of known malignancy, cross-validated over patients.

    Args:
        table: holds the covariates, if there are any.

    Raises:
        TrainingDataError: a class is missing, or a covariate has no two answers.
        DatasetError: covariates without a table, or that it has no column of.
    """
    known = _known(items)
    settings = settings or linear_settings(backbone)
    answers = _answers_of(table, settings.covariates)
    refused: list[str] = []
    found = list(_features(known, backbone, settings, refused, progress))
    if not found:
        raise TrainingDataError(f"no photograph can be opened, first: {refused[0]}")
    used = [item for item, _ in found]
    examples = LinearExamples(
        np.stack([read for _, read in found]),
        np.array([bool(item.malignant) for item in used]),
        answers([item.stem for item in used]),
    )
    done = train_linear(examples, [item.patient for item in used], backbone, settings)
    results = {
        reader: results_by_tone(used, read, done.classifier.threshold)
        for reader, read in done.probabilities.items()
    }
    return LearnedOurs(
        done,
        Usable(used, len(items) - len(known), refused),
        results.pop(Reader.ALL),
        results,
        done.classifier.encoder.imputed(examples.answers),
        precision_of(backbone),
    )


def predict(
    path: Path,
    items: Sequence[DatasetImage],
    backbone: Backbone,
    progress: Progress = silent,
    table: Path | None = None,
) -> tuple[Classifier, list[MalignancyPrediction], list[str]]:
    """Return the classifier in a file, its predictions, and a line for each refused photograph.

    A missing answer that the classifier reads is replaced with the training images' mean, and counted in
    the log. Raises WeightsError if the file holds no classifier or one for another backbone, and
    DatasetError if `table` lacks what it reads.
    """
    classifier, header = read_classifier(path)
    classifier.check_backbone(backbone)
    trained_in = header.get("precision", "float32")
    if note := other_precision("the classifier", trained_in, precision_of(backbone)):
        logger.info(note)
    learned = set(json.loads(header.get("learned_from", "[]")))
    covariates = classifier.settings.covariates if isinstance(classifier, LinearClassifier) else ()
    given = _answers_of(table, covariates)([item.stem for item in items])
    answers = {item.path: each for item, each in zip(items, given, strict=True)}
    if isinstance(classifier, LinearClassifier) and (
        line := imputed_in_words(classifier.encoder.imputed(given), len(items))
    ):
        logger.info(line)
    found: list[MalignancyPrediction] = []
    refused: list[str] = []
    for item, read in _features(items, backbone, classifier.settings, refused, progress):
        value = probability(classifier, read, answers[item.path])
        found.append(MalignancyPrediction(item, value, bool(fingerprints(item) & learned)))
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


def _known(items: Sequence[DatasetImage]) -> list[DatasetImage]:
    """Return the images of known malignancy; raises TrainingDataError if there is none."""
    known = [item for item in items if item.malignant is not None]
    if not known:
        raise TrainingDataError(
            f"of {len(items)} photographs none is known to be malignant or benign: give a table "
            "with a column 'malignant' that says TRUE or FALSE"
        )
    return known


def _answers_of(
    table: Path | None, covariates: Sequence[str]
) -> Callable[[Sequence[str]], list[Answers]]:
    """Return what gives the answers of images by their stems; raises DatasetError where a column is missing."""
    if not covariates:
        return lambda stems: [{} for _ in stems]
    if table is None:
        raise DatasetError(
            f"the classifier reads {', '.join(covariates)}: give the table that has these columns with --table"
        )
    clinical = read_clinical(table)
    clinical.check(covariates)
    return clinical.of


def _save(classifier: Classifier, used: Usable, precision: str, path: Path) -> None:
    """Write a classifier with the fingerprints of its training images."""
    learned = sorted(set().union(*(fingerprints(item) for item in used.items)))
    classifier.save(path, {"learned_from": json.dumps(learned), "precision": precision})


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
    wanted: Summary,
    refused: list[str],
    progress: Progress,
) -> Iterator[tuple[DatasetImage, NDArray[np.float32]]]:
    """Yield images with their features (F,); adds a line to `refused` for the others."""
    check_blocks(backbone, wanted.blocks)
    sources = [Source(item, item.photograph) for item in items]
    done = summaries(backbone, sources, wanted, expected=(DatasetError,))
    with closing(done):
        for number, each in enumerate(done, start=1):
            if each.features is None:
                refused.append(str(each.error))
            else:
                yield each.key, each.features
            progress(number, len(items))
