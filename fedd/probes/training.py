"""Training of the pixel probes: all members together, until a held-out part stops getting better.

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

from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.errors import TrainingDataError, WeightsError
from fedd.network.devices import within_memory
from fedd.probes.calibration import calibrate, mean_softmax
from fedd.probes.ensemble import Ensemble
from fedd.probes.pixels import Example, Pixels, Sampling, Square, check_mask, sample, square
from fedd.probes.refiner import close_ups
from fedd.probes.validation import Candidate, HoldOut, hold_out
from fedd.segment import Probes, ProbeSettings, TrainingRecord

__all__ = ["Example", "train_probes"]

#: Called with what is done of a stage, and how much that is in all.
Progress: TypeAlias = Callable[[int, int], None]

#: Returns the Progress of one stage of a training, by what the stage is called.
Stages: TypeAlias = Callable[[str], Progress]

#: Steps from one look at the held-out part to the next.
LOOK_EVERY = 20

#: Pixels read from each held-out image, once to stop by and once to calibrate on.
HELD_OUT_PIXELS = 512

#: Learning rate of a warm start, as a share of that from scratch.
WARM_RATE = 0.25

#: Pixels that a warm start takes the statistics of its batch norms from.
_STATISTICS = 4096

#: Pixels whose float64 copies are held at once: of 1024 channels, 34 MB.
_STATISTICS_PART = 4096

#: Images of unknown tone weigh 1, whatever the weight of the tones.
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
) -> Probes:
    """Train probes on `examples`, and stop when they get no better on images held out of them.

    Each example is read once, in order, so that a generator holds one photograph at a time.
    Deterministic for `settings.seed` on CPU; activations that a cache has from another run may differ
    by rounding (`fedd.cache`), and the probes then by as little. What is worth knowing about the
    training stands in `Probes.record`, the fit of the temperature in `Probes.calibration`.

    Args:
        stages: called with the name of each stage; what it returns is told how far that is.
        validation: the held-out part, where the data set comes with one; else it is chosen out of
            `examples`: patients that training does not see, the tones alike.
        cache: where activations are kept for the next training.
        warm_start: probes to go on from, trained with the same settings on some of `examples`.

    Raises:
        TrainingDataError: nothing to tell apart, or a patient in both parts.
        WeightsError: `warm_start` is of another backbone or other settings; a damaged backbone.
        DeviceError: the pixels do not fit into a GPU's memory.
    """
    if warm_start is not None:
        _check_warm_start(warm_start, backbone, settings, classes)
    if settings.second_look not in (None, *classes):
        raise TrainingDataError(
            f"the second look is for the class {settings.second_look}, and the classes are "
            f"{', '.join(classes)}: name one of them, or none"
        )
    wide, close = _squares(examples, settings, backbone.image_size, classes)
    held_out, close_held_out = _squares(validation or (), settings, backbone.image_size, classes)
    notes = []
    if 0 < len(wide) < settings.members:
        notes.append(
            f"{len(wide)} images for {settings.members} members: their disagreement says "
            "little about what they do not know"
        )
    training, held_out, warm_start, note = _parts(
        wide, held_out if validation is not None else None, settings, warm_start
    )
    notes += [note] if note else []
    shown = _Shown(stages("Photographs through the backbone"), stages("Training, steps"))
    probes = _train(
        training, held_out, backbone, settings, classes, shown, cache, warm_start, notes
    )
    if settings.second_look is None:
        return probes
    kept = {s.patient for s in held_out}
    learned = [s for s in close if s.patient not in kept]
    reason = _nothing_to_learn(learned, settings.second_look)
    if reason:
        probes.record = replace(probes.record, notes=(*probes.record.notes, reason))
        return probes
    stopping = [s for s in close + close_held_out if s.patient in kept]
    earlier = warm_start.closer if warm_start else None
    once = replace(settings, second_look=None)
    shown = _Shown(stages("Close-ups through the backbone"), stages("Training on close-ups, steps"))
    probes.closer = _train(learned, stopping, backbone, once, classes, shown, cache, earlier, [])
    return probes


def _squares(
    examples: Iterable[Example], settings: ProbeSettings, size: int, classes: Sequence[str]
) -> tuple[list[Square], list[Square]]:
    """Examples at the backbone's size, and their close-ups; one photograph is held at a time."""
    wide, close = [], []
    for number, example in enumerate(examples, start=1):
        check_mask(example, number, classes)
        whole = square(example, size)
        wide.append(whole)
        if settings.second_look is not None:
            looked = list(classes).index(settings.second_look)
            cuts = close_ups(example, looked, f"{settings.seed} {whole.digest}")
            close += [replace(square(cut, size), patient=whole.patient) for cut in cuts]
    return wide, close


