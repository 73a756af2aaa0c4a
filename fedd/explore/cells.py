"""The cells of an ablation: all blocks of one timestep at once, from one pass of each photograph."""

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
from annotation_protocol.estimates import estimate_classes
from annotation_protocol.metrics import confusion
from fedd.backbone import Backbone
from fedd.cache import image_digest, to_half
from fedd.dataset import UNKNOWN, DatasetImage
from fedd.explore.state import ALL, CellMetric
from fedd.features import prepare
from fedd.malignancy.classifier import ClassifierSettings, Examples, train_classifier
from fedd.malignancy.discrimination import discrimination
from fedd.malignancy.pooling import pooled
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes, ProbeSettings
from fedd.validation import stratified_validation


class RecordedBackbone:
    """Passes on what `backbone` gives, and keeps it in `folder` for all of `blocks` at once.

    Activations are rounded to float16, as a `FeatureCache` keeps them, and may differ from a pass of
    one's own by rounding, as those of a cache may. The blocks of OpenAI's network that the paper
    compares take 52 MB an image. For one process.
    """

    def __init__(self, backbone: Backbone, blocks: Sequence[int], folder: Path) -> None:
        self._backbone, self._folder = backbone, folder
        self._recorded = tuple(blocks)
        self._known: set[str] = set()

    @property
    def name(self) -> str:
        return self._backbone.name

    @property
    def hash(self) -> str:
        return self._backbone.hash

    @property
    def image_size(self) -> int:
        return self._backbone.image_size

    @property
    def blocks(self) -> tuple[int, ...]:
        return self._recorded

    @property
    def device(self) -> torch.device:
        return self._backbone.device

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """As of any backbone; only images that are new at this timestep pass through the network.

        Raises ValueError for a block that is not recorded.
        """
        if unknown := set(blocks) - set(self._recorded):
            raise ValueError(f"blocks {self._recorded} are recorded, not {sorted(unknown)}")
        names = [f"{image_digest(image)}-{timestep}-{noise}" for image in images]
        new = [i for i, name in enumerate(names) if name not in self._known]
        if new:
            found = self._backbone.activations(images[new], timestep, self._recorded, noise)
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
    def passing(self) -> Iterator[None]:
        """What is recorded inside is dropped at the end: images that are looked at once."""
        before = set(self._known)
        try:
            yield
        finally:
            for name in self._known - before:
                for block in self._recorded:
                    self._path(name, block).unlink(missing_ok=True)
            self._known = before

    def _path(self, name: str, block: int) -> Path:
        return self._folder / f"{name}-{block}.npy"


Task = Literal["segmentation", "classification"]

#: Of each task, the figures that are kept.
_FIGURES: dict[Task, tuple[str, ...]] = {
    "segmentation": ("iou_mean", "iou_pooled", "dice_mean"),
    "classification": ("roc_auc", "f1", "accuracy"),
}

#: Photographs in one pass.
_BATCH = 8


@dataclass(frozen=True)
class AblationSplit:
    """The photographs that each task learns from and is tested on; no patient is in both."""

    learned: Mapping[Task, Sequence[DatasetImage]]
    tested: Mapping[Task, Sequence[DatasetImage]]
    left_out: int = 0  #: photographs of the test part's patients that the test part does not name


@dataclass(frozen=True)
class AblationSettings:
    """What decides the figures, besides the grid, photographs and backbone.

    Block and timestep of `probes` and `classifier` are replaced by those of each cell.
    """

    probes: ProbeSettings
    classifier: ClassifierSettings = field(default_factory=lambda: ClassifierSettings(block=0))
    resamples: int = 2000

    def made_with(self) -> dict[str, Any]:
        """All that decides, by name."""
        probes, classifier = self.probes.to_dict(), self.classifier.to_dict()
        features = {k: v for k, v in probes.pop("features").items() if k not in _OF_A_CELL}
        classifier = {k: v for k, v in classifier.items() if k not in _OF_A_CELL}
        return {
            "seed": self.probes.seed,
            "resamples": self.resamples,
            "features": features,
            "probe settings": probes,
            "classifier settings": classifier,
        }


_OF_A_CELL = ("block", "blocks", "timestep")


