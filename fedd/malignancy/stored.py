"""Files of malignancy classifiers, of either recipe; those of older programs predict as they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedd.errors import WeightsError
from fedd.malignancy.classifier import (
    CLASSIFIER_KIND,
    ClassifierSettings,
    MalignancyClassifier,
    Recipe,
)
from fedd.malignancy.covariates import Answers
from fedd.malignancy.linear import LinearClassifier
from fedd.weights.files import read_safetensors

#: A classifier of either recipe.
Classifier: TypeAlias = MalignancyClassifier | LinearClassifier


def load_classifier(path: Path) -> Classifier:
    """Load a classifier from a file; raises WeightsError if it holds none."""
    return read_classifier(path)[0]


def read_classifier(path: Path) -> tuple[Classifier, dict[str, str]]:
    """Load a classifier from a file, with the file's header."""
    if not path.is_file():
        raise WeightsError(f"no classifier at {path}: train one first")
    tensors, header = read_safetensors(path, CLASSIFIER_KIND)
    try:
        classifier = _classifier(tensors, header)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} holds no classifier of this version: {first}") from error
    return classifier, header


def probability(
    classifier: Classifier, features: NDArray[np.float32], answers: Answers | None = None
) -> float:
    """Return the probability of malignancy of one image, from its features (F,) and clinical answers.

    One by one: sums are rounded differently in batches of other sizes.
    """
    if isinstance(classifier, LinearClassifier):
        return float(classifier.probabilities(features[None], [answers or {}])[0])
    return float(classifier.probabilities(torch.from_numpy(features[None]))[0])


def _classifier(tensors: dict[str, Tensor], header: dict[str, str]) -> Classifier:
    settings = json.loads(header["settings"])
    if settings.get("recipe") == Recipe.OURS:
        return LinearClassifier.read(tensors, header)
    return MalignancyClassifier(
        ClassifierSettings(**settings),
        header["backbone_name"],
        header["backbone_hash"],
        float(header["threshold"]),
        tensors,
    )
