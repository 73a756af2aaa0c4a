"""The recipe "ours": pooled activations of all blocks, colour numbers and clinical answers in one logistic regression.

Of each channel of each block the mean, the maximum and the standard deviation over the image; the 27 colour
numbers (`fedd.malignancy.colours`); and, where asked for, covariates (`fedd.malignancy.covariates`). Beside
the classifier stand two that are to be beaten: colour alone, and the covariates alone.

There is no validation split: threshold and figures are of a cross-validation over patients on the training
images. docs/decisions/0038 has the figures that chose the recipe. The output is research, not a diagnosis.

Arrays: N images, features (N, F) float32 with the colour numbers first, malignant (N,) bool.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from annotation_protocol.ranking import seeded_rank
from fedd.backbone import IMAGENET_256, Backbone
from fedd.errors import TrainingDataError
from fedd.features import image_statistics
from fedd.malignancy.classifier import (
    CLASSIFIER_KIND,
    DISCLAIMER,
    SMALL_TIMESTEP,
    Recipe,
    check_backbone,
    check_blocks,
)
from fedd.malignancy.colours import COLOURS, colour_numbers
from fedd.malignancy.covariates import Answers, Encoder
from fedd.malignancy.discrimination import youden_threshold
from fedd.malignancy.logistic import Floats, Logistic, fit
from fedd.network.architecture import Architecture
from fedd.weights.files import write_safetensors

#: How much the penalty spares each kind: activations and colours, which are standardised, share their gain
#: over their columns; a covariate's number has it alone.
_ACTIVATIONS, _COLOUR, _COVARIATE = 1.0, 2.0, 0.3

#: Penalty where colour or the covariates stand alone: the best of 1e-6 to 1e-1 by cross-validation.
_ALONE = {"colour": 1e-4, "covariates": 1e-3}


class Reader(StrEnum):
    """What a probability was read from."""

    ALL = "classifier"  #: everything that the classifier has
    COLOUR = "colour"  #: the colour numbers alone
    COVARIATES = "covariates"  #: the clinical answers alone


@dataclass(frozen=True)
class LinearSettings:
    """Everything that determines a training's outcome besides images, answers and backbone."""

    blocks: tuple[int, ...]
    timestep: int = 0
    covariates: tuple[str, ...] = ()  #: columns of the clinical table
    strength: float = 5e-4  #: of the penalty
    folds: int = 5
    seed: int = 0  #: of the folds

    @property
    def recipe(self) -> Recipe:
        return Recipe.OURS

    def check_block(self, backbone: Backbone) -> None:
        """Raise WeightsError if a backbone lacks one of the blocks."""
        check_blocks(backbone, self.blocks)

    def summary(self, images: Tensor, activations: Mapping[int, Tensor]) -> Tensor:
        """Return the features of images (N, 3, S, S) and their activations, (N, F)."""
        found = [colour_numbers(images.cpu())]
        for block in self.blocks:
            of = activations[block].float()
            mean, deviation = image_statistics(of)
            found += [mean.flatten(1).cpu(), of.amax((2, 3)).cpu(), deviation.flatten(1).cpu()]
        return torch.cat(found, 1)

    def to_dict(self) -> dict[str, Any]:
        stored = asdict(self) | {"blocks": list(self.blocks), "covariates": list(self.covariates)}
        return {"recipe": self.recipe.value, **stored}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LinearSettings:
        values = {key: value for key, value in stored.items() if key != "recipe"}
        lists = {key: tuple(values[key]) for key in ("blocks", "covariates")}
        return cls(**values | lists)


class Configured(Backbone, Protocol):
    """A backbone that says which network it is: one on this machine, a composite, or one on a cluster."""

    @property
    def config(self) -> Architecture: ...


def linear_settings(
    backbone: Configured, covariates: Sequence[str] = (), seed: int = 0
) -> LinearSettings:
    """Return the settings for a backbone: all its blocks."""
    timestep = 0 if backbone.config == IMAGENET_256 else SMALL_TIMESTEP
    return LinearSettings(tuple(backbone.blocks), timestep, tuple(covariates), seed=seed)


