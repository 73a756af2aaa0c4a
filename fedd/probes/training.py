"""Training of the pixel probes: all members together, with early stopping on a validation split.

Arrays: M members, P pixels, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import Backbone, expect, precision_of
from fedd.cache import FeatureCache
from fedd.errors import TrainingDataError, WeightsError
from fedd.features import FeatureSpec
from fedd.network.devices import within_memory
from fedd.probes.calibration import calibrate, mean_softmax
from fedd.probes.ensemble import Ensemble
from fedd.probes.pixels import (
    Example,
    Pixels,
    PreparedExample,
    Sampling,
    check_mask,
    prepare_example,
    sample,
)
from fedd.probes.quality import absent_shares, prior_quality
from fedd.probes.refiner import lesion_windows
from fedd.segment import Probes, ProbeSettings, ProbeTrainingRecord
from fedd.validation import Candidate, ValidationSplit, validation_split

__all__ = ["Example", "train_probes"]

#: Called with how much of a stage is done, and how much that is in all.
Progress: TypeAlias = Callable[[int, int], None]

#: Returns the Progress of one stage of a training, by the stage's name.
Stages: TypeAlias = Callable[[str], Progress]

#: `fedd.probes.pixels.sample`, or what does the same on other machines.
Sampler: TypeAlias = Callable[
    [
        Sequence[PreparedExample],
        Backbone,
        FeatureSpec,
        Sampling,
        FeatureCache | None,
        Callable[[int], None],
    ],
    Pixels,
]

#: Steps from one validation to the next.
VALIDATE_EVERY = 20

#: Pixels sampled from each validation image, once for early stopping and once for calibration.
VALIDATION_PIXELS = 512

#: Learning rate of a warm start, as a share of that from scratch.
WARM_RATE = 0.25

#: Pixels that the batch norms' first statistics of a warm start are taken from.
_STATISTICS = 4096

#: Pixels converted to float64 at a time: of 1024 channels, 34 MB.
_STATISTICS_PART = 4096

#: Images of unknown tone have weight 1, whatever the weights of the tones.
UNKNOWN_TONE = "unknown"


def train_probes(
    examples: Iterable[Example],
    backbone: Backbone,
    settings: ProbeSettings,
    classes: Sequence[str],
    stages: Stages = lambda stage: lambda done, total: None,
    *,
    validation: Iterable[Example] | None = None,
    cache: FeatureCache | None = None,
    warm_start: Probes | None = None,
    sampler: Sampler = sample,
) -> Probes:
    """Train probes on `examples`, with early stopping on a validation split of them.

    Each example is read once, in order, so that a generator holds one photograph at a time.
    Deterministic for `settings.seed` on CPU; activations that a cache has from another run may differ
    by rounding (`fedd.cache`), and the probes then by as little. `Probes.record` tells how the
    training went, `Probes.calibration` the fitted temperature.

    Args:
        stages: called with the name of each stage; what it returns is called with the progress.
        validation: the validation split, where the data set comes with one; by default it is chosen
            from `examples` by patient, balanced over tones.
        cache: keeps activations for the next training.
        warm_start: probes to continue from, trained with the same settings on some of `examples`.
        sampler: samples pixels as `fedd.probes.pixels.sample` does, perhaps on other machines.

    Raises:
        TrainingDataError: fewer than two classes, or a patient in both splits.
        WeightsError: `warm_start` has another backbone or other settings; a damaged backbone.
        DeviceError: the pixels do not fit into the GPU's memory.
    """
    refined = settings.refined_class
    if warm_start is not None:
        _check_warm_start(warm_start, backbone, settings, classes)
    if refined not in (None, *classes):
        raise TrainingDataError(
            f"the refinement pass is for the class {refined}, and the classes are "
            f"{', '.join(classes)}: name one of them, or none"
        )
    size = backbone.image_size
    whole, windows = _prepared(examples, settings, size, classes)
    given, given_windows = _prepared(validation or (), settings, size, classes)
    notes = []
    if 0 < len(whole) < settings.members:
        notes.append(
            f"{len(whole)} images for {settings.members} members: their disagreement is a poor "
            "estimate of uncertainty"
        )
    training, validated, warm_start, note = _splits(
        whole, given if validation is not None else None, settings, warm_start
    )
    notes += [note] if note else []
    progress = stages("Photographs through the backbone"), stages("Training, steps")
    probes = _train(
        *(training, validated, backbone, settings, classes),
        *(progress, cache, warm_start, notes, sampler),
    )
    shown = [example.classes for example in whole]
    probes.quality = prior_quality(classes, probes.trained, absent_shares(shown, probes.trained))
    if refined is None:
        return probes
    patients = {example.patient for example in validated}
    learned = [window for window in windows if window.patient not in patients]
    if reason := _no_refiner(learned, refined):
        probes.record = replace(probes.record, notes=(*probes.record.notes, reason))
        return probes
    stopping = [window for window in windows + given_windows if window.patient in patients]
    earlier = warm_start.refiner if warm_start else None
    own = replace(settings, refined_class=None)
    progress = stages("Lesion windows through the backbone"), stages("Training the refiner, steps")
    probes.refiner = _train(
        *(learned, stopping, backbone, own, classes),
        *(progress, cache, earlier, [], sampler),
    )
    return probes


def _prepared(
    examples: Iterable[Example], settings: ProbeSettings, size: int, classes: Sequence[str]
) -> tuple[list[PreparedExample], list[PreparedExample]]:
    """Return examples at the backbone's size and their lesion windows; holds one photograph at a time."""
    whole, windows = [], []
    for number, example in enumerate(examples, start=1):
        check_mask(example, number, classes)
        prepared = prepare_example(example, size)
        whole.append(prepared)
        if settings.refined_class is not None:
            class_id = list(classes).index(settings.refined_class)
            crops = lesion_windows(example, class_id, f"{settings.seed} {prepared.digest}")
            windows += [
                replace(prepare_example(crop, size), patient=prepared.patient) for crop in crops
            ]
    return whole, windows


