"""CNNs that classify malignant and benign: the paper's five, and DeepDerm's, by one of two recipes.

`paper`: the five are frozen encoders with a trained head (`fedd.baselines.frozen`). DeepDerm is trained
whole, as in the authors' notebook DDI_DeepDerm_Classification: an Inception v3 that was trained on other
photographs of skin (theirs on HAM10000's seven diagnoses), one more layer on the softmax of its classes, and
photographs flipped and turned. `ours`: torchvision's networks with two outputs and cross-entropy, trained end
to end.

Daneshjou et al. (Science Advances 2022) published DeepDerm's weights, also those trained on HAM10000; these
files can be loaded as they are. The output is research, not diagnosis.

Arrays: photographs (H, W, 3) uint8, S the width and height of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.baselines import keras
from fedd.baselines.fitting import Report, Samples, fit, scaled, seeded, squeezed
from fedd.baselines.frozen import FrozenCNN, encoder_of, frozen_samples
from fedd.baselines.losses import Objective, accuracy, binary_cross_entropy
from fedd.baselines.packages import needing_baselines
from fedd.baselines.settings import FitSettings, Recipe
from fedd.baselines.weights import ImageNetInput, Start, fetching, fill, reading
from fedd.dataset import DatasetImage
from fedd.errors import TrainingDataError, WeightsError
from fedd.network.devices import existing_device, within_memory
from fedd.weights.files import read_safetensors, read_state_dict, write_safetensors

CNN_KIND = "fedd-cnn"

#: The last layer of each network, whose shape depends on its classes.
_HEADS = {
    "densenet121": "classifier.",
    "vgg16": "classifier.6.",
    "resnet50": "fc.",
    "efficientnet_b0": "classifier.1.",
    "mobilenet_v2": "classifier.1.",
    "deepderm": "fc.",
}
MODELS = tuple(_HEADS)
DEEPDERM = "deepderm"

#: Inception v3 reduces smaller images to nothing; the others reduce 32 pixels to one position.
_SMALLEST = {DEEPDERM: 75}


#: The authors' notebooks DDI_Baseline_CNN_Classifiers (experiment loop) and DDI_DeepDerm_Classification.
_PAPER: dict[str, Any] = {
    "image_size": 256,
    "epochs": 500,
    "patience": 50,
    "plateau": 25,
    "batch_size": 30,
    "learning_rate": 1e-4,
    "augment": False,
}

#: Classes of HAM10000, on which the authors trained their DeepDerm.
_HAM10000_CLASSES = 7

#: Photographs in one batch of a prediction.
_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class CNNSettings(FitSettings):
    """Everything that determines a training's outcome besides the images."""

    model: str = "efficientnet_b0"
    image_size: int = 224
    batch_size: int = 16

    @classmethod
    def of(cls, recipe: Recipe, model: str = "efficientnet_b0", **changes: Any) -> CNNSettings:
        """Return the settings of a recipe for a model, with changes."""
        numbers = dict(_PAPER) if recipe is Recipe.PAPER else {}
        if model == DEEPDERM:
            numbers |= {"image_size": 299, "augment": True}
        return cls(**{**numbers, "recipe": recipe, "model": model, **changes})

    @property
    def frozen(self) -> bool:
        """Return whether only a head on an unchanged encoder is trained."""
        return self.recipe is Recipe.PAPER and self.model != DEEPDERM

    @property
    def monitored(self) -> str:
        return "accuracy" if self.recipe is Recipe.PAPER else super().monitored

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in MODELS:
            raise WeightsError(f"no classifier {self.model}: expected one of {', '.join(MODELS)}")
        if self.frozen and self.augment:
            raise TrainingDataError(
                "a frozen encoder passes over each photograph once: no augmentation with the recipe paper"
            )
        if self.image_size < (smallest := _SMALLEST.get(self.model, 32)):
            raise TrainingDataError(
                f"{self.model} needs images of {smallest} pixels at least, not {self.image_size}"
            )


@dataclass(frozen=True)
class Diagnosed:
    """A photograph, (H, W, 3) uint8, of known diagnosis."""

    photograph: NDArray[np.uint8]
    malignant: bool


