"""The paper's malignancy classifier: a small MLP on one block's activations, pooled to 512 numbers.

As in FEDD (section 2.2): 512 -> 64 -> 32 -> 1 with ReLU, batch norm, and dropout 0.5 and 0.25 after
the hidden layers; Adam with weight decay 1e-5 on the binary cross entropy, all training images in one
batch, at most 500 epochs, with early stopping on a validation split.

The output is research, not a diagnosis.

Arrays: features (N, F) float32, F = 512 (`fedd.malignancy.pooling`); malignant (N,) bool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fedd import pipeline
from fedd.backbone import IMAGENET_256, Backbone
from fedd.errors import TrainingDataError, WeightsError
from fedd.malignancy.discrimination import youden_threshold
from fedd.malignancy.pooling import pooled
from fedd.network.architecture import Architecture
from fedd.pipeline import Source
from fedd.weights.files import write_safetensors

CLASSIFIER_KIND = "fedd-malignancy"

#: Accompanies every probability that is shown or stored.
DISCLAIMER = "research output, not a diagnosis"


class Recipe(StrEnum):
    """How a malignancy classifier is made."""

    PAPER = "paper"  #: an MLP on one block's pooled activations, as in FEDD
    OURS = "ours"  #: logistic regression on all blocks, colour and clinical answers (`fedd.malignancy.linear`)


#: Widths of the hidden layers, and their dropout.
HIDDEN, DROPOUT = (64, 32), (0.5, 0.25)

#: The paper's best block by number of training images, on OpenAI's network at t near 0.
PAPER_BLOCKS = {30: 4, 60: 6, 90: 12, 120: 14}

#: Block and timestep for the backbone that ships with the package: the best of its eight blocks at
#: t = 0, 50 and 100 by cross-validated ROC-AUC, on the photographs of pad300 outside its test part.
SMALL_BLOCK, SMALL_TIMESTEP = 5, 50


@dataclass(frozen=True)
class ClassifierSettings:
    """Everything that determines a training's outcome besides images and backbone."""

    block: int
    timestep: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    epochs: int = 500
    patience: int = 50  #: epochs without a lower validation loss after which training ends
    validation: float = 0.2  #: share of the images in the validation split
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        return Recipe.PAPER

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are read."""
        return (self.block,)

    def check_block(self, backbone: Backbone) -> None:
        """Raise WeightsError if a backbone has no such block."""
        check_blocks(backbone, self.blocks)

    def summary(self, images: Tensor, activations: Mapping[int, Tensor]) -> Tensor:
        """Return the features of images (N, 3, S, S), of whose activations they are pooled, (N, F)."""
        return pooled(activations[self.block])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Examples:
    """Features (N, F) of images and whether each is malignant, (N,) bool."""

    features: Tensor
    malignant: NDArray[np.bool_]

    def part(self, rows: NDArray[np.bool_]) -> Examples:
        return Examples(self.features[torch.from_numpy(rows)], self.malignant[rows])


def default_settings(config: Architecture, images: int) -> ClassifierSettings:
    """Return the settings for a backbone, by its network, and a number of training images.

    For OpenAI's network, the block that was best in the paper for the nearest number of images.
    """
    if config == IMAGENET_256:
        return ClassifierSettings(PAPER_BLOCKS[min(PAPER_BLOCKS, key=lambda n: abs(n - images))])
    return ClassifierSettings(SMALL_BLOCK, SMALL_TIMESTEP)


class MalignancyClassifier:
    """A trained classifier and its settings; see `train_classifier` and `fedd.malignancy.stored`.

    `threshold` is that of Youden's J on the validation split.
    """

    def __init__(
        self,
        settings: ClassifierSettings,
        backbone_name: str,
        backbone_hash: str,
        threshold: float,
        tensors: dict[str, Tensor],
    ) -> None:
        self.settings = settings
        self.backbone_name, self.backbone_hash = backbone_name, backbone_hash
        self.threshold, self.tensors = threshold, tensors
        with torch.device("meta"):  # initial weights would use up random numbers
            self._net = network(tensors["0.weight"].shape[1]).eval().requires_grad_(False)
        self._net.load_state_dict(tensors, assign=True)

    def predict(
        self, backbone: Backbone, photographs: Iterable[NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """Return the probability of malignancy for each photograph (H, W, 3), (N,).

        Raises WeightsError if the backbone is not the one that the classifier was trained on.
        """
        self.check_backbone(backbone)
        return self.probabilities(features_of(photographs, backbone, self.settings))

    @torch.inference_mode()
    def probabilities(self, features: Tensor) -> NDArray[np.float64]:
        """Return the probability of malignancy from features (N, F), (N,)."""
        logits: Tensor = self._net(features)
        return torch.sigmoid(logits[:, 0].double()).numpy()

    def check_backbone(self, backbone: Backbone) -> None:
        """Raise WeightsError if the backbone is not the one that the classifier was trained on."""
        what = f"block {self.settings.block}"
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
            **(extra or {}),
        }
        write_safetensors(path, {k: v.contiguous() for k, v in self.tensors.items()}, header)


@dataclass(frozen=True)
class Training:
    """A trained classifier and the course of its training."""

    classifier: MalignancyClassifier
    epochs: int
    best_epoch: int  #: the epoch with the lowest validation loss, from 1
    validation_loss: float  #: binary cross entropy of that epoch


def features_of(
    photographs: Iterable[NDArray[np.uint8]], backbone: Backbone, settings: ClassifierSettings
) -> Tensor:
    """Return pooled activations of photographs (H, W, 3), (N, F); a few photographs are held at a time.

    Raises WeightsError if the backbone has no such block or its activations are not numbers.
    """
    settings.check_block(backbone)
    sources = (Source(None, partial(np.asarray, photograph)) for photograph in photographs)
    done = pipeline.summaries(backbone, sources, settings, expected=())
    found = [each.features for each in done if each.features is not None]
    return torch.from_numpy(np.stack(found)) if found else torch.empty(0, 0)


def train_classifier(
    training: Examples,
    validation: Examples,
    backbone: Backbone,
    settings: ClassifierSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Training:
    """Train a classifier with early stopping; deterministic for `settings.seed` on CPU.

    Raises TrainingDataError if a split lacks malignant or benign images.
    """
    for part, examples in (("training", training), ("validation", validation)):
        if not 0 < examples.malignant.sum() < len(examples.malignant):
            raise TrainingDataError(
                f"the {part} split has {int(examples.malignant.sum())} malignant of "
                f"{len(examples.malignant)} images: it needs malignant and benign ones"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net = network(training.features.shape[1])
        epochs, best_epoch, loss, tensors = _fit(net, training, validation, settings, progress)
    classifier = MalignancyClassifier(settings, backbone.name, backbone.hash, 0.5, tensors)
    classifier.threshold = youden_threshold(
        validation.malignant, classifier.probabilities(validation.features)
    )
    return Training(classifier, epochs, best_epoch, loss)


def check_blocks(backbone: Backbone, blocks: Sequence[int]) -> None:
    """Raise WeightsError if a backbone lacks one of these blocks."""
    missing = [block for block in blocks if block not in backbone.blocks]
    if missing:
        raise WeightsError(
            f"{backbone.name} has decoder blocks {backbone.blocks[0]} to {backbone.blocks[-1]}, "
            f"not {missing[0]}"
        )


def check_backbone(backbone: Backbone, name: str, weights_hash: str, blocks: str) -> None:
    """Raise WeightsError if a backbone is not that of a classifier, which reads these blocks of it."""
    if backbone.hash != weights_hash:
        raise WeightsError(
            f"this classifier reads {blocks} of the backbone {name} ({weights_hash[:12]}), not "
            f"{backbone.name} ({backbone.hash[:12]}): give that one, or train a new classifier"
        )


def network(inputs: int) -> nn.Sequential:
    """Return the network: inputs -> 64 -> 32 -> 1, a logit; the paper's CNNs end in it too."""
    layers: list[nn.Module] = []
    for width, dropped in zip(HIDDEN, DROPOUT, strict=True):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropped)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


def _fit(
    net: nn.Sequential,
    training: Examples,
    validation: Examples,
    settings: ClassifierSettings,
    progress: Callable[[int, int], None],
) -> tuple[int, int, float, dict[str, Tensor]]:
    """Return the number of epochs, the best one, its validation loss and its weights."""
    optimiser = torch.optim.Adam(
        net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    best_epoch, lowest, tensors = 0, float("inf"), net.state_dict()
    epoch = 0
    while epoch < settings.epochs and epoch - best_epoch < settings.patience:
        epoch += 1
        net.train()
        loss = _loss(net, training)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        net.eval()
        with torch.inference_mode():
            validation_loss = float(_loss(net, validation))
        if validation_loss < lowest:
            best_epoch, lowest = epoch, validation_loss
            tensors = {name: value.detach().clone() for name, value in net.state_dict().items()}
        progress(epoch, settings.epochs)
    return epoch, best_epoch, lowest, tensors


def _loss(net: nn.Sequential, examples: Examples) -> Tensor:
    """Return the mean binary cross entropy over all images of a split."""
    truth = torch.from_numpy(examples.malignant).float()
    return F.binary_cross_entropy_with_logits(net(examples.features)[:, 0], truth)
