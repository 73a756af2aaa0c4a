"""Fitting of the members to sampled pixels: the steps, averaging, and early stopping.

Arrays: M members, P pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from fedd.probes.calibration import mean_softmax
from fedd.probes.ensemble import Ensemble
from fedd.probes.folds import rows_of_members
from fedd.probes.pixels import Pixels
from fedd.probes.settings import ProbeSettings

if TYPE_CHECKING:
    from fedd.segment import Probes

#: Called with how much of a stage is done, and how much that is in all.
Progress: TypeAlias = Callable[[int, int], None]

#: Steps from one validation to the next.
VALIDATE_EVERY = 20

#: Learning rate of a warm start, as a share of that from scratch.
WARM_RATE = 0.25

#: Pixels that the batch norms' statistics of given weights are taken from.
_STATISTICS = 4096

#: Pixels converted to float64 at a time: of 1024 channels, 34 MB.
_STATISTICS_PART = 4096


@dataclass(frozen=True)
class WeightedPixels:
    """Pixels with their weights in the loss, (P,)."""

    pixels: Pixels
    weights: Tensor

    def to(self, device: torch.device) -> WeightedPixels:
        return WeightedPixels(self.pixels.to(device), self.weights.to(device))


@dataclass(frozen=True)
class TrainingData:
    """Pixels for training, early stopping and calibration.

    `folds` are those of the training images; empty if all members learn from all images.
    """

    training: WeightedPixels
    validation: WeightedPixels | None = None
    calibration: Pixels | None = None
    folds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fit:
    """The members' tensors, statistics folded in, the steps that were run, and the validation loss."""

    tensors: dict[str, Tensor]
    steps: int
    validation_loss: float | None


def fit(
    data: TrainingData,
    settings: ProbeSettings,
    class_count: int,
    device: torch.device,
    warm_start: Probes | None,
    progress: Progress,
) -> Fit:
    """Train all members together.

    With `settings.averaging` the result is the mean of the weights over the last steps (Izmailov et al.,
    "Averaging weights leads to wider optima and better generalization", UAI 2018), after all steps;
    without, the weights that are best on the validation split, which ends the training early, and the
    last ones if there is none.
    """
    rng = torch.Generator().manual_seed(settings.seed + 1)
    training = data.training.to(device)
    samples, labels, weights = training.pixels.activations, training.pixels.labels, training.weights
    reads = channels_read(settings, training.pixels.channels)
    net = Ensemble(settings.members, class_count, *_statistics(samples), rng, reads)
    steps, rate = settings.steps, settings.learning_rate
    if warm_start is not None:
        steps, rate = settings.warm_steps, WARM_RATE * settings.learning_rate
        net.unfold(warm_start.tensors, _some(samples, rng))
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps)
    best = _Best(net, data.validation.to(device) if data.validation else None)
    average = _Average()
    if not settings.averaging:
        best.update(0)
    size = (settings.members, settings.batch_size)
    draw = _draws(data, settings, rng)
    step = 0
    for step in range(1, steps + 1):
        pick = draw().to(device)
        # index_select copies whole rows, where indexing goes number by number.
        pixels = samples.index_select(0, pick).view(*size, -1)
        losses = F.cross_entropy(net(pixels).flatten(0, 1), labels[pick], reduction="none")
        optimiser.zero_grad()
        torch.autograd.backward((losses * weights[pick]).sum() / settings.batch_size)
        optimiser.step()
        schedule.step()
        progress(step, steps)
        if settings.averaging:
            if step > steps * (1 - settings.averaging):
                average.add(net)
        elif (step % VALIDATE_EVERY == 0 or step == steps) and best.update(
            step
        ) > settings.patience:
            progress(steps, steps)
            break
    if settings.averaging:
        net.load(average.parameters, _some(samples, rng))
        best.update(step)
    return best.fit(step)


def channels_read(settings: ProbeSettings, channels: tuple[int, ...]) -> Tensor | None:
    """Return which channels a member reads, (M, C) bool; None if all read all.

    `channels` are those of each block of the settings, in their order.
    """
    if not settings.member_blocks:
        return None
    blocks = torch.repeat_interleave(torch.tensor(settings.features.blocks), torch.tensor(channels))
    return torch.stack(
        [torch.isin(blocks, torch.tensor(settings.blocks_of(m))) for m in range(settings.members)]
    )


def _draws(
    data: TrainingData, settings: ProbeSettings, rng: torch.Generator
) -> Callable[[], Tensor]:
    """Return what draws the pixels of a step, (M * batch,): each member's from its own images."""
    pixels, batch = data.training.pixels, settings.batch_size
    if not data.folds:
        size = (settings.members, batch)
        return lambda: torch.randint(0, len(pixels), size, generator=rng).flatten()
    fold_of_row = torch.tensor(data.folds)[pixels.image]
    rows = rows_of_members(fold_of_row, settings.members, settings.folds)
    return lambda: torch.cat([r[torch.randint(0, len(r), (batch,), generator=rng)] for r in rows])


def _some(samples: Tensor, rng: torch.Generator) -> Tensor:
    """Return some of the pixels for all members, (1, S, C)."""
    chosen = torch.randint(0, len(samples), (_STATISTICS,), generator=rng)
    return samples[chosen.to(samples.device)][None]


def _statistics(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of (P, C) float16, computed in parts.

    The sums are float64, so that the parts' size does not show in the float32 result.
    """
    parts = torch.split(samples, _STATISTICS_PART)
    total = torch.stack([p.double().sum(0) for p in parts]).sum(0)
    mean = total / len(samples)
    squares = torch.stack([p.double().sub_(mean).square_().sum(0) for p in parts]).sum(0)
    std = (squares / max(1, len(samples) - 1)).sqrt().clamp_min(1e-4)
    return mean.float(), std.float()


@dataclass
class _Average:
    """The mean of a network's parameters over the steps at which they were added."""

    parameters: list[Tensor] = field(default_factory=list)
    count: int = 0

    def add(self, net: Ensemble) -> None:
        self.count += 1
        if not self.parameters:
            self.parameters = [p.detach().clone() for p in net.parameters()]
            return
        for mean, parameter in zip(self.parameters, net.parameters(), strict=True):
            mean += (parameter.detach() - mean) / self.count


class _Best:
    """The members with the lowest validation loss so far; the last ones without a validation split."""

    def __init__(self, net: Ensemble, validation: WeightedPixels | None) -> None:
        self._net, self._validation = net, validation
        self._loss, self._step = float("inf"), 0
        self._tensors: dict[str, Tensor] = {}

    def update(self, step: int) -> int:
        """Compare the members with the best so far; returns how many steps ago the best ones were."""
        if self._validation is None:
            return 0
        loss = self._validation_loss(self._validation)
        if loss < self._loss:
            self._loss, self._step, self._tensors = loss, step, self._net.folded()
        return step - self._step

    def fit(self, steps: int) -> Fit:
        if self._validation is None:
            return Fit(self._net.folded(), steps, None)
        return Fit(self._tensors, steps, self._loss)

    @torch.no_grad()
    def _validation_loss(self, validation: WeightedPixels) -> float:
        pixels, weights = validation.pixels, validation.weights
        self._net.eval()
        logits = self._net(pixels.activations[None])
        self._net.train()
        losses = F.nll_loss(
            mean_softmax(logits, 1.0).clamp_min(1e-12).log(), pixels.labels, reduction="none"
        )
        return float((losses * weights).sum() / weights.sum())
