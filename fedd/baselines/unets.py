"""UNets with the paper's encoders, trained end to end on masks, by one of two recipes.

Both: segmentation_models_pytorch's UNet, dice + focal loss, Adam at 1e-4, 256 x 256. `paper` trains as the
authors' notebook DDI_Baseline_U_Nets_Segmentation. Pixels of class 255 (unknown) are left out of loss and
IoU.

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids, S the width and height of the network's
input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.baselines import keras
from fedd.baselines.fitting import Report, Samples, fit, scaled, seeded, squeezed
from fedd.baselines.losses import Objective, dice_and_focal, keras_dice_and_focal, soft_iou
from fedd.baselines.packages import needing_baselines
from fedd.baselines.settings import FitSettings, Recipe
from fedd.baselines.weights import ImageNetInput, Start, fetching, fill, reading
from fedd.dataset import UNKNOWN
from fedd.encoders import CHANNELS, load_efficientnet_lite0, strided_features
from fedd.errors import TrainingDataError, WeightsError
from fedd.network.devices import existing_device, within_memory
from fedd.weights.files import read_safetensors, read_state_dict, write_safetensors

UNET_KIND = "fedd-unet"

#: The paper's five, and one whose ImageNet weights are installed with this package.
PAPER_ENCODERS = ("densenet121", "vgg16", "resnet50", "efficientnet-b0", "mobilenet_v2")
LITE = "efficientnet-lite0"
ENCODERS = (*PAPER_ENCODERS, LITE)


#: Photographs in one batch of a prediction.
_BATCH = 16

#: The authors' notebook DDI_Baseline_U_Nets_Segmentation.
_PAPER: dict[str, Any] = {
    "epochs": 1000,
    "patience": 100,
    "plateau": 50,
    "batch_size": 64,
    "learning_rate": 1e-4,
    "augment": False,
}


@dataclass(frozen=True, kw_only=True)
class UNetSettings(FitSettings):
    """Everything that determines a training's outcome besides the images."""

    encoder: str = "efficientnet-b0"
    image_size: int = 256

    @classmethod
    def of(cls, recipe: Recipe, **changes: Any) -> UNetSettings:
        """Return the settings of a recipe, with changes."""
        numbers = _PAPER if recipe is Recipe.PAPER else {}
        return cls(**{**numbers, "recipe": recipe, **changes})

    @property
    def monitored(self) -> str:
        return "IoU" if self.recipe is Recipe.PAPER else super().monitored

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder not in ENCODERS:
            raise WeightsError(
                f"no UNet with the encoder {self.encoder}: expected one of {', '.join(ENCODERS)}"
            )
        if self.image_size % 32:
            raise TrainingDataError(f"a UNet needs a multiple of 32 pixels, not {self.image_size}")


class Masked(Protocol):
    """A photograph with its mask, such as `fedd.probes.pixels.Example`."""

    @property
    def photograph(self) -> NDArray[np.uint8]: ...

    @property
    def mask(self) -> NDArray[np.uint8]: ...