class Cells:
    """Computes cells; what stays the same from timestep to timestep is read once."""

    def __init__(
        self, parts: AblationSplit, backbone: Backbone, settings: AblationSettings
    ) -> None:
        self._parts, self._backbone, self._settings = parts, backbone, settings
        self._classes = load_protocol().class_names
        self._examples: list[Example] = []

    def at(
        self, timestep: int, blocks: Mapping[Task, Sequence[int]], folder: Path
    ) -> list[CellMetric]:
        """The figures of the blocks of each task at a timestep; `folder` is for activations."""
        every = sorted({block for of_task in blocks.values() for block in of_task})
        recorded = RecordedBackbone(self._backbone, every, folder)
        probes = {
            block: self._train_probes(recorded, block, timestep)
            for block in blocks.get("segmentation", ())
        }
        confusions, features = self._look(
            recorded, timestep, probes, blocks.get("classification", ())
        )
        figures: list[CellMetric] = []
        for block, of_block in confusions.items():
            figures += self._segmentation(block, timestep, np.stack(of_block))
        for block, of_image in features.items():
            figures += self._classification(block, timestep, of_image)
        return figures

    def _train_probes(self, recorded: RecordedBackbone, block: int, timestep: int) -> Probes:
        if not self._examples:
            learned = self._parts.learned["segmentation"]
            size, classes = recorded.image_size, len(self._classes)
            self._examples = [_example(item, size, classes) for item in learned]
        base = self._settings.probes
        spec = replace(base.features, blocks=(block,), timestep=timestep)
        # One look, as the paper: a second one would need passes of its own.
        settings = replace(base, features=spec, refined_class=None)
        return train_probes(self._examples, recorded, settings, self._classes)

    def _look(
        self,
        recorded: RecordedBackbone,
        timestep: int,
        probes: Mapping[int, Probes],
        classified: Sequence[int],
    ) -> tuple[dict[int, list[NDArray[np.int64]]], dict[int, dict[Path, Tensor]]]:
        """By block: a confusion matrix a tested photograph, and the pooled features of each."""
        tested = self._parts.tested["segmentation"] if probes else ()
        pooled_ones = self._classification_items() if classified else ()
        # A photograph of both tasks comes once, so that it passes once.
        items = list({item.path: item for item in (*tested, *pooled_ones)}.values())
        to_segment = {item.path for item in tested}
        confusions: dict[int, list[NDArray[np.int64]]] = {block: [] for block in probes}
        features: dict[int, dict[Path, Tensor]] = {block: {} for block in classified}
        for start in range(0, len(items), _BATCH):
            part = items[start : start + _BATCH]
            photographs = {item.path: item.photograph() for item in part}
            with recorded.passing():
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
                        _confusion(
                            item.class_ids(len(self._classes)), prediction.mask, len(self._classes)
                        )
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
        figures: list[CellMetric] = []
        for tone, rows in _by_tone(items).items():
            scores = estimate_classes(
                confusions[rows],
                [items[row].patient for row in rows],
                valid[rows],
                self._classes,
                resamples=self._settings.resamples,
                seed=self._settings.probes.seed,
            )
            lesion = scores["lesion"].to_json()
            figures += _figures("segmentation", block, timestep, tone, lesion)
        return figures

    def _classification(
        self, block: int, timestep: int, features: Mapping[Path, Tensor]
    ) -> list[CellMetric]:
        settings = replace(self._settings.classifier, block=block, timestep=timestep)
        learned = self._parts.learned["classification"]
        tested = self._parts.tested["classification"]
        examples = _examples_of(learned, features)
        held_out = stratified_validation(
            examples.malignant.tolist(),
            [item.tone for item in learned],
            [item.patient for item in learned],
            settings.validation,
            settings.seed,
        )
        classifier = train_classifier(
            examples.part(~held_out), examples.part(held_out), self._backbone, settings
        ).classifier
        test = _examples_of(tested, features)
        probabilities = classifier.probabilities(test.features)
        figures: list[CellMetric] = []
        for tone, rows in _by_tone(tested).items():
            found = discrimination(
                test.malignant[rows],
                probabilities[rows],
                [tested[row].patient for row in rows],
                classifier.threshold,
                resamples=self._settings.resamples,
                seed=settings.seed,
            )
            figures += _figures("classification", block, timestep, tone, found.as_dict())
        return figures


def _example(item: DatasetImage, size: int, class_count: int) -> Example:
    """An item at the backbone's size, as training would bring it there."""
    square = (size, size)
    photograph = Image.fromarray(item.photograph()).resize(square, Image.Resampling.BICUBIC)
    mask = Image.fromarray(item.class_ids(class_count)).resize(square, Image.Resampling.NEAREST)
    return Example(np.array(photograph), np.array(mask), item.patient, item.tone)


def _confusion(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], class_count: int
) -> NDArray[np.int64]:
    """Over the pixels that somebody judged, at the truth's size."""
    if prediction.shape != truth.shape:
        size = truth.shape[1], truth.shape[0]
        prediction = np.array(Image.fromarray(prediction).resize(size, Image.Resampling.NEAREST))
    known = truth != UNKNOWN
    return confusion(truth[known], prediction[known], class_count)


def _examples_of(items: Sequence[DatasetImage], features: Mapping[Path, Tensor]) -> Examples:
    malignant = np.array([bool(item.malignant) for item in items])
    return Examples(torch.stack([features[item.path] for item in items]), malignant)


def _by_tone(items: Sequence[DatasetImage]) -> dict[str, list[int]]:
    """Rows of all items, and of each tone."""
    rows = {ALL: list(range(len(items)))}
    for tone in sorted({item.tone for item in items}):
        rows[tone] = [row for row, item in enumerate(items) if item.tone == tone]
    return rows


def _figures(
    task: Task, block: int, timestep: int, tone: str, values: Mapping[str, Any]
) -> list[CellMetric]:
    """The figures of a cell and tone; one without an interval has no value either."""
    found = []
    for name in _FIGURES[task]:
        interval = values[f"{name}_ci95"]
        value, low, high = (None,) * 3 if interval is None else (values[name], *interval)
        found.append(
            CellMetric(
                task, block, timestep, tone, name, value, low, high, values["n"], values["patients"]
            )
        )
    return found