def _no_refiner(windows: Sequence[PreparedExample], refined: str) -> str:
    """Return why no refiner can be trained on these windows; empty if one can."""
    if not windows:
        return f"no refinement pass: no training mask shows the class {refined}"
    if len({c for window in windows for c in window.classes}) < 2:
        return f"no refinement pass: around the class {refined} the masks show nothing else"
    return ""


def _train(
    training: list[PreparedExample],
    validation: list[PreparedExample],
    backbone: Backbone,
    settings: ProbeSettings,
    classes: Sequence[str],
    progress: tuple[Progress, Progress],
    cache: FeatureCache | None,
    warm_start: Probes | None,
    notes: list[str],
    sampler: Sampler,
) -> Probes:
    """Train the members of one pass; `progress` is that of reading and that of fitting."""
    reading, fitting = progress
    with within_memory(f"training on {len(training)} images"):
        data = _sampled(training, validation, backbone, settings, cache, reading, sampler)
        trained = _classes(data.training.pixels)
        if warm_start is not None:
            trained = tuple(sorted({*trained, *warm_start.trained}))
        if len(trained) < 2:
            raise TrainingDataError(
                f"the masks show only {classes[trained[0]]}: probes need masks with at least two "
                "classes"
            )
        fit = _fit(data, settings, len(classes), backbone.device, warm_start, fitting)
    if cache is not None and cache.problem is not None:
        notes.append(cache.problem)
    probes = Probes(
        settings,
        tuple(classes),
        trained,
        backbone.name,
        backbone.hash,
        fit.tensors,
        record=ProbeTrainingRecord(
            learned=tuple(example.digest for example in training),
            validation=tuple(example.digest for example in validation),
            steps=fit.steps,
            validation_loss=fit.validation_loss,
            warm_start=warm_start is not None,
            precision=precision_of(backbone),
            notes=tuple(notes),
        ),
    )
    if data.calibration is not None:
        logits = probes.logits(data.calibration.activations)
        probes.calibration = calibrate(logits, data.calibration.labels, len(validation))
    return probes


@dataclass(frozen=True)
class _WeightedPixels:
    """Pixels with their weights in the loss, (P,)."""

    pixels: Pixels
    weights: Tensor

    def to(self, device: torch.device) -> _WeightedPixels:
        return _WeightedPixels(self.pixels.to(device), self.weights.to(device))