@dataclass(frozen=True)
class _Shown:
    """Where one training shows how far it is."""

    reading: Progress
    fitting: Progress


def _nothing_to_learn(close: Sequence[Square], looked: str) -> str:
    """Why the close-ups leave nothing to tell apart; empty where they do not."""
    if not close:
        return f"no second look: no mask to learn from shows the class {looked}"
    if len({c for s in close for c in s.classes}) < 2:
        return f"no second look: around the class {looked} the masks show nothing else"
    return ""


def _train(
    training: list[Square],
    held_out: list[Square],
    backbone: Backbone,
    settings: ProbeSettings,
    classes: Sequence[str],
    shown: _Shown,
    cache: FeatureCache | None,
    warm_start: Probes | None,
    notes: list[str],
) -> Probes:
    with within_memory(f"training on {len(training)} images"):
        data = _read(training, held_out, backbone, settings, cache, shown.reading)
        trained = _classes(data.training)
        if warm_start is not None:
            trained = tuple(sorted({*trained, *warm_start.trained}))
        if len(trained) < 2:
            raise TrainingDataError(
                f"the masks show only {classes[trained[0]]}: probes need masks with at least two "
                "classes"
            )
        fit = _fit(data, settings, len(classes), backbone.device, warm_start, shown.fitting)
    if cache is not None and cache.problem is not None:
        notes.append(cache.problem)
    probes = Probes(
        settings,
        tuple(classes),
        trained,
        backbone.name,
        backbone.hash,
        fit.tensors,
        record=TrainingRecord(
            learned=tuple(s.digest for s in training),
            held_out=tuple(s.digest for s in held_out),
            steps=fit.steps,
            validation_loss=fit.validation_loss,
            warm_start=warm_start is not None,
            notes=tuple(notes),
        ),
    )
    if data.calibration is not None:
        logits = probes.logits(data.calibration.activations)
        probes.calibration = calibrate(logits, data.calibration.labels, len(held_out))
    return probes


@dataclass(frozen=True)
class _Data:
    """Pixels to learn from, to stop by, and to calibrate on; with their say in the loss, (P,)."""

    training: Pixels
    say: Tensor
    stopping: Pixels | None
    stopping_say: Tensor | None
    calibration: Pixels | None

    def to(self, device: torch.device) -> _Data:
        return _Data(
            self.training.to(device),
            self.say.to(device),
            None if self.stopping is None else self.stopping.to(device),
            None if self.stopping_say is None else self.stopping_say.to(device),
            self.calibration,
        )


@dataclass(frozen=True)
class _Fit:
    tensors: dict[str, Tensor]
    steps: int
    validation_loss: float | None


def _check_warm_start(
    earlier: Probes, backbone: Backbone, settings: ProbeSettings, classes: Sequence[str]
) -> None:
    earlier.check_backbone(backbone)
    there = {**earlier.settings.to_dict(), "classes": list(earlier.classes)}
    wanted = {**settings.to_dict(), "classes": list(classes)}
    for key, value in wanted.items():
        if there[key] != value:
            raise WeightsError(
                f"the probes to start from were trained with {key} {json.dumps(there[key])}, not "
                f"{json.dumps(value)}: use the same, or train from scratch"
            )


