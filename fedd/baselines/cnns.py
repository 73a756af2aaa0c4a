"""CNNs that classify malignant and benign, trained end to end: the paper's five, and DeepDerm's.

The networks are torchvision's with two outputs and cross-entropy. DeepDerm (Daneshjou et al., Science
Advances 2022) is an Inception v3; its authors' weights (also those trained on HAM10000) can be loaded as
they are. The output is research, not diagnosis.

Arrays: photographs (H, W, 3) uint8, S the width and height of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from fedd.baselines.fitting import FitSettings, Report, Samples, fit, scaled, seeded, squeezed
from fedd.baselines.packages import needing_baselines
from fedd.baselines.weights import ImageNetInput, Start, fetching, fill
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


@dataclass(frozen=True, kw_only=True)
class CNNSettings(FitSettings):
    """Everything that determines a training's outcome besides the images."""

    model: str = "efficientnet_b0"
    image_size: int = 224  #: DeepDerm's authors gave theirs 299
    batch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in MODELS:
            raise WeightsError(f"no classifier {self.model}: expected one of {', '.join(MODELS)}")
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
        """Return probabilities of malignancy, (N,) in 0 to 1."""
        device = next(self.net.parameters()).device
        found = []
        for photograph in photographs:
            image = scaled(squeezed(photograph, self.settings.image_size))[None]
            with within_memory("classifying a photograph"):
                found.append(float(self.net(image.to(device)).softmax(1)[0, 1]))
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
    report: Report = lambda epoch, train_loss, validation_loss: None,
) -> ClassificationBaseline:
    """Train a CNN and keep the epoch with the lowest validation loss.

    Without validation images it trains for `settings.epochs`. Deterministic for `settings.seed` on CPU.

    Raises:
        TrainingDataError: only one class.
        WeightsError: the initial weights can't be loaded.
        DeviceError: no such device.
        MissingPackageError: without the extra `[baselines]`.
    """
    where = existing_device(device)
    train = _samples(examples, settings.image_size)
    if len(torch.unique(train.targets)) < 2:
        shown = {0: "benign", 1: "malignant"}[int(train.targets[0])] if len(train) else "no"
        raise TrainingDataError(
            f"the photographs show only {shown} lesions: a classifier needs benign and malignant ones"
        )
    validated = _samples(validation, settings.image_size)
    with seeded(settings.seed):
        net = _start(settings).to(where)
        epoch = fit(net, F.cross_entropy, train, validated, settings, report)
    return ClassificationBaseline(net, settings, epoch)


def load_cnn(path: Path, device: str = "cpu") -> ClassificationBaseline:
    """Load a trained CNN from a file; raises WeightsError if it holds none."""
    where = existing_device(device)
    tensors, header = read_safetensors(path, CNN_KIND)
    settings = CNNSettings.from_json(header["settings"])
    net = _build(settings.model)
    net.load_state_dict(tensors)
    return ClassificationBaseline(net.to(where), settings, int(header["epoch"]))


def _samples(examples: Iterable[Diagnosed], size: int) -> Samples:
    images, malignant = [], []
    for example in examples:
        images.append(squeezed(example.photograph, size))
        malignant.append(int(example.malignant))
    pictures = torch.stack(images) if images else torch.empty(0, 3, size, size)
    return Samples(pictures, torch.tensor(malignant, dtype=torch.long))


def _start(settings: CNNSettings) -> nn.Module:
    """Return the network with its initial weights; a last layer that does not fit is random."""
    net = _build(settings.model)
    if isinstance(settings.start, Path):
        tensors = read_state_dict(settings.start)
        heads = (_HEADS[settings.model], _AUXILIARY_HEAD)
        fill(net[1], tensors, heads, settings.model, settings.start)
    elif settings.start is Start.IMAGENET:
        with fetching(settings.model):
            _fill_from_imagenet(net[1], settings.model)
    return net


#: Inception's auxiliary classifier, which is not used.
_AUXILIARY_HEAD = "AuxLogits."


def _fill_from_imagenet(net: nn.Module, model: str) -> None:
    from torchvision import models

    name = "inception_v3" if model == DEEPDERM else model
    weights = models.get_model_weights(name).IMAGENET1K_V1
    fetched = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    fill(net, fetched, (_HEADS[model], _AUXILIARY_HEAD), model, Path(weights.url))


def _build(model: str) -> nn.Sequential:
    """Return a network from images (N, 3, S, S) in [-1, 1] to logits (N, 2): benign, malignant."""
    with needing_baselines():
        from torchvision import models
    if model == DEEPDERM:
        # Inception was trained on [-1, 1]; torchvision's transform_input would lead back to it.
        net = models.inception_v3(weights=None, num_classes=2, aux_logits=False, init_weights=False)
        return nn.Sequential(nn.Identity(), net)
    return nn.Sequential(ImageNetInput(), models.get_model(model, weights=None, num_classes=2))