@dataclass(frozen=True)
class _TrainingData:
    """Pixels for training, early stopping and calibration."""

    training: _WeightedPixels
    validation: _WeightedPixels | None = None
    calibration: Pixels | None = None


@dataclass(frozen=True)
class _Fit:
    tensors: dict[str, Tensor]
    steps: int
    validation_loss: float | None


def _check_warm_start(
    earlier: Probes, backbone: Backbone, settings: ProbeSettings, classes: Sequence[str]
) -> None:
    earlier.check_backbone(backbone)
    before = {**earlier.settings.to_dict(), "classes": list(earlier.classes)}
    now = {**settings.to_dict(), "classes": list(classes)}
    for key, value in now.items():
        if key != "ensemble" and before[key] != value:  # how members decide changes no training
            raise WeightsError(
                f"the probes to start from were trained with {key} {json.dumps(before[key])}, not "
                f"{json.dumps(value)}: use the same, or train from scratch"
            )


def _splits(
    examples: list[PreparedExample],
    given: list[PreparedExample] | None,
    settings: ProbeSettings,
    warm_start: Probes | None,
) -> tuple[list[PreparedExample], list[PreparedExample], Probes | None, str]:
    """Return the training and validation splits, the probes to continue from, and a note."""
    learned = set(warm_start.record.learned) if warm_start else set()
    if given is not None:
        if both := {e.patient for e in examples} & {e.patient for e in given}:
            raise TrainingDataError(
                f"{len(both)} patients are in the training and in the validation split, such as "
                f"{min(both)}: keep them apart"
            )
        if any(example.digest in learned for example in given):
            raise TrainingDataError(
                "the probes to start from learned from images of the validation split: give "
                "another one, or train from scratch"
            )
        return examples, given, warm_start, ""
    candidates = [Candidate(e.digest, e.patient, e.tone, e.classes) for e in examples]
    share, seed = settings.validation_share, settings.seed
    fresh = validation_split(candidates, share, seed)
    if warm_start is None:
        return *_divided(examples, fresh), None, fresh.note
    kept = validation_split(candidates, share, seed, set(warm_start.record.validation), learned)
    if not learned or kept.leaked or (fresh.images and not kept.images):
        why = kept.note if kept.leaked else "the earlier probes left no image for validation"
        notes = (f"trained from scratch: {why}", fresh.note)
        return *_divided(examples, fresh), None, "; ".join(filter(None, notes))
    return *_divided(examples, kept), warm_start, kept.note


def _divided(
    examples: list[PreparedExample], split: ValidationSplit
) -> tuple[list[PreparedExample], list[PreparedExample]]:
    """Return the examples of the training and of the validation split."""
    chosen = set(split.images)
    training = [example for i, example in enumerate(examples) if i not in chosen]
    return training, [examples[i] for i in split.images]


def _sampled(
    training: list[PreparedExample],
    validation: list[PreparedExample],
    backbone: Backbone,
    settings: ProbeSettings,
    cache: FeatureCache | None,
    progress: Progress,
    sampler: Sampler,
) -> _TrainingData:
    """Sample the pixels of both splits, with their weights in the loss."""
    total = len(training) + 2 * len(validation)  # sampled twice; a cache saves the second pass
    expect(backbone, len(training) * (1 + settings.views) + len(validation))

    def after(before: int) -> Callable[[int], None]:
        return lambda done: progress(before + done, total)

    spec, balance, seed = settings.features, settings.class_balance, settings.seed
    sampling = Sampling(settings.views, settings.pixels_per_image, balance, seed)
    pixels = sampler(training, backbone, spec, sampling, cache, after(0))
    by_class = _class_weights(pixels, settings)
    by_tone = _tone_weights(pixels, training, settings)

    def weighted(sampled: Pixels, examples: list[PreparedExample]) -> _WeightedPixels:
        tones = torch.tensor([by_tone.get(example.tone, 1.0) for example in examples])
        return _WeightedPixels(sampled, by_class[sampled.labels] * tones[sampled.image])

    if not validation:
        return _TrainingData(weighted(pixels, training))
    # Early stopping samples pixels as training does, calibration by their frequency.
    known = _classes(pixels)
    alike = Sampling(0, VALIDATION_PIXELS, balance, seed)
    by_frequency = replace(alike, balance=0.0)
    first, second = len(training), len(training) + len(validation)
    stopping = sampler(validation, backbone, spec, alike, cache, after(first)).of(known)
    natural = sampler(validation, backbone, spec, by_frequency, cache, after(second)).of(known)
    return _TrainingData(weighted(pixels, training), weighted(stopping, validation), natural)


