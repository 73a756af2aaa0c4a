"""Training of the pixel probes: all members together, with folds or a validation split of the examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from fedd.backbone import Backbone, expect, precision_of
from fedd.cache import FeatureCache
from fedd.errors import TrainingDataError, WeightsError
from fedd.features import FeatureSpec
from fedd.network.devices import within_memory
from fedd.probes.calibration import Calibration, calibrate
from fedd.probes.fitting import Progress, TrainingData, WeightedPixels, fit
from fedd.probes.folds import unseen_by
from fedd.probes.loss_weights import loss_weights
from fedd.probes.own_masks import measure
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
from fedd.probes.splits import Splits, split_examples
from fedd.probes.unseen import KeptExamples
from fedd.segment import Probes, ProbeSettings, ProbeTrainingRecord

__all__ = ["Example", "train_probes"]

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

#: Pixels sampled from each validation image, once for early stopping and once for calibration.
VALIDATION_PIXELS = 512

#: Images whose pixels calibrate an ensemble with folds: more would not move one temperature.
CALIBRATION_IMAGES = 200


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
    """Train probes on `examples`, in folds or with a validation split of them, as `settings` say.

    Each example is read once, in order, so that a generator holds one photograph at a time.
    Deterministic for `settings.seed` on CPU; activations that a cache has from another run may differ
    by rounding (`fedd.cache`), and the probes then by as little. `Probes.record` tells how the
    training went, `Probes.calibration` the fitted temperature.

    Args:
        stages: called with the name of each stage; what it returns is called with the progress.
        validation: the validation split, where the data set comes with one; by default the settings'
            share of `examples` is chosen by patient, balanced over tones.
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
    kept = KeptExamples(settings.seed)
    whole, windows = _prepared(examples, settings, size, classes, kept)
    given, given_windows = _prepared(validation or (), settings, size, classes, kept)
    notes = []
    if 0 < len(whole) < settings.members:
        notes.append(
            f"{len(whole)} images for {settings.members} members: their disagreement is a poor "
            "estimate of uncertainty"
        )
    splits = split_examples(whole, given if validation is not None else None, settings, warm_start)
    notes += splits.notes
    progress = stages("Photographs through the backbone"), stages("Training, steps")
    probes = _train(
        *(splits, backbone, settings, classes),
        *(progress, cache, notes, sampler),
    )
    shown = [example.classes for example in whole]
    probes.quality = prior_quality(classes, probes.trained, absent_shares(shown, probes.trained))
    if refined is not None:
        _add_refiner(probes, splits, windows, given_windows, backbone, cache, stages, sampler)
        probes.own_masks = measure(probes, backbone, kept, cache, stages)
    return probes


def _prepared(
    examples: Iterable[Example],
    settings: ProbeSettings,
    size: int,
    classes: Sequence[str],
    kept: KeptExamples,
) -> tuple[list[PreparedExample], list[PreparedExample]]:
    """Return examples at the backbone's size and their lesion windows, and keep some of them.

    Holds one photograph at a time, besides those kept at a bounded size.
    """
    whole, windows = [], []
    for number, example in enumerate(examples, start=1):
        check_mask(example, number, classes)
        prepared = prepare_example(example, size)
        whole.append(prepared)
        if settings.refined_class is not None:
            kept.add(example, prepared.digest, prepared.patient)
            class_id = list(classes).index(settings.refined_class)
            crops = lesion_windows(example, class_id, f"{settings.seed} {prepared.digest}")
            windows += [
                replace(prepare_example(crop, size), patient=prepared.patient) for crop in crops
            ]
    return whole, windows


def _add_refiner(
    probes: Probes,
    splits: Splits,
    windows: Sequence[PreparedExample],
    given: Sequence[PreparedExample],
    backbone: Backbone,
    cache: FeatureCache | None,
    stages: Stages,
    sampler: Sampler,
) -> None:
    """Train the refiner of probes on lesion windows; `given` are those of a given validation split."""
    refined = str(probes.settings.refined_class)
    patients = {example.patient for example in splits.validation}
    learned = [window for window in windows if window.patient not in patients]
    if reason := _no_refiner(learned, refined):
        probes.record = replace(probes.record, notes=(*probes.record.notes, reason))
        return
    stopping = [window for window in (*windows, *given) if window.patient in patients]
    earlier = splits.warm_start.refiner if splits.warm_start else None
    own = probes.settings.of_refiner
    progress = stages("Lesion windows through the backbone"), stages("Training the refiner, steps")
    probes.refiner = _train(
        *(Splits(learned, stopping, earlier, splits.folds), backbone, own, probes.classes),
        *(progress, cache, [], sampler),
    )


def _no_refiner(windows: Sequence[PreparedExample], refined: str) -> str:
    """Return why no refiner can be trained on these windows; empty if one can."""
    if not windows:
        return f"no refinement pass: no training mask shows the class {refined}"
    if len({c for window in windows for c in window.classes}) < 2:
        return f"no refinement pass: around the class {refined} the masks show nothing else"
    return ""