class SegmentationBaseline:
    """A trained UNet and its settings; see `train_unet` and `load_unet`."""

    def __init__(
        self,
        net: nn.Module,
        settings: UNetSettings,
        classes: tuple[str, ...],
        trained: tuple[int, ...],
        epoch: int,
    ) -> None:
        self.net, self.settings = net.eval(), settings
        self.classes, self.trained = classes, trained
        self.epoch = epoch  #: of these weights, from 1

    def predict(self, photographs: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Predict masks of photographs, each at its own size, of classes in the training masks."""
        return list(self.masks(photographs))

    def masks(self, photographs: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Yield what `predict` returns, with a few photographs in memory at a time."""
        waiting = iter(photographs)
        while part := list(islice(waiting, _BATCH)):
            with within_memory("predicting photographs"), torch.inference_mode():
                found = [
                    _enlarged(small, photograph.shape[:2])
                    .max(0)
                    .indices.to(torch.uint8)
                    .cpu()
                    .numpy()
                    for photograph, small in zip(part, self._softmax(part), strict=True)
                ]
            yield from found

    def probabilities(self, photograph: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the softmax over the classes at the network's size, (classes, S, S)."""
        with within_memory("predicting photographs"), torch.inference_mode():
            return np.asarray(self._softmax([photograph])[0].cpu().numpy(), np.float32)

    def _softmax(self, photographs: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return the softmax over the classes of training, (N, classes, S, S), on the network's device."""
        device = next(self.net.parameters()).device
        images = [squeezed(photograph, self.settings.image_size) for photograph in photographs]
        logits = self.net(scaled(torch.stack(images).to(device))).float()
        logits[:, [c for c in range(len(self.classes)) if c not in self.trained]] = -torch.inf
        softmax: Tensor = logits.softmax(1)
        return softmax

    def save(self, path: Path) -> None:
        """Write weights and settings to a file, atomically."""
        header = {
            "kind": UNET_KIND,
            "settings": self.settings.to_json(),
            "classes": json.dumps(self.classes),
            "trained": json.dumps(self.trained),
            "epoch": str(self.epoch),
        }
        tensors = {key: t.cpu().contiguous() for key, t in self.net.state_dict().items()}
        write_safetensors(path, tensors, header)


def train_unet(
    examples: Iterable[Masked],
    validation: Iterable[Masked],
    classes: Sequence[str],
    settings: UNetSettings,
    *,
    device: str = "cpu",
    report: Report = lambda epoch, train_loss, monitored: None,
) -> SegmentationBaseline:
    """Train a UNet and keep the epoch with the best monitored value.

    Without validation masks it trains for `settings.epochs`. Deterministic for `settings.seed` on CPU.

    Raises:
        TrainingDataError: fewer than two classes.
        WeightsError: the initial weights can't be loaded.
        DeviceError: no such device.
        MissingPackageError: without the extra `[baselines]`.
    """
    where = existing_device(device)
    train = _samples(examples, settings.image_size, len(classes))
    validated = _samples(validation, settings.image_size, len(classes))
    trained = tuple(int(c) for c in torch.unique(train.targets) if c != UNKNOWN)
    if len(trained) < 2:
        shown = classes[trained[0]] if trained else "no class"
        raise TrainingDataError(
            f"the masks show only {shown}: a UNet needs masks with at least two classes"
        )
    with seeded(settings.seed):
        net = _start(settings, len(classes)).to(where)
        if settings.recipe is Recipe.PAPER:
            keras.slow_statistics(net)
        epoch = fit(net, _objective(settings), train, validated, settings, report)
    return SegmentationBaseline(net, settings, tuple(classes), trained, epoch)


def load_unet(path: Path, device: str = "cpu") -> SegmentationBaseline:
    """Load a trained UNet from a file; raises WeightsError if it holds none."""
    where = existing_device(device)
    tensors, header = read_safetensors(path, UNET_KIND)
    with reading(path, "UNet"):
        settings = UNetSettings.from_json(header["settings"])
        classes = tuple(json.loads(header["classes"]))
        net = _build(settings.encoder, len(classes))
        net.load_state_dict(tensors)
        trained = tuple(json.loads(header["trained"]))
        epoch = int(header["epoch"])
    return SegmentationBaseline(net.to(where), settings, classes, trained, epoch)


def _enlarged(probabilities: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return probabilities (classes, S, S) at a photograph's height and width."""
    return F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]


def _samples(examples: Iterable[Masked], size: int, class_count: int) -> Samples:
    """Return the examples at the network's size, without those of unknown pixels only.

    Raises TrainingDataError if that leaves none of several, or a mask holds another class.
    """
    images, masks, given = [], [], 0
    for given, example in enumerate(examples, 1):  # noqa: B007 - counts them
        picture = Image.fromarray(example.mask)
        mask = np.array(picture.resize((size, size), Image.Resampling.NEAREST))
        known = mask[mask != UNKNOWN]
        if known.size and known.max() >= class_count:
            raise TrainingDataError(
                f"a mask holds class {known.max()}, and there are only {class_count} classes"
            )
        if known.size:
            images.append(squeezed(example.photograph, size))
            masks.append(torch.from_numpy(mask))
    if given and not images:
        raise TrainingDataError(
            f"none of the {given} masks of the training or of the validation labels a pixel"
        )
    if not images:
        return Samples(torch.empty(0, 3, size, size), torch.empty(0, size, size))
    return Samples(torch.stack(images), torch.stack(masks))


def _objective(settings: UNetSettings) -> Objective:
    if settings.recipe is Recipe.PAPER:
        return Objective(keras_dice_and_focal, soft_iou)
    return Objective(dice_and_focal())


def _start(settings: UNetSettings, class_count: int) -> nn.Module:
    """Return the network with its initial weights."""
    start, name = settings.start, settings.encoder
    if start is Start.IMAGENET:
        with fetching(name):
            return _build(name, class_count, pretrained=True)
    net = _build(name, class_count)
    if isinstance(start, Path):
        tensors = read_state_dict(start)
        fill(net[1].get_submodule("encoder"), tensors, _CLASSIFIER_KEYS, name, start)
    return net


#: Keys of the classifier in files of whole networks, which an encoder does not have.
_CLASSIFIER_KEYS = ("classifier.", "fc.", "_fc.")


def _build(encoder: str, class_count: int, *, pretrained: bool = False) -> nn.Sequential:
    """Return a network from images (N, 3, S, S) in [-1, 1] to logits (N, classes, S, S)."""
    with needing_baselines():
        from segmentation_models_pytorch import Unet
    if encoder == LITE:
        return nn.Sequential(nn.Identity(), _LiteUNet(class_count, pretrained))
    weights = "imagenet" if pretrained else None
    return nn.Sequential(
        ImageNetInput(), Unet(encoder, encoder_weights=weights, classes=class_count)
    )


class _LiteUNet(nn.Module):
    """segmentation_models_pytorch's decoder on EfficientNet-Lite0, for which that has no weights."""

    def __init__(self, class_count: int, pretrained: bool) -> None:
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__()
        widths = (256, 128, 64, 32, 16)
        self.encoder = load_efficientnet_lite0(pretrained=pretrained)
        self.decoder = UnetDecoder((3, *CHANNELS.values()), widths)
        self.head = SegmentationHead(widths[-1], class_count)

    def forward(self, images: Tensor) -> Tensor:
        features = strided_features(self.encoder, images).values()
        logits: Tensor = self.head(self.decoder([images, *features]))
        return logits