def _parts(
    squares: list[Square],
    given: list[Square] | None,
    settings: ProbeSettings,
    warm_start: Probes | None,
) -> tuple[list[Square], list[Square], Probes | None, str]:
    """Training part, held-out part, what to start from, and what to say about it."""
    learned = set(warm_start.record.learned) if warm_start else set()
    if given is not None:
        if both := {s.patient for s in squares} & {s.patient for s in given}:
            raise TrainingDataError(
                f"{len(both)} patients are in training and in validation both, such as "
                f"{min(both)}: keep them apart"
            )
        if any(s.digest in learned for s in given):
            raise TrainingDataError(
                "the probes to start from learned from images of the validation part: give "
                "another part, or train from scratch"
            )
        return squares, given, warm_start, ""
    candidates = [Candidate(s.digest, s.patient, s.tone, s.classes) for s in squares]
    fresh = hold_out(candidates, settings.held_out, settings.seed)
    if warm_start is None:
        return *_split(squares, fresh), None, fresh.note
    kept = hold_out(
        candidates, settings.held_out, settings.seed, set(warm_start.record.held_out), learned
    )
    if not learned or kept.torn or (fresh.images and not kept.images):
        why = kept.note if kept.torn else "the earlier probes left no image to stop by"
        notes = (f"trained from scratch: {why}", fresh.note)
        return *_split(squares, fresh), None, "; ".join(filter(None, notes))
    return *_split(squares, kept), warm_start, kept.note


def _split(squares: list[Square], held: HoldOut) -> tuple[list[Square], list[Square]]:
    chosen = set(held.images)
    return [s for i, s in enumerate(squares) if i not in chosen], [squares[i] for i in held.images]


def _read(
    training: list[Square],
    held_out: list[Square],
    backbone: Backbone,
    settings: ProbeSettings,
    cache: FeatureCache | None,
    progress: Progress,
) -> _Data:
    total = len(training) + 2 * len(held_out)  # those are read twice; with a cache, run once

    def after(before: int) -> Callable[[int], None]:
        return lambda done: progress(before + done, total)

    spec, balance, seed = settings.features, settings.class_balance, settings.seed
    every = Sampling(settings.views, settings.pixels_per_image, balance, seed)
    pixels = sample(training, backbone, spec, every, cache, after(0))
    by_class, by_tone = _say_by_class(pixels, settings), _say_by_tone(pixels, training, settings)

    def say(read: Pixels, squares: list[Square]) -> Tensor:
        tones = torch.tensor([by_tone.get(s.tone, 1.0) for s in squares])
        return by_class[read.labels] * tones[read.image]

    if not held_out:
        return _Data(pixels, say(pixels, training), None, None, None)
    # Stopped by pixels sampled as those of training are; calibrated on pixels as they come.
    known = _classes(pixels)
    alike = Sampling(0, HELD_OUT_PIXELS, balance, seed)
    as_found = replace(alike, balance=0.0)
    read = len(training), len(training) + len(held_out)
    stopping = sample(held_out, backbone, spec, alike, cache, after(read[0])).of(known)
    as_they_come = sample(held_out, backbone, spec, as_found, cache, after(read[1])).of(known)
    return _Data(pixels, say(pixels, training), stopping, say(stopping, held_out), as_they_come)


def _classes(pixels: Pixels) -> tuple[int, ...]:
    return tuple(torch.unique(pixels.labels).tolist())


def _say_by_class(pixels: Pixels, settings: ProbeSettings) -> Tensor:
    """The weight of each class id in the loss, 1 on average over the pixels."""
    counts = torch.bincount(pixels.labels, minlength=256).double()
    share = counts / counts.sum()
    say = share.clamp_min(1e-12) ** -settings.class_weight
    return (say / (say * share).sum()).float()