@dataclass(frozen=True)
class LinearExamples:
    """Features (N, F) of images, whether each is malignant, and the clinical answers of each."""

    features: NDArray[np.float32]
    malignant: NDArray[np.bool_]
    answers: Sequence[Answers]

    def of(self, rows: NDArray[np.bool_]) -> LinearExamples:
        """Return some of the images, (N,) bool."""
        answers = [each for each, inside in zip(self.answers, rows, strict=True) if inside]
        return LinearExamples(self.features[rows], self.malignant[rows], answers)


class LinearClassifier:
    """A trained classifier of the recipe "ours"; see `train_linear`.

    `threshold` is that of Youden's J on the cross-validated probabilities of the training images.
    """

    def __init__(
        self,
        settings: LinearSettings,
        backbone_name: str,
        backbone_hash: str,
        threshold: float,
        models: Mapping[Reader, Logistic],
        encoder: Encoder,
    ) -> None:
        self.settings = settings
        self.backbone_name, self.backbone_hash = backbone_name, backbone_hash
        self.threshold = threshold
        self.models, self.encoder = dict(models), encoder

    def probabilities(
        self,
        features: NDArray[np.float32],
        answers: Sequence[Answers] | None = None,
        reader: Reader = Reader.ALL,
    ) -> Floats:
        """Return the probability of malignancy from features (N, F), (N,).

        Args:
            answers: of each image; without, all are missing. A classifier without covariates reads none.
            reader: the classifier, or what stands beside it; KeyError if it has no covariates.
        """
        given = [{}] * len(features) if answers is None else answers
        return self.models[reader].probabilities(
            _columns(features, self.encoder.encode(given), reader)
        )

    def check_backbone(self, backbone: Backbone) -> None:
        """Raise WeightsError if the backbone is not the one that the classifier was trained on."""
        what = f"blocks {self.settings.blocks[0]} to {self.settings.blocks[-1]}"
        check_backbone(backbone, self.backbone_name, self.backbone_hash, what)

    def save(self, path: Path, extra: dict[str, str] | None = None) -> None:
        """Write the classifier to a file, atomically."""
        header = {
            "kind": CLASSIFIER_KIND,
            "note": DISCLAIMER,
            "settings": json.dumps(self.settings.to_dict()),
            "backbone_name": self.backbone_name,
            "backbone_hash": self.backbone_hash,
            "threshold": repr(self.threshold),
            "columns": json.dumps(self.encoder.to_list()),
            **(extra or {}),
        }
        tensors = {}
        for reader, model in self.models.items():
            tensors[f"{reader}.weights"] = torch.from_numpy(model.weights.copy())
            tensors[f"{reader}.bias"] = torch.tensor([model.bias], dtype=torch.float64)
        write_safetensors(path, tensors, header)

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> LinearClassifier:
        """Return the classifier of a file's tensors and header; KeyError or ValueError if it is none."""
        models = {
            reader: Logistic(
                tensors[f"{reader}.weights"].numpy(), float(tensors[f"{reader}.bias"][0])
            )
            for reader in Reader
            if f"{reader}.weights" in tensors
        }
        if not {Reader.ALL, Reader.COLOUR} <= models.keys():
            raise ValueError("the weights are incomplete")
        return cls(
            LinearSettings.from_dict(json.loads(header["settings"])),
            header["backbone_name"],
            header["backbone_hash"],
            float(header["threshold"]),
            models,
            Encoder.from_list(json.loads(header["columns"])),
        )


@dataclass(frozen=True)
class LinearTraining:
    """A trained classifier, and the cross-validated probabilities of its training images, (N,) each."""

    classifier: LinearClassifier
    probabilities: dict[Reader, Floats]
    folds: int


def train_linear(
    examples: LinearExamples, groups: Sequence[str], backbone: Backbone, settings: LinearSettings
) -> LinearTraining:
    """Train a classifier of the recipe "ours", and cross-validate it with groups (patients) kept together.

    Raises TrainingDataError if a class has images of one group only, or a covariate has no two answers.
    """
    encoder = Encoder.learn(settings.covariates, examples.answers)
    encoder.check(examples.answers)
    found = cross_validated(examples, groups, settings)
    fold = grouped_folds(examples.malignant, groups, settings.folds, settings.seed)
    threshold = youden_threshold(examples.malignant, found[Reader.ALL])
    classifier = LinearClassifier(
        *(settings, backbone.name, backbone.hash, threshold),
        *_fitted(examples, settings),
    )
    return LinearTraining(classifier, found, int(fold.max()) + 1)


