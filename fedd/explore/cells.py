"""The cells of an ablation: all blocks of a timestep at once, from one pass of each photograph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from annotation_protocol import load_protocol
from annotation_protocol.estimates import METHOD, ClassEstimates, Estimate, estimate_classes
from fedd.backbone import Backbone
from fedd.cache import image_digest, to_half
from fedd.dataset import DatasetImage, resized_mask, rows_by_tone
from fedd.explore.state import CellMetric
from fedd.features import prepare
from fedd.malignancy.classifier import ClassifierSettings, Examples, train_classifier
from fedd.malignancy.discrimination import DiscriminationResult, discrimination_by_tone
from fedd.malignancy.pooling import pooled
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

#: The metrics of each task.
_METRICS: dict[Task, tuple[str, ...]] = {
    "segmentation": ("iou_mean", "iou_pooled", "dice_mean"),
    "classification": ("roc_auc", "f1", "accuracy"),
}

#: Photographs in one batch.
_BATCH = 8


@dataclass(frozen=True)
class AblationSplit:
    """The training and test photographs of each task; no patient is in both."""

    learned: Mapping[Task, Sequence[DatasetImage]]
    tested: Mapping[Task, Sequence[DatasetImage]]
    left_out: int = 0  #: photographs of the test split's patients that the test split does not name


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


class Cells:
    """Computes cells; what is the same for all timesteps is read once."""

    def __init__(
        self, parts: AblationSplit, backbone: Backbone, settings: AblationSettings
    ) -> None:
        self._parts, self._backbone, self._settings = parts, backbone, settings
        self._classes = load_protocol().class_names
        self._examples: list[Example] = []

    def at(
        self, timestep: int, blocks: Mapping[Task, Sequence[int]], folder: Path
    ) -> list[CellMetric]:
        """Return the metrics of the blocks of each task at a timestep; `folder` is for activations."""
        every = sorted({block for of_task in blocks.values() for block in of_task})
        recorded = RecordedBackbone(self._backbone, every, folder)
        probes = {
            block: self._train_probes(recorded, block, timestep)
            for block in blocks.get("segmentation", ())
        }
        confusions, features = self._predict(
            recorded, timestep, probes, blocks.get("classification", ())
        )
        metrics: list[CellMetric] = []
        for block, of_block in confusions.items():
            metrics += self._segmentation(block, timestep, np.stack(of_block))
        for block, of_image in features.items():
            metrics += self._classification(block, timestep, of_image)
        return metrics

    def _train_probes(self, recorded: RecordedBackbone, block: int, timestep: int) -> Probes:
        if not self._examples:
            learned = self._parts.learned["segmentation"]
            size, classes = recorded.image_size, len(self._classes)
            self._examples = [_example(item, size, classes) for item in learned]
        base = self._settings.probes
        spec = replace(base.features, blocks=(block,), timestep=timestep)
        # Without the refinement pass, as in the paper: it would need batches of its own.
        settings = replace(base, features=spec, refined_class=None)
        return train_probes(self._examples, recorded, settings, self._classes)

    def _predict(
        self,
        recorded: RecordedBackbone,
        timestep: int,
        probes: Mapping[int, Probes],
        classified: Sequence[int],
    ) -> tuple[dict[int, list[NDArray[np.int64]]], dict[int, dict[Path, Tensor]]]:
        """Return by block a confusion matrix of each test photograph, and each photograph's features."""
        tested = self._parts.tested["segmentation"] if probes else ()
        pooled_ones = self._classification_items() if classified else ()
        # A photograph of both tasks passes once.
        items = list({item.path: item for item in (*tested, *pooled_ones)}.values())
        to_segment = {item.path for item in tested}
        confusions: dict[int, list[NDArray[np.int64]]] = {block: [] for block in probes}
        features: dict[int, dict[Path, Tensor]] = {block: {} for block in classified}
        for start in range(0, len(items), _BATCH):
            part = items[start : start + _BATCH]
            photographs = {item.path: item.photograph() for item in part}
            with recorded.transient():
                images = torch.stack(
                    [prepare(p, recorded.image_size) for p in photographs.values()]
                )
                found = recorded.activations(images, timestep, classified)
                for block, activations in found.items():
                    features[block].update(zip(photographs, pooled(activations).cpu(), strict=True))
                segmented = [item for item in part if item.path in to_segment]
                for block, of_block in probes.items() if segmented else ():
                    predicted = of_block.predict(recorded, [photographs[i.path] for i in segmented])
                    confusions[block] += [
                        item.confusion(prediction.mask, len(self._classes))
                        for item, prediction in zip(segmented, predicted, strict=True)
                    ]
        return confusions, features

    def _classification_items(self) -> Sequence[DatasetImage]:
        return (*self._parts.learned["classification"], *self._parts.tested["classification"])

    def _segmentation(
        self, block: int, timestep: int, confusions: NDArray[np.int64]
    ) -> list[CellMetric]:
        items = self._parts.tested["segmentation"]
        valid = np.ones((len(items), len(self._classes)), np.bool_)
        metrics: list[CellMetric] = []
        for tone, rows in rows_by_tone([item.tone for item in items]).items():
            scores = estimate_classes(
                confusions[rows],
                [items[row].patient for row in rows],
                valid[rows],
                self._classes,
            )
            metrics += _cell_metrics("segmentation", block, timestep, tone, scores["lesion"])
        return metrics

    def _classification(
        self, block: int, timestep: int, features: Mapping[Path, Tensor]
    ) -> list[CellMetric]:
        settings = replace(self._settings.classifier, block=block, timestep=timestep)
        learned = self._parts.learned["classification"]
        tested = self._parts.tested["classification"]
        examples = _examples_of(learned, features)
        validated = malignancy_split(learned, settings.validation, settings.seed)
        classifier = train_classifier(
            examples.part(~validated), examples.part(validated), self._backbone, settings
        ).classifier
        test = _examples_of(tested, features)
        by_tone = discrimination_by_tone(
            test.malignant,
            classifier.probabilities(test.features),
            [item.patient for item in tested],
            [item.tone for item in tested],
            classifier.threshold,
        )
        metrics: list[CellMetric] = []
        for tone, found in by_tone.items():
            metrics += _cell_metrics("classification", block, timestep, tone, found)
        return metrics


def _example(item: DatasetImage, size: int, class_count: int) -> Example:
    """Return an image at the backbone's size, resized as training does it."""
    shape = (size, size)
    photograph = Image.fromarray(item.photograph()).resize(shape, Image.Resampling.BICUBIC)
    mask = resized_mask(item.class_ids(class_count), shape)
    return Example(np.array(photograph), mask, item.patient, item.tone)


def _examples_of(items: Sequence[DatasetImage], features: Mapping[Path, Tensor]) -> Examples:
    malignant = np.array([bool(item.malignant) for item in items])
    return Examples(torch.stack([features[item.path] for item in items]), malignant)


def _cell_metrics(
    task: Task,
    block: int,
    timestep: int,
    tone: str,
    estimates: ClassEstimates | DiscriminationResult,
) -> list[CellMetric]:
    """Return the metrics of a cell and tone."""
    found = []
    for name in _METRICS[task]:
        e: Estimate = getattr(estimates, name)
        sizes = e.n, e.groups or 0
        found.append(CellMetric(task, block, timestep, tone, name, e.value, e.low, e.high, *sizes))
    return found