def _train(
    splits: Splits,
    backbone: Backbone,
    settings: ProbeSettings,
    classes: Sequence[str],
    progress: tuple[Progress, Progress],
    cache: FeatureCache | None,
    notes: list[str],
    sampler: Sampler,
) -> Probes:
    """Train the members of one pass; `progress` is that of reading and that of fitting."""
    reading, fitting = progress
    training, validation, warm_start = splits.training, splits.validation, splits.warm_start
    with within_memory(f"training on {len(training)} images"):
        data = _sampled(splits, backbone, settings, cache, reading, sampler)
        if warm_start is not None and bool(warm_start.record.folds) != bool(data.folds):
            warm_start = None  # only a refiner's folds may differ from those of its probes
        trained = _classes(data.training.pixels)
        if warm_start is not None:
            trained = tuple(sorted({*trained, *warm_start.trained}))
        if len(trained) < 2:
            raise TrainingDataError(
                f"the masks show only {classes[trained[0]]}: probes need masks with at least two "
                "classes"
            )
        done = fit(data, settings, len(classes), backbone.device, warm_start, fitting)
    if cache is not None and cache.problem is not None:
        notes.append(cache.problem)
    probes = Probes(
        settings,
        tuple(classes),
        trained,
        backbone.name,
        backbone.hash,
        done.tensors,
        record=ProbeTrainingRecord(
            learned=tuple(example.digest for example in training),
            validation=tuple(example.digest for example in validation),
            folds=data.folds,
            steps=done.steps,
            validation_loss=done.validation_loss,
            warm_start=warm_start is not None,
            precision=precision_of(backbone),
            notes=tuple(notes),
        ),
    )
    probes.calibration = _calibrated(probes, data)
    return probes


def _calibrated(probes: Probes, data: TrainingData) -> Calibration | None:
    """Return the calibration on images that no member has learned from, or on each by those that did not."""
    pixels = data.calibration
    if pixels is None:
        return None
    images = len(torch.unique(pixels.image))
    if probes.record.validation:
        return calibrate(probes.logits(pixels.activations), pixels.labels, images)
    fold_of_pixel = torch.tensor(data.folds)[pixels.image]
    logits, labels = [], []
    for fold in sorted(set(data.folds)):
        rows = fold_of_pixel == fold
        logits.append(unseen_by(probes, fold).logits(pixels.activations[rows]))
        labels.append(pixels.labels[rows])
    return calibrate(torch.cat(logits, 1), torch.cat(labels), images)


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


def _sampled(
    splits: Splits,
    backbone: Backbone,
    settings: ProbeSettings,
    cache: FeatureCache | None,
    progress: Progress,
    sampler: Sampler,
) -> TrainingData:
    """Sample the pixels of training, validation and calibration, with their weights in the loss."""
    training, validation = splits.training, splits.validation
    calibrating = _calibrating(splits)
    total = len(training) + len(validation) + len(calibrating)
    expect(backbone, len(training) * (1 + settings.views) + len(validation))

    def sampled(examples: list[PreparedExample], sampling: Sampling, before: int) -> Pixels:
        return sampler(
            *(examples, backbone, settings.features, sampling, cache),
            lambda done: progress(before + done, total),
        )

    balance, seed = settings.class_balance, settings.seed
    all_views = Sampling(settings.views, settings.pixels_per_image, balance, seed)
    pixels = sampled(training, all_views, 0)
    weigh = loss_weights(pixels, training, settings)
    # If all images with a known pixel are in one fold, its members would have nothing to learn from.
    folds = splits.folds_of(training)
    folds = folds if len({folds[i] for i in set(pixels.image.tolist()) if folds}) > 1 else ()
    known = _classes(pixels)
    # Early stopping samples pixels as training does, calibration by their frequency.
    alike = Sampling(0, VALIDATION_PIXELS, balance, seed)
    stopping, natural = None, None
    if validation:
        its = sampled(validation, alike, len(training)).of(known)
        stopping = WeightedPixels(its, weigh(its, validation))
    if validation or folds:
        of = [validation[i] if validation else training[i] for i in calibrating]
        before = len(training) + len(validation)
        natural = sampled(of, replace(alike, balance=0.0), before).of(known)
        natural = replace(natural, image=torch.tensor(calibrating)[natural.image])
    return TrainingData(WeightedPixels(pixels, weigh(pixels, training)), stopping, natural, folds)


def _calibrating(splits: Splits) -> list[int]:
    """Return the positions of the images that calibrate: of validation ones, or of training ones with folds."""
    if splits.validation:
        return list(range(len(splits.validation)))
    if not splits.folds:
        return []
    ranked = sorted(range(len(splits.training)), key=lambda i: splits.training[i].digest)
    return sorted(ranked[:CALIBRATION_IMAGES])


def _classes(pixels: Pixels) -> tuple[int, ...]:
    return tuple(torch.unique(pixels.labels).tolist())