def _classes(pixels: Pixels) -> tuple[int, ...]:
    return tuple(torch.unique(pixels.labels).tolist())


def _class_weights(pixels: Pixels, settings: ProbeSettings) -> Tensor:
    """Return the weight of each class id in the loss, 1 on average over the pixels."""
    counts = torch.bincount(pixels.labels, minlength=256).double()
    share = counts / counts.sum()
    weights = share.clamp_min(1e-12) ** -settings.class_weight
    return (weights / (weights * share).sum()).float()


def _tone_weights(
    pixels: Pixels, training: Sequence[PreparedExample], settings: ProbeSettings
) -> dict[str, float]:
    """Return the weight of each known tone in the loss, 1 on average."""
    counts: dict[str, int] = {}
    for number in torch.unique(pixels.image).tolist():
        tone = training[number].tone
        if tone != UNKNOWN_TONE:
            counts[tone] = counts.get(tone, 0) + int((pixels.image == number).sum())
    total = sum(counts.values())
    weights = {tone: (n / total) ** -settings.tone_weight for tone, n in counts.items()}
    mean = sum(weights[tone] * n / total for tone, n in counts.items())
    return {tone: weight / mean for tone, weight in weights.items()}


def _fit(
    data: _TrainingData,
    settings: ProbeSettings,
    class_count: int,
    device: torch.device,
    warm_start: Probes | None,
    progress: Progress,
) -> _Fit:
    """Train all members together; returns the best on the validation split, statistics folded in."""
    rng = torch.Generator().manual_seed(settings.seed + 1)
    training = data.training.to(device)
    samples, labels, weights = training.pixels.activations, training.pixels.labels, training.weights
    net = Ensemble(settings.members, class_count, *_statistics(samples), rng)
    steps, rate = settings.steps, settings.learning_rate
    if warm_start is not None:
        steps, rate = settings.warm_steps, WARM_RATE * settings.learning_rate
        some = torch.randint(0, len(samples), (_STATISTICS,), generator=rng).to(device)
        net.unfold(warm_start.tensors, samples[some][None])
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps)
    best = _Best(net, data.validation.to(device) if data.validation else None)
    best.update(0)
    size = (settings.members, settings.batch_size)
    step = 0
    for step in range(1, steps + 1):
        pick = torch.randint(0, len(samples), size, generator=rng).flatten().to(device)
        # index_select copies whole rows, where indexing goes number by number.
        pixels = samples.index_select(0, pick).view(*size, -1)
        losses = F.cross_entropy(net(pixels).flatten(0, 1), labels[pick], reduction="none")
        optimiser.zero_grad()
        torch.autograd.backward((losses * weights[pick]).sum() / settings.batch_size)
        optimiser.step()
        schedule.step()
        progress(step, steps)
        if (step % VALIDATE_EVERY == 0 or step == steps) and best.update(step) > settings.patience:
            progress(steps, steps)
            break
    return best.fit(step)


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


class _Best:
    """The members with the lowest validation loss so far; the last ones without a validation split."""

    def __init__(self, net: Ensemble, validation: _WeightedPixels | None) -> None:
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

    def fit(self, steps: int) -> _Fit:
        if self._validation is None:
            return _Fit(self._net.folded(), steps, None)
        return _Fit(self._tensors, steps, self._loss)

    @torch.no_grad()
    def _validation_loss(self, validation: _WeightedPixels) -> float:
        pixels, weights = validation.pixels, validation.weights
        self._net.eval()
        logits = self._net(pixels.activations[None])
        self._net.train()
        losses = F.nll_loss(
            mean_softmax(logits, 1.0).clamp_min(1e-12).log(), pixels.labels, reduction="none"
        )
        return float((losses * weights).sum() / weights.sum())