def _say_by_tone(
    pixels: Pixels, training: Sequence[Square], settings: ProbeSettings
) -> dict[str, float]:
    """The weight of each tone in the loss, 1 on average; images of unknown tone count 1."""
    counts: dict[str, int] = {}
    for number in torch.unique(pixels.image).tolist():
        tone = training[number].tone
        if tone != UNKNOWN_TONE:
            counts[tone] = counts.get(tone, 0) + int((pixels.image == number).sum())
    total = sum(counts.values())
    say = {tone: (n / total) ** -settings.tone_weight for tone, n in counts.items()}
    mean = sum(say[tone] * n / total for tone, n in counts.items())
    return {tone: value / mean for tone, value in say.items()}


def _fit(
    data: _Data,
    settings: ProbeSettings,
    class_count: int,
    device: torch.device,
    warm_start: Probes | None,
    progress: Callable[[int, int], None],
) -> _Fit:
    """Train all members together; the weights that were best on the held-out part, statistics folded in."""
    rng = torch.Generator().manual_seed(settings.seed + 1)
    data = data.to(device)
    samples, labels, say = data.training.activations, data.training.labels, data.say
    net = Ensemble(settings.members, class_count, *_statistics(samples), rng)
    steps, rate = settings.steps, settings.learning_rate
    if warm_start is not None:
        steps, rate = settings.warm_steps, WARM_RATE * settings.learning_rate
        some = torch.randint(0, len(samples), (_STATISTICS,), generator=rng).to(device)
        net.unfold(warm_start.tensors, samples[some][None])
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps)
    best = _Best(net, data.stopping, data.stopping_say)
    best.look(0)
    size = (settings.members, settings.batch_size)
    step = 0
    for step in range(1, steps + 1):
        pick = torch.randint(0, len(samples), size, generator=rng).flatten().to(device)
        # index_select copies whole rows, where indexing goes number by number.
        pixels = samples.index_select(0, pick).view(*size, -1)
        losses = F.cross_entropy(net(pixels).flatten(0, 1), labels[pick], reduction="none")
        optimiser.zero_grad()
        torch.autograd.backward((losses * say[pick]).sum() / settings.batch_size)
        optimiser.step()
        schedule.step()
        progress(step, steps)
        if (step % LOOK_EVERY == 0 or step == steps) and best.look(step) > settings.patience:
            progress(steps, steps)
            break
    return best.fit(step)


def _statistics(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of (P, C) float16, a part at a time.

    The sums are float64, so that the parts' size does not show in the float32 result.
    """
    parts = torch.split(samples, _STATISTICS_PART)
    total = torch.stack([p.double().sum(0) for p in parts]).sum(0)
    mean = total / len(samples)
    squares = torch.stack([p.double().sub_(mean).square_().sum(0) for p in parts]).sum(0)
    std = (squares / max(1, len(samples) - 1)).sqrt().clamp_min(1e-4)
    return mean.float(), std.float()


class _Best:
    """The members as they were when the held-out pixels fitted best; the last where there are none."""

    def __init__(self, net: Ensemble, stopping: Pixels | None, say: Tensor | None) -> None:
        self._net, self._stopping, self._say = net, stopping, say
        self._loss, self._step = float("inf"), 0
        self._tensors: dict[str, Tensor] = {}

    def look(self, step: int) -> int:
        """Compare the members with the best so far; how many steps ago those were."""
        if self._stopping is None or self._say is None:
            return 0
        loss = self._held_out_loss(self._stopping, self._say)
        if loss < self._loss:
            self._loss, self._step, self._tensors = loss, step, self._net.folded()
        return step - self._step

    def fit(self, steps: int) -> _Fit:
        if self._stopping is None:
            return _Fit(self._net.folded(), steps, None)
        return _Fit(self._tensors, steps, self._loss)

    @torch.no_grad()
    def _held_out_loss(self, pixels: Pixels, say: Tensor) -> float:
        self._net.eval()
        logits = self._net(pixels.activations[None])
        self._net.train()
        losses = F.nll_loss(
            mean_softmax(logits, 1.0).clamp_min(1e-12).log(), pixels.labels, reduction="none"
        )
        return float((losses * say).sum() / say.sum())
