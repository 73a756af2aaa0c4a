"""The cells of an ablation: all blocks of a timestep at once, from one pass of each photograph."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from annotation_protocol import load_protocol
from annotation_protocol.estimates import METHOD, ClassEstimates, Estimate, estimate_classes
from fedd.backbone import Backbone, precision_of
from fedd.batches import Source, run
from fedd.cache import image_digest, to_half
from fedd.dataset import DatasetImage, resized_mask, rows_by_tone
from fedd.explore.state import CellMetric
from fedd.features import Prepared
from fedd.malignancy.classifier import ClassifierSettings, Examples, train_classifier
from fedd.malignancy.discrimination import (
    ABOVE_HALF,
    DiscriminationResult,
    discrimination_by_tone,
)
from fedd.malignancy.pooling import pooled
from fedd.network.halving import completed
from fedd.probes.prediction import predict_batch
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes, ProbeSettings
from fedd.validation import malignancy_split


class RecordedBackbone:
    """A backbone that runs once for all `blocks` of an image and stores their activations in `folder`.

    Activations are rounded to float16, as in a `FeatureCache`. The blocks of OpenAI's network that the
    paper compares take 52 MB per image. For one process.
    """

    def __init__(self, backbone: Backbone, blocks: Sequence[int], folder: Path) -> None:
        self._backbone, self._folder = backbone, folder
        self.name, self.hash, self.device = backbone.name, backbone.hash, backbone.device
        self.precision = precision_of(backbone)
        self.image_size, self.blocks = backbone.image_size, tuple(blocks)
        self._known: set[str] = set()

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return activations; only images that are new at this timestep pass through the network.

        Raises ValueError for a block that is not recorded.
        """
        if unknown := set(blocks) - set(self.blocks):
            raise ValueError(f"blocks {self.blocks} are recorded, not {sorted(unknown)}")
        names = [f"{image_digest(image)}-{timestep}-{noise}" for image in images]
        new = [i for i, name in enumerate(names) if name not in self._known]
        if new:
            found = self._backbone.activations(images[new], timestep, self.blocks, noise)
            for block, activations in found.items():
                for i, activation in zip(new, to_half(activations).cpu(), strict=True):
                    np.save(self._path(names[i], block), activation.numpy())
            self._known.update(names[i] for i in new)
        return {
            block: torch.stack([torch.from_numpy(np.load(self._path(n, block))) for n in names])
            .to(self.device)
            .float()
            for block in blocks
        }

    @contextmanager
    def transient(self) -> Iterator[None]:
        """Delete at the end what is recorded inside: images that are needed once."""
        before = set(self._known)
        try:
            yield
        finally:
            for name in self._known - before:
                for block in self.blocks:
                    self._path(name, block).unlink(missing_ok=True)
            self._known = before

    def _path(self, name: str, block: int) -> Path:
        return self._folder / f"{name}-{block}.npy"


Task = Literal["segmentation", "classification"]

#: The metrics of each task. `accuracy` is at probability 0.5, as in the paper; `f1` is at the threshold chosen
#: on the photographs of early stopping.
_METRICS: dict[Task, tuple[str, ...]] = {
    "segmentation": ("iou_mean", "iou_pooled", "dice_mean"),
    "classification": ("roc_auc", "f1", "accuracy"),
}

#: The fraction that is all training photographs, in percent.
WHOLE = 100

#: Parts that cells are measured on.
VALIDATION, TEST = "validation", "test"

#: Photographs of a batch: of OpenAI's network, all blocks of 16 take 0.8 GB of the disk.
_BATCH = 16

#: A training of a task at a timestep: fraction in percent, block.
Training: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class AblationSplit:
    """The photographs of each task.

    `measured` are the parts that a cell is measured on, the one that decides first. No patient of theirs is
    in `learned`. `stopping` are the photographs of early stopping; a task without any takes a share of its
    training photographs.
    """

    learned: Mapping[Task, Mapping[int, Sequence[DatasetImage]]]  #: by fraction in percent, nested
    measured: Mapping[Task, Mapping[str, Sequence[DatasetImage]]]
    stopping: Mapping[Task, Sequence[DatasetImage]] = field(default_factory=dict)
    left_out: int = 0  #: photographs of the test split's patients that the test split does not name

    def of(self, task: Task) -> list[DatasetImage]:
        """Return all photographs of a task, each once."""
        parts = (
            *self.learned[task].values(), self.stopping.get(task, ()), *self.measured[task].values(),
        )  # fmt: skip
        return list({item.path: item for part in parts for item in part}.values())

    def recorded(self, task: Task) -> list[DatasetImage]:
        """Return the photographs whose activations training reads more than once."""
        parts = (*self.learned[task].values(), self.stopping.get(task, ()))
        return list({item.path: item for part in parts for item in part}.values())


