"""The training loop of all baselines.

Arrays: images are (N, 3, S, S), in memory uint8 and in the network float32 in [-1, 1]; features of a frozen
encoder are (N, F) float32. Targets are (N, S, S) uint8 class ids for masks, (N,) int64 for malignancy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fedd.augment import relit, transformed
from fedd.baselines import keras
from fedd.baselines.losses import Loss, Objective
from fedd.baselines.settings import FitSettings, Recipe
from fedd.errors import DeviceError, TrainingDataError

#: Called after every epoch with its number (from 1), training loss and monitored value.
Report = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Samples:
    """A network's inputs, images (N, 3, S, S) uint8 or features (N, F) float32, and their targets."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


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
    objective: Objective,
    train: Samples,
    validation: Samples,
    settings: FitSettings,
    report: Report = lambda epoch, train_loss, monitored: None,
) -> int:
    """Train `net` in place, on its device; returns the epoch of its final weights.

    That is the first epoch with the best monitored value, or without validation images the last one, with
    NaN as monitored value. Deterministic on CPU inside `seeded`. Raises TrainingDataError if there are
    fewer than two images or the loss becomes NaN, DeviceError if a batch does not fit into memory.
    """
    if len(train) < 2:
        raise TrainingDataError(
            f"a network needs at least 2 images to learn from, not {len(train)}"
        )
    optimiser, schedule = _optimiser(net, settings)
    rng = torch.Generator().manual_seed(settings.seed)
    best, best_value, kept = settings.epochs, -math.inf, None
    for epoch in range(1, settings.epochs + 1):
        with _enough_memory(settings):
            train_loss = _train_epoch(net, objective.loss, train, optimiser, settings, rng)
            if not math.isfinite(train_loss):
                raise TrainingDataError(
                    f"the loss is not a number after epoch {epoch}: lower the learning rate"
                )
            monitored = _mean(net, objective, validation, settings) if validation else math.nan
        report(epoch, train_loss, monitored)
        value = -monitored if objective.score is None else monitored
        if value > best_value:
            best, best_value, kept = epoch, value, copy.deepcopy(net.state_dict())
        elif validation and epoch - best >= settings.patience:
            break
        if schedule is not None and validation:
            schedule.step(value)
    if kept is not None:
        net.load_state_dict(kept)
    net.eval()
    return best


def _optimiser(
    net: nn.Module, settings: FitSettings
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.ReduceLROnPlateau | None]:
    """Return Adam, and the schedule of its learning rate if it has one."""
    epsilon = keras.ADAM_EPSILON if settings.recipe is Recipe.PAPER else 1e-8
    optimiser = torch.optim.Adam(net.parameters(), settings.learning_rate, eps=epsilon)
    if not settings.plateau:
        return optimiser, None
    return optimiser, keras.reduced_on_plateau(optimiser, settings.plateau)


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
    for pick in _batches(torch.randperm(len(samples), generator=rng), settings):
        inputs, targets = samples.inputs[pick], samples.targets[pick]
        if settings.augment:
            inputs, targets = _views(scaled(inputs), targets, settings.recipe, rng)
        each = loss(net(_moved(inputs, device)), targets.to(device))
        optimiser.zero_grad()
        torch.autograd.backward(each)
        optimiser.step()
        total += float(each.detach()) * len(pick)
    return total / len(samples)


@torch.inference_mode()
def _mean(net: nn.Module, objective: Objective, samples: Samples, settings: FitSettings) -> float:
    """Return the mean of the monitored value over the batches, weighted by their images."""
    net.eval()
    device = next(net.parameters()).device
    measure = objective.score or objective.loss
    total = 0.0
    for pick in _batches(torch.arange(len(samples)), settings):
        outputs = net(_moved(samples.inputs[pick], device))
        total += float(measure(outputs, samples.targets[pick].to(device))) * len(pick)
    return total / len(samples)


def _moved(inputs: Tensor, device: torch.device) -> Tensor:
    """Return inputs on a device as the network takes them; images are scaled there, a byte a value moved."""
    moved = inputs.to(device)
    return scaled(moved) if moved.dtype == torch.uint8 else moved


def _batches(order: Tensor, settings: FitSettings) -> Sequence[Tensor]:
    """Return batches without a single image, which batch norm can't take.

    Ours are of nearly equal length, at most one image over the batch size.
    """
    if settings.recipe is Recipe.PAPER:
        return keras.batches(order, settings.batch_size)
    count = math.ceil(len(order) / settings.batch_size)
    return torch.tensor_split(order, max(1, min(count, len(order) // 2)))


def _views(
    images: Tensor, targets: Tensor, recipe: Recipe, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random view of each image; masks are transformed alike, other targets are unchanged.

    The paper's views are flipped and turned by any angle.
    """
    masks = targets if targets.dim() == 3 else torch.zeros_like(images[:, 0])
    shift, zoom = (0.0, (1.0, 1.0)) if recipe is Recipe.PAPER else (0.15, (0.75, 1.15))
    views, view_masks = transformed(images, masks, images.shape[-1], rng, shift=shift, zoom=zoom)
    lit = views if recipe is Recipe.PAPER else relit(views, rng)
    return lit, view_masks if targets.dim() == 3 else targets


@contextmanager
def _enough_memory(settings: FitSettings) -> Iterator[None]:
    """Turn a full GPU into a DeviceError that says what to do."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(
            f"a batch of {settings.batch_size} images of {settings.image_size} pixels does not fit into "
            "the GPU's memory: give a smaller --batch-size or --image-size to 'fedd baseline', or "
            "--recipe ours to 'fedd reproduce'"
        ) from error