def cross_validated(
    examples: LinearExamples, groups: Sequence[str], settings: LinearSettings
) -> dict[Reader, Floats]:
    """Return by reader the probabilities of images, (N,), each by models that saw no image of its group."""
    fold = grouped_folds(examples.malignant, groups, settings.folds, settings.seed)
    found: dict[Reader, Floats] = {}
    for number in range(int(fold.max()) + 1):
        left_out = fold == number
        models, encoder = _fitted(examples.of(~left_out), settings)
        tested = examples.of(left_out)
        encoded = encoder.encode(tested.answers)
        for reader, model in models.items():
            of = found.setdefault(reader, np.zeros(len(left_out)))
            of[left_out] = model.probabilities(_columns(tested.features, encoded, reader))
    return found


def grouped_folds(
    malignant: NDArray[np.bool_], groups: Sequence[str], folds: int, seed: int
) -> NDArray[np.intp]:
    """Return the fold of each image, (N,): whole groups, those with a malignant image dealt out evenly.

    The choice depends on the groups' names and the seed, not on the order of the images. Raises
    TrainingDataError if malignant or benign images are of one group only.
    """
    having = {
        name: Counter(g for g, m in zip(groups, malignant, strict=True) if m == label)
        for name, label in (("malignant", True), ("benign", False))
    }
    for name, of in having.items():
        if len(of) < 2:
            raise TrainingDataError(
                f"{len(groups)} photographs of known malignancy, with {name} ones of {len(of)} "
                f"{'patient' if len(of) == 1 else 'patients'}: to learn and to validate takes malignant and "
                "benign photographs of two patients each, at the least"
            )
    number = min(folds, *map(len, having.values()))
    order = sorted(
        set(groups),
        key=lambda g: (g not in having["malignant"], g in having["benign"], seeded_rank(seed, g)),
    )
    of_group = {group: place % number for place, group in enumerate(order)}
    fold = np.array([of_group[group] for group in groups])
    for each in range(number):
        left = malignant[fold != each]
        if left.all() or not left.any():
            raise TrainingDataError(
                f"the {len(set(groups))} patients can't be split so that malignant and benign photographs are "
                "left to learn from: add photographs of other patients"
            )
    return fold


def _fitted(
    examples: LinearExamples, settings: LinearSettings
) -> tuple[dict[Reader, Logistic], Encoder]:
    """Return the models fitted to all these images, and how their answers are encoded."""
    encoder = Encoder.learn(settings.covariates, examples.answers)
    encoded = encoder.encode(examples.answers)
    features, truth = examples.features, examples.malignant
    others = features.shape[1] - COLOURS
    gains = np.concatenate(
        [
            np.full(COLOURS, _COLOUR / COLOURS**0.5),
            np.full(others, _ACTIVATIONS / max(others, 1) ** 0.5),
            np.full(encoder.width, _COVARIATE),
        ]
    )
    everything = _columns(features, encoded, Reader.ALL)
    colours = _columns(features, encoded, Reader.COLOUR)
    alone = np.full(COLOURS, COLOURS**-0.5)
    models = {
        Reader.ALL: fit(everything, truth, gains, settings.strength, encoder.width),
        Reader.COLOUR: fit(colours, truth, alone, _ALONE["colour"]),
    }
    if encoder.width:
        unit = np.full(encoder.width, _COVARIATE)
        models[Reader.COVARIATES] = fit(encoded, truth, unit, _ALONE["covariates"], encoder.width)
    return models, encoder


def _columns(features: NDArray[np.float32], encoded: Floats, reader: Reader) -> Floats:
    """Return what a reader reads, (N, columns)."""
    if reader is Reader.COLOUR:
        return features[:, :COLOURS].astype(np.float64)
    if reader is Reader.COVARIATES:
        return encoded
    return np.column_stack([features.astype(np.float64), encoded])