@dataclass(frozen=True)
class AblationSettings:
    """Everything that determines the metrics besides grid, photographs and backbone.

    Block and timestep of `probes` and `classifier` are replaced by those of each cell.
    """

    probes: ProbeSettings
    classifier: ClassifierSettings = field(default_factory=lambda: ClassifierSettings(block=0))

    def made_with(self) -> dict[str, Any]:
        """Return the settings by name."""
        probes, classifier = self.probes.to_dict(), self.classifier.to_dict()
        features = {k: v for k, v in probes.pop("features").items() if k not in _OF_A_CELL}
        classifier = {k: v for k, v in classifier.items() if k not in _OF_A_CELL}
        return {
            "seed": self.probes.seed,
            "intervals": METHOD["method"],
            "features": features,
            "probe settings": probes,
            "classifier settings": classifier,
        }


_OF_A_CELL = ("block", "blocks", "timestep")


class Place(NamedTuple):
    """Where a metric belongs: the cell, the part of the photographs, and the tone."""

    task: Task
    fraction: int
    block: int
    timestep: int
    part: str
    tone: str


class Cells:
    """Computes cells; what is the same for all timesteps is read once."""

    def __init__(
        self, parts: AblationSplit, backbone: Backbone, settings: AblationSettings
    ) -> None:
        self._parts, self._backbone, self._settings = parts, backbone, settings
        self._classes = load_protocol().class_names
        self._examples: dict[Path, Example] = {}

    def at(
        self, timestep: int, trainings: Mapping[Task, Sequence[Training]], folder: Path
    ) -> list[CellMetric]:
        """Return the metrics of each task's trainings at a timestep.

        Each photograph passes through the backbone once, whatever the fractions, blocks and tasks;
        `folder` is for activations.
        """
        every = sorted({block for of_task in trainings.values() for _, block in of_task})
        recorded = RecordedBackbone(self._backbone, every, folder)
        to_segment = trainings.get("segmentation", ())
        to_classify = trainings.get("classification", ())
        probes = {
            (fraction, block): self._train_probes(recorded, fraction, block, timestep)
            for fraction, block in to_segment
        }
        confusions, features = self._predict(
            recorded, timestep, probes, sorted({block for _, block in to_classify})
        )
        metrics: list[CellMetric] = []
        for training, of_image in confusions.items():
            metrics += self._segmentation(training, timestep, of_image)
        for training in to_classify:
            metrics += self._classification(training, timestep, features[training[1]])
        return metrics

    def _train_probes(
        self, recorded: RecordedBackbone, fraction: int, block: int, timestep: int
    ) -> Probes:
        base = self._settings.probes
        spec = replace(base.features, blocks=(block,), timestep=timestep)
        # Without the refinement pass, as in the paper: it would need batches of its own.
        settings = replace(base, features=spec, refined_class=None)
        stopping = self._parts.stopping.get("segmentation")
        size = recorded.image_size
        return train_probes(
            self._examples_of(self._parts.learned["segmentation"][fraction], size),
            recorded,
            settings,
            self._classes,
            validation=self._examples_of(stopping, size) if stopping else None,
        )

    def _examples_of(self, items: Sequence[DatasetImage], size: int) -> list[Example]:
        for item in items:
            if item.path not in self._examples:
                self._examples[item.path] = _example(item, size, len(self._classes))
        return [self._examples[item.path] for item in items]

    def _predict(
        self,
        recorded: RecordedBackbone,
        timestep: int,
        probes: Mapping[Training, Probes],
        classified: Sequence[int],
    ) -> tuple[dict[Training, dict[Path, NDArray[np.int64]]], dict[int, dict[Path, Tensor]]]:
        """Return the confusion matrices of each training, and the pooled features of each block."""
        measured = self._parts.measured.get("segmentation", {}) if probes else {}
        to_segment = {item.path: item for part in measured.values() for item in part}
        # A photograph of both tasks passes once.
        pooled_ones = self._parts.of("classification") if classified else ()
        items = list({**to_segment, **{item.path: item for item in pooled_ones}}.values())
        confusions: dict[Training, dict[Path, NDArray[np.int64]]] = {key: {} for key in probes}
        features: dict[int, dict[Path, Tensor]] = {block: {} for block in classified}

        @torch.inference_mode()
        def compute(part: Prepared) -> Generator[None, None, Sequence[None]]:
            paths = [item.path for item in part.keys]
            with recorded.transient():
                found = recorded.activations(part.images, timestep, classified)
                for block, activations in found.items():
                    features[block].update(zip(paths, pooled(activations).cpu(), strict=True))
                segmented = part.of([i for i, path in enumerate(paths) if path in to_segment])
                for training, trained in probes.items() if segmented else ():
                    predicted = completed(predict_batch(trained, recorded, segmented))
                    for item, prediction in zip(segmented.keys, predicted, strict=True):
                        confusions[training][item.path] = item.confusion(
                            prediction.mask, len(self._classes)
                        )
            yield
            return [None] * len(part)

        sources = [Source(item, item.photograph) for item in items]
        for _ in run(recorded, sources, compute, expected=(), batch=_BATCH):
            pass
        return confusions, features

    def _segmentation(
        self, training: Training, timestep: int, confusions: Mapping[Path, NDArray[np.int64]]
    ) -> list[CellMetric]:
        metrics: list[CellMetric] = []
        for part, items in self._parts.measured["segmentation"].items():
            valid = np.ones((len(items), len(self._classes)), np.bool_)
            of_part = np.stack([confusions[item.path] for item in items])
            for tone, rows in rows_by_tone([item.tone for item in items]).items():
                scores = estimate_classes(
                    of_part[rows], [items[row].patient for row in rows], valid[rows], self._classes
                )
                place = Place("segmentation", *training, timestep, part, tone)
                metrics += _cell_metrics(place, scores["lesion"])
        return metrics

    def _classification(
        self, training: Training, timestep: int, features: Mapping[Path, Tensor]
    ) -> list[CellMetric]:
        fraction, block = training
        settings = replace(self._settings.classifier, block=block, timestep=timestep)
        learned, stopping = self._classified(fraction, settings)
        classifier = train_classifier(
            _pooled_examples(learned, features),
            _pooled_examples(stopping, features),
            self._backbone,
            settings,
        ).classifier
        metrics: list[CellMetric] = []
        for part, items in self._parts.measured["classification"].items():
            of_part = _pooled_examples(items, features)
            probabilities = classifier.probabilities(of_part.features)
            by_tone = discrimination_by_tone(
                of_part.malignant,
                probabilities,
                [item.patient for item in items],
                [item.tone for item in items],
                classifier.threshold,
                ABOVE_HALF,
            )
            for tone, found in by_tone.items():
                place = Place("classification", *training, timestep, part, tone)
                metrics += _cell_metrics(place, found)
        return metrics

    def _classified(
        self, fraction: int, settings: ClassifierSettings
    ) -> tuple[Sequence[DatasetImage], Sequence[DatasetImage]]:
        """Return the photographs of training and those of early stopping."""
        learned = self._parts.learned["classification"][fraction]
        if stopping := self._parts.stopping.get("classification"):
            return learned, stopping
        stops = malignancy_split(learned, settings.validation, settings.seed)
        return [i for i, stop in zip(learned, stops, strict=True) if not stop], [
            i for i, stop in zip(learned, stops, strict=True) if stop
        ]


def _example(item: DatasetImage, size: int, class_count: int) -> Example:
    """Return an image at the backbone's size, resized as training does it."""
    shape = (size, size)
    photograph = Image.fromarray(item.photograph()).resize(shape, Image.Resampling.BICUBIC)
    mask = resized_mask(item.class_ids(class_count), shape)
    return Example(np.array(photograph), mask, item.patient, item.tone)


def _pooled_examples(items: Sequence[DatasetImage], features: Mapping[Path, Tensor]) -> Examples:
    malignant = np.array([bool(item.malignant) for item in items])
    return Examples(torch.stack([features[item.path] for item in items]), malignant)


def _cell_metrics(
    place: Place, estimates: ClassEstimates | DiscriminationResult
) -> list[CellMetric]:
    """Return the metrics of a cell, part and tone."""
    found = []
    for name in _METRICS[place.task]:
        e: Estimate = getattr(estimates, name)
        found.append(CellMetric(*place, name, e.value, e.low, e.high, e.n, e.groups or 0))
    return found