def diagnosed(images: Iterable[DatasetImage]) -> Iterator[Diagnosed]:
    """Yield a data set's images of known malignancy, one photograph in memory at a time."""
    for image in images:
        yield Diagnosed(image.photograph(), bool(image.malignant))


class ClassificationBaseline:
    """A trained CNN and its settings; see `train_cnn` and `load_cnn`."""

    def __init__(self, net: nn.Module, settings: CNNSettings, epoch: int) -> None:
        self.net, self.settings = net.eval(), settings
        self.epoch = epoch  #: of these weights, from 1

    @torch.inference_mode()
    def predict(self, photographs: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return probabilities of malignancy, (N,) in 0 to 1; a few photographs are held at a time."""
        device = next(self.net.parameters()).device
        waiting = (squeezed(photograph, self.settings.image_size) for photograph in photographs)
        found: list[float] = []
        while part := list(islice(waiting, _BATCH)):
            with within_memory("classifying photographs"):
                logits = self.net(scaled(torch.stack(part).to(device)))
                one = logits.shape[1] == 1
                found += (logits[:, 0].sigmoid() if one else logits.softmax(1)[:, 1]).tolist()
        return np.array(found, np.float32)

    def save(self, path: Path) -> None:
        """Write weights and settings to a file, atomically."""
        header = {"kind": CNN_KIND, "settings": self.settings.to_json(), "epoch": str(self.epoch)}
        tensors = {key: t.cpu().contiguous() for key, t in self.net.state_dict().items()}
        write_safetensors(path, tensors, header)


def train_cnn(
    examples: Iterable[Diagnosed],
    validation: Iterable[Diagnosed],
    settings: CNNSettings,
    *,
    device: str = "cpu",
    report: Report = lambda epoch, train_loss, monitored: None,
) -> ClassificationBaseline:
    """Train a CNN and keep the epoch with the best monitored value.

    Without validation images it trains for `settings.epochs`. Deterministic for `settings.seed` on CPU.

    Raises:
        TrainingDataError: only one class, in training or validation.
        WeightsError: the initial weights can't be loaded.
        DeviceError: no such device.
        MissingPackageError: without the extra `[baselines]`.
    """
    where = existing_device(device)
    train = _samples(examples, settings.image_size)
    validated = _samples(validation, settings.image_size)
    _check_both(train, "the photographs show", "a classifier needs benign and malignant ones")
    if validated:
        needs = f"its {settings.monitored} can't choose an epoch"
        _check_both(validated, "the validation photographs show", needs)
    with seeded(settings.seed):
        net: nn.Module
        trained: nn.Module
        if settings.frozen:
            encoder = _frozen_encoder(settings).to(where)
            train, validated = (
                frozen_samples(encoder, part, settings.batch_size) for part in (train, validated)
            )
            net = FrozenCNN(encoder, train.inputs.shape[1]).to(where)
            trained = net.head
        else:
            net = trained = _start(settings).to(where)
        epoch = fit(trained, _objective(settings), train, validated, settings, report)
    return ClassificationBaseline(net, settings, epoch)


def load_cnn(path: Path, device: str = "cpu") -> ClassificationBaseline:
    """Load a trained CNN from a file; raises WeightsError if it holds none."""
    where = existing_device(device)
    tensors, header = read_safetensors(path, CNN_KIND)
    with reading(path, "CNN"):
        settings = CNNSettings.from_json(header["settings"])
        net = _empty(settings, tensors)
        net.load_state_dict(tensors)
        epoch = int(header["epoch"])
    return ClassificationBaseline(net.to(where), settings, epoch)


def _check_both(samples: Samples, shows: str, why: str) -> None:
    """Raise TrainingDataError unless there are benign and malignant photographs."""
    if len(torch.unique(samples.targets)) < 2:
        shown = {0: "benign", 1: "malignant"}[int(samples.targets[0])] if len(samples) else "no"
        raise TrainingDataError(f"{shows} only {shown} lesions: {why}")


def _objective(settings: CNNSettings) -> Objective:
    if settings.recipe is Recipe.PAPER:
        return Objective(binary_cross_entropy, accuracy)
    return Objective(F.cross_entropy)


def _samples(examples: Iterable[Diagnosed], size: int) -> Samples:
    images, malignant = [], []
    for example in examples:
        images.append(squeezed(example.photograph, size))
        malignant.append(int(example.malignant))
    pictures = torch.stack(images) if images else torch.empty(0, 3, size, size)
    return Samples(pictures, torch.tensor(malignant, dtype=torch.long))


def _start(settings: CNNSettings) -> nn.Module:
    """Return a network to be trained whole, with its initial weights; a layer that does not fit is random."""
    if settings.recipe is Recipe.PAPER:
        return _retrained(settings)
    tensors, path = _initial(settings)
    net = _build(settings.model)
    if tensors is not None:
        fill(net[1], tensors, (_HEADS[settings.model], _AUXILIARY_HEAD), settings.model, path)
    return net


def _frozen_encoder(settings: CNNSettings) -> nn.Module:
    """Return the encoder with its initial weights, from a file of the whole network or of the encoder."""
    tensors, path = _initial(settings)
    with needing_baselines():
        encoder = encoder_of(settings.model)
    if tensors is not None:
        fill(encoder, tensors, _CLASSIFIERS, settings.model, path)
    return encoder


#: Keys of a whole network that its encoder lacks.
_CLASSIFIERS = ("classifier.", "fc.")


def _retrained(settings: CNNSettings) -> _Retrained:
    """Return the paper's DeepDerm with its initial weights: of a file, with the classes that it has."""
    tensors, path = _initial(settings)
    optional: tuple[str, ...] = (_HEADS[DEEPDERM], _AUXILIARY_HEAD)
    classes = _HAM10000_CLASSES
    if tensors is not None and isinstance(settings.start, Path):
        optional = (_AUXILIARY_HEAD,)
        if "fc.weight" in tensors:
            classes = len(tensors["fc.weight"])
    net = _Retrained(classes)
    if tensors is not None:
        fill(net.inception, tensors, optional, "deepderm (torchvision's inception_v3)", path)
    keras.initialised(net.last)
    return keras.slow_statistics(net)


#: Inception's auxiliary classifier, which is not used.
_AUXILIARY_HEAD = "AuxLogits."


def _initial(settings: CNNSettings) -> tuple[Mapping[str, Tensor] | None, Path]:
    """Return the initial weights of a whole network, None for random ones, and where they are from."""
    if isinstance(settings.start, Path):
        return read_state_dict(settings.start), settings.start
    if settings.start is Start.SCRATCH:
        return None, Path()
    with needing_baselines():
        from torchvision import models
    name = "inception_v3" if settings.model == DEEPDERM else settings.model
    weights = models.get_model_weights(name).IMAGENET1K_V1
    scratch = "--recipe ours --from-scratch" if settings.frozen else "--from-scratch"
    with fetching(settings.model, scratch):
        fetched = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return fetched, Path(weights.url)


def _empty(settings: CNNSettings, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the network that a file's tensors belong to."""
    if settings.recipe is Recipe.OURS:
        return _build(settings.model)
    with needing_baselines():
        if settings.frozen:
            features = tensors["head.0.weight"].shape[1]
            return FrozenCNN(encoder_of(settings.model), features)
        return _Retrained(len(tensors["inception.fc.weight"]))


def _build(model: str) -> nn.Sequential:
    """Return a network from images (N, 3, S, S) in [-1, 1] to logits (N, 2): benign, malignant."""
    with needing_baselines():
        from torchvision import models
    if model == DEEPDERM:
        return nn.Sequential(nn.Identity(), _inception(2))
    return nn.Sequential(ImageNetInput(), models.get_model(model, weights=None, num_classes=2))


def _inception(classes: int) -> nn.Module:
    with needing_baselines():
        from torchvision import models
    # Inception was trained on [-1, 1]; torchvision's transform_input would lead back to it.
    net: nn.Module = models.inception_v3(
        weights=None, num_classes=classes, aux_logits=False, init_weights=False
    )
    return net


class _Retrained(nn.Module):
    """The paper's DeepDerm: one more layer, with one output, on the softmax of Inception's classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.inception, self.last = _inception(classes), nn.Linear(classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.inception(images).softmax(1))
        return logits
