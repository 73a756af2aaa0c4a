"""The paper's CNN: a frozen ImageNet encoder, max pooling to about 512 features, and a small trained head.

As in the authors' notebook DDI_Baseline_CNN_Classifiers. The encoder runs in inference mode, batch norms
included (Keras' `trainable = False`), so it passes over each photograph once, before the training.

Arrays: images (N, 3, S, S) float32 in [-1, 1]; features (N, F) float32, F = 512, or 640 for the encoders
with 1280 channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from fedd.baselines import keras
from fedd.baselines.fitting import Samples, scaled
from fedd.baselines.weights import ImageNetInput
from fedd.malignancy.classifier import network
from fedd.malignancy.pooling import pooled_by_halves
from fedd.network.devices import within_memory

#: The part of each of torchvision's networks that Keras keeps with `include_top=False`; names stay.
_ENCODERS: dict[str, Callable[[nn.Module], list[tuple[str, nn.Module]]]] = {
    "densenet121": lambda net: [
        ("features", net.get_submodule("features")),
        ("relu", nn.ReLU()),
    ],
    "vgg16": lambda net: [("features", net.get_submodule("features"))],
    "resnet50": lambda net: [
        (name, layer) for name, layer in net.named_children() if name not in ("avgpool", "fc")
    ],
    "efficientnet_b0": lambda net: [("features", net.get_submodule("features"))],
    "mobilenet_v2": lambda net: [("features", net.get_submodule("features"))],
}


def encoder_of(model: str) -> nn.Sequential:
    """Return the convolutions of one of torchvision's networks, with random weights and its names."""
    from torchvision import models

    return nn.Sequential(OrderedDict(_ENCODERS[model](models.get_model(model, weights=None))))


class FrozenCNN(nn.Module):
    """Encoder and head; in training mode too, the encoder stays as it is."""

    def __init__(self, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.normalise = ImageNetInput()
        self.encoder = encoder.requires_grad_(False)
        self.head = keras.initialised(network(features))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(features_of(self.encoder, self.normalise(images)))
        return logits


def features_of(encoder: nn.Module, images: Tensor) -> Tensor:
    """Return an encoder's pooled features, (N, F), of images as it takes them."""
    return pooled_by_halves(encoder(images))


@torch.no_grad()
def frozen_samples(encoder: nn.Module, samples: Samples, batch: int) -> Samples:
    """Replace the images of `samples` by their features, computed once, on the encoder's device.

    Raises DeviceError if a batch does not fit into the GPU's memory.
    """
    if not samples:
        return samples  # of no use, and not pooled
    encoder.eval()
    device = next(encoder.parameters()).device
    normalise, found = ImageNetInput(), []
    for images in torch.split(samples.inputs, batch):
        with within_memory("computing a frozen encoder's features"):
            found.append(features_of(encoder, normalise(scaled(images.to(device)))).cpu())
    return Samples(torch.cat(found), samples.targets)
