"""The training loop of all baselines.

Arrays: images are (N, 3, S, S), in memory uint8 and in the network float32 in [-1, 1]; targets are
(N, S, S) uint8 class ids for masks, (N,) int64 for malignancy.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fedd.augment import relit, transformed
from fedd.baselines.weights import Start
from fedd.errors import DeviceError, TrainingDataError

#: Loss of a network's output and its targets, a mean over the batch.
Loss = Callable[[Tensor, Tensor], Tensor]

#: Called after every epoch with its number (from 1), training loss and validation loss.
Report = Callable[[int, float, float], None]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Everything that determines a training's outcome besides network and images."""

    image_size: int
    start: Start | Path = Start.IMAGENET  #: a path is a file of weights
    epochs: int = 100
    patience: int = 20  #: epochs without a better validation loss before training ends
    batch_size: int = 8
    learning_rate: float = 1e-4
    augment: bool = True  #: random views, as for the probes
    seed: int = 0

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the settings that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        known = {start.value for start in Start}
        if (start := values["start"]) in known:
            return cls(**{**values, "start": Start(start)})
        return cls(**{**values, "start": Path(start)})

    def to_json(self) -> str:
        start = self.start.value if isinstance(self.start, Start) else str(self.start)
        return json.dumps({**asdict(self), "start": start})

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.image_size) < 1 or self.batch_size < 2:
            raise TrainingDataError(
                f"epochs {self.epochs}, patience {self.patience}, image size {self.image_size} and "
                f"batch size {self.batch_size}: at least 1, and a batch of at least 2"
            )


@dataclass(frozen=True)
class Samples:
    """Images (N, 3, S, S) uint8 and their targets, N first."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed initial weights and dropout, and restore the generator's state at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def squeezed(photograph: NDArray[np.uint8], size: int) -> Tensor:
    """Resize (H, W, 3) uint8 to (3, size, size) uint8, whatever its aspect ratio."""
    picture = Image.fromarray(photograph).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def scaled(images: Tensor) -> Tensor:
    """Scale uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def fit(
    net: nn.Module,
    loss: Loss,
    train: Samples,
    validation: Samples,
    settings: FitSettings,
    report: Report = lambda epoch, train_loss, validation_loss: None,
) -> int:
    """Train `net` in place, on its device; returns the epoch of its final weights.

    That is the epoch with the lowest validation loss, or without validation images the last one, with
    NaN as validation loss. Deterministic on CPU inside `seeded`. Raises TrainingDataError if there are
    fewer than two images or the loss becomes NaN, DeviceError if a batch does not fit into memory.
    """
    if len(train) < 2:
        raise TrainingDataError(
            f"a network needs at least 2 images to learn from, not {len(train)}"
        )
    optimiser = torch.optim.Adam(net.parameters(), settings.learning_rate)
    rng = torch.Generator().manual_seed(settings.seed)
    best, best_loss, kept = settings.epochs, math.inf, None
    for epoch in range(1, settings.epochs + 1):
        try:
            train_loss = _train_epoch(net, loss, train, optimiser, settings, rng)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(
                f"a batch of {settings.batch_size} images of {settings.image_size} pixels does not "
                "fit into the GPU's memory: give a smaller --batch-size or --image-size"
            ) from error
        if not math.isfinite(train_loss):
            raise TrainingDataError(
                f"the loss is not a number after epoch {epoch}: lower the learning rate"
            )
        validation_loss = _mean_loss(net, loss, validation, settings) if validation else math.nan
        report(epoch, train_loss, validation_loss)
        if validation_loss < best_loss:
            best, best_loss, kept = epoch, validation_loss, copy.deepcopy(net.state_dict())
        elif validation and epoch - best >= settings.patience:
            break
    if kept is not None:
        net.load_state_dict(kept)
    net.eval()
    return best


def _train_epoch(
    net: nn.Module,
    loss: Loss,
    samples: Samples,
    optimiser: torch.optim.Optimizer,
    settings: FitSettings,
    rng: torch.Generator,
) -> float:
    net.train()
    device = next(net.parameters()).device
    total = 0.0
    for pick in _batches(torch.randperm(len(samples), generator=rng), settings.batch_size):
        images, targets = scaled(samples.images[pick]), samples.targets[pick]
        if settings.augment:
            images, targets = _views(images, targets, rng)
        each = loss(net(images.to(device)), targets.to(device))
        optimiser.zero_grad()
        torch.autograd.backward(each)
        optimiser.step()
        total += float(each.detach()) * len(pick)
    return total / len(samples)


@torch.inference_mode()
def _mean_loss(net: nn.Module, loss: Loss, samples: Samples, settings: FitSettings) -> float:
    net.eval()
    device = next(net.parameters()).device
    total = 0.0
    for pick in _batches(torch.arange(len(samples)), settings.batch_size):
        outputs = net(scaled(samples.images[pick]).to(device))
        total += float(loss(outputs, samples.targets[pick].to(device))) * len(pick)
    return total / len(samples)


def _batches(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return parts of nearly equal length, at most `size` + 1: batch norm can't take a single image."""
    return torch.tensor_split(order, max(1, min(math.ceil(len(order) / size), len(order) // 2)))


def _views(images: Tensor, targets: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random view of each image; masks are transformed alike, other targets are unchanged."""
    masks = targets if targets.dim() == 3 else torch.zeros_like(images[:, 0])
    views, view_masks = transformed(
        images, masks, images.shape[-1], rng, shift=0.15, zoom=(0.75, 1.15)
    )
    return relit(views, rng), view_masks if targets.dim() == 3 else targets
