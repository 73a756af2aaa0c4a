"""Computation of the cells: train on a fraction, test on the whole test split once.

A photograph passes through the backbone once per task, for all fractions and seeds: the fractions are
nested, and activations are cached on disk. Augmented views and lesion windows (the shipped backbone's
settings have them, the paper's have not) pass once per seed; the window of a refinement pass passes unless
an earlier prediction had the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol import load_protocol
from fedd.backbone import Placed, weights_key
from fedd.baselines import diagnosed, train_cnn, train_unet
from fedd.baselines.packages import baselines_problem
from fedd.cache import FeatureCache
from fedd.dataset import TONES, DatasetImage, resized_mask
from fedd.errors import FeddError, ReproductionError, TrainingDataError
from fedd.malignancy.classifier import Examples, train_classifier
from fedd.network.cost import duration
from fedd.pipeline import Source, predictions
from fedd.probes.pixels import labelled_examples
from fedd.probes.training import train_probes
from fedd.reproduce.plan import (
    CLASSIFICATION,
    FEDD,
    SEGMENTATION,
    Cell,
    Plan,
    chosen,
    settings_as_json,
)
from fedd.reproduce.pooled import PooledFeatures
from fedd.reproduce.results import Meter, OtherInputsError, Result, ResultStore
from fedd.reproduce.split import ImageSet, PaperSplit, seeded_order

logger = logging.getLogger(__name__)

Mask = NDArray[np.uint8]

#: Photographs of each tone in the qualitative figure.
SHOWN_PER_TONE = 2


class Workbench:
    """What all cells share: plan, photographs, backbone, and its features in `folder`."""

    def __init__(
        self,
        plan: Plan,
        split: PaperSplit,
        backbone: Placed,
        folder: Path,
        device: str = "cpu",
    ) -> None:
        self.plan, self.split, self.backbone = plan, split, backbone
        self._folder, self._device = folder, device
        self._classes = load_protocol().class_names
        self._cache = FeatureCache(folder / "features")
        self._pooled: dict[int, PooledFeatures] = {}
        _check_blocks(plan, backbone)

    def made_with(self, cell: Cell) -> dict[str, Any]:
        """Return everything that determines a cell's result, except the code."""
        of_backbone = (
            {
                "backbone": self.backbone.hash[:12]
                if self.backbone.verified
                else weights_key(self.backbone),
                "precision": self.backbone.precision,
            }
            if cell.model == FEDD
            else {}
        )
        return {
            "photographs": self.split.digest(cell),
            **of_backbone,
            "settings": settings_as_json(self.plan.settings(cell)),
        }

    def photographs(self, cell: Cell) -> int:
        """Return how many photographs a cell is trained and measured on."""
        return len(self.split.learned[cell.fraction]) + len(self.split.measured(cell.task))

    def run(self, cell: Cell) -> Result:
        """Train and test one cell; raises what training raises.

        The masks of a few photographs are written into `masks/CELL` for the qualitative figure.
        """
        meter = Meter()
        learned = self.split.learned[cell.fraction]
        measured = self.split.measured(cell.task)
        confusions: dict[str, list[list[int]]] = {}
        probabilities: dict[str, float] = {}
        if cell.task == SEGMENTATION:
            masks = self._fedd_masks if cell.model == FEDD else self._unet_masks
            confusions = self._compared(cell, measured, masks(cell, measured))
        else:
            classify = self._fedd_probabilities if cell.model == FEDD else self._cnn_probabilities
            found = classify(cell, measured)
            probabilities = {i.stem: float(p) for i, p in zip(measured, found, strict=True)}
        return Result(cell, len(learned), meter.read(), confusions, probabilities)

    def mask_path(self, cell: Cell, item: DatasetImage) -> Path:
        """Return the path of a shown photograph's mask."""
        return self._folder / "masks" / cell.name / f"{item.stem}.png"

    def shown(self) -> list[DatasetImage]:
        """Return a few photographs of each tone for the qualitative figure.

        Chosen by name alone from the segmentation test, so that cells of any run have them.
        """
        test = seeded_order(self.split.sets[ImageSet.SEGMENTATION_TEST])
        return [i for tone in TONES for i in [x for x in test if x.tone == tone][:SHOWN_PER_TONE]]

    def _fedd_masks(self, cell: Cell, items: Sequence[DatasetImage]) -> Iterator[Mask]:
        settings = self.plan.probe_settings(cell)
        probes = train_probes(
            labelled_examples(self.split.learned[cell.fraction], len(self._classes)),
            self.backbone,
            settings,
            self._classes,
            validation=labelled_examples(self.split.validation(SEGMENTATION), len(self._classes)),
            cache=self._cache,
        )
        sources = [Source(item, item.photograph) for item in items]
        done = predictions(probes, self.backbone, sources, expected=(), cache=self._cache)
        with closing(done):
            for each in done:
                if each.prediction is not None:
                    yield each.prediction.mask

    def _unet_masks(self, cell: Cell, items: Sequence[DatasetImage]) -> Iterator[Mask]:
        unet = train_unet(
            labelled_examples(self.split.learned[cell.fraction], len(self._classes)),
            labelled_examples(self.split.validation(SEGMENTATION), len(self._classes)),
            self._classes,
            self.plan.unet_settings(cell),
            device=self._device,
        )
        yield from unet.masks(item.photograph() for item in items)

    def _fedd_probabilities(self, cell: Cell, items: Sequence[DatasetImage]) -> NDArray[np.float64]:
        settings = self.plan.classifier_settings(cell)
        features = self._pooled.get(settings.timestep)
        if features is None:
            every = [s for s in self.plan.classifiers.values() if s.timestep == settings.timestep]
            blocks = [s.block for s in every]
            folder = self._folder / "features" / "pooled"
            features = PooledFeatures(self.backbone, blocks, settings.timestep, folder)
            self._pooled[settings.timestep] = features
        training, validation = (
            Examples(features.of(part, settings.block), _malignant(part))
            for part in (self.split.learned[cell.fraction], self.split.validation(CLASSIFICATION))
        )
        done = train_classifier(training, validation, self.backbone, settings).classifier
        return done.probabilities(features.of(items, settings.block))

    def _cnn_probabilities(self, cell: Cell, items: Sequence[DatasetImage]) -> NDArray[np.float64]:
        validation = self.split.validation(CLASSIFICATION)
        if len(set(_malignant(validation).tolist())) < 2:
            raise TrainingDataError(
                "the validation split has malignant or benign photographs only: no threshold can be "
                "chosen on it"
            )
        cnn = train_cnn(
            diagnosed(self.split.learned[cell.fraction]),
            diagnosed(validation),
            self.plan.cnn_settings(cell),
            device=self._device,
        )
        return cnn.predict(item.photograph() for item in items).astype(np.float64)

    def _compared(
        self, cell: Cell, items: Sequence[DatasetImage], masks: Iterator[Mask]
    ) -> dict[str, list[list[int]]]:
        """Return a confusion matrix for each photograph; stores the masks that are shown."""
        shown = {item.stem for item in self.shown()}
        found = {}
        for item, mask in zip(items, masks, strict=True):
            found[item.stem] = item.confusion(mask, len(self._classes)).tolist()
            if item.stem in shown and cell.seed == self.plan.seeds[0]:
                path = self.mask_path(cell, item)
                path.parent.mkdir(parents=True, exist_ok=True)
                truth = item.class_ids(len(self._classes))
                Image.fromarray(resized_mask(mask, truth.shape)).save(path)
        return found


def _check_blocks(plan: Plan, backbone: Placed) -> None:
    """Raise ReproductionError now if the backbone lacks a block that a cell needs."""
    needed = {*plan.probes.features.blocks, *(s.block for s in plan.classifiers.values())}
    if missing := sorted(needed - set(backbone.blocks)):
        raise ReproductionError(
            f"{backbone.name} has decoder blocks {backbone.blocks[0]} to {backbone.blocks[-1]}, and "
            f"the paper's experiments also read block {missing[-1]}: give weights with that block "
            f"('fedd weights fetch imagenet-256 --blocks {missing[-1]}')"
        )


def _malignant(items: Sequence[DatasetImage]) -> NDArray[np.bool_]:
    return np.array([bool(item.malignant) for item in items])


@dataclass(frozen=True)
class PlanOutcome:
    """The outcome of the cells of a plan."""

    done: list[Result]  #: of this run and earlier ones
    ran: list[Cell]  #: in this run
    left_out: dict[Cell, str]  #: not requested
    unavailable: dict[Cell, str]  #: requested, but a package or weights are missing
    failed: dict[Cell, str]  #: without a result, with the reason

    @property
    def missing(self) -> dict[Cell, str]:
        """Return all cells without a result, with the reason."""
        return {**self.left_out, **self.unavailable, **self.failed}


def missing_cells(workbench: Workbench, folder: Path, only: Collection[str] = ()) -> list[Cell]:
    """Return the cells that `run_cells` would run.

    Raises ReproductionError if `folder` holds a damaged cell, or one made with other settings, photographs
    or weights.
    """
    found = _stored(workbench, folder)
    unavailable = unavailable_cells(workbench, only)
    return [
        cell
        for cell in chosen(workbench.plan.cells, only)
        if cell not in found and cell not in unavailable
    ]


def unavailable_cells(workbench: Workbench, only: Collection[str] = ()) -> dict[Cell, str]:
    """Return the requested cells that can't be run here, with the reason."""
    lacking = baselines_problem()
    reasons = {
        cell: (lacking if cell.model != FEDD else "") or workbench.plan.lacking(cell)
        for cell in chosen(workbench.plan.cells, only)
    }
    return {cell: reason for cell, reason in reasons.items() if reason}


def run_cells(
    workbench: Workbench,
    folder: Path,
    only: Collection[str] = (),
    work: Mapping[Cell, float] | None = None,
) -> PlanOutcome:
    """Run the cells of the plan that `folder` lacks, or of these the ones named in `only`.

    Writes `cells/CELL.json` after each cell. A failed cell does not stop the others; without the extra
    `[baselines]` only FEDD's cells are run. `work` are the operations of the cells, for the remaining time.
    Raises ReproductionError if `folder` holds cells made with other settings, photographs or weights, or
    can't be created.
    """
    requested = chosen(workbench.plan.cells, only)
    # All are read before any is run: a refusal comes at once, not after hours.
    found = _stored(workbench, folder)
    store = ResultStore(folder / "cells")
    store.prepare()
    others = [c for c in workbench.plan.cells if c not in set(requested) and c not in found]
    outcome = PlanOutcome(
        done=list(found.values()),
        ran=[],
        left_out=dict.fromkeys(others, "not requested (--only)"),
        unavailable={
            cell: reason
            for cell, reason in unavailable_cells(workbench, only).items()
            if cell not in found
        },
        failed={},
    )
    clock = _Clock(work or {})
    for number, cell in enumerate(requested, 1):
        position = number, len(requested), cell
        if cell in found:
            logger.info("%d of %d: %s: done before", *position)
        elif cell not in outcome.unavailable:
            logger.info("%d of %d: %s: running%s", *position, clock.left())
            try:
                result = workbench.run(cell)
            except FeddError as error:
                outcome.failed[cell] = str(error)
                logger.info("%d of %d: %s: failed: %s", *position, error)
                continue
            store.put(result, workbench.made_with(cell))
            outcome.done.append(result)
            outcome.ran.append(cell)
            clock.done(cell)
    return outcome


def _stored(workbench: Workbench, folder: Path) -> dict[Cell, Result]:
    """Return the results in a folder; raises ReproductionError once for all that other inputs made."""
    store = ResultStore(folder / "cells")
    found, refused = {}, []
    for cell in workbench.plan.cells:
        try:
            result = store.get(cell, workbench.made_with(cell), workbench.photographs(cell))
        except OtherInputsError as error:
            refused.append((cell, error))
            continue
        if result is not None:
            found[cell] = result
    if len(refused) == 1:
        raise refused[0][1]
    if refused:
        tasks = {cell.task for cell, _ in refused}
        which = f"{tasks.pop()}-*.json" if len(tasks) == 1 else "*.json"
        raise ReproductionError(
            f"{len(refused)} cells in {store.folder} were made with {refused[0][1].difference}: use the "
            f"same, give another --out, or delete {store.folder / which} to run them again (the features "
            "beside them are used again)"
        )
    return found


class _Clock:
    """Estimates how long the cells that are left will take, from the operations of those done."""

    def __init__(self, work: Mapping[Cell, float]) -> None:
        self._work, self._start = dict(work), time.monotonic()
        self._done = 0.0

    def done(self, cell: Cell) -> None:
        self._done += self._work.pop(cell, 0.0)

    def left(self) -> str:
        """Return a clause for the log; empty before the first cell is done."""
        if not self._done:
            return ""
        seconds = (time.monotonic() - self._start) * sum(self._work.values()) / self._done
        return f", about {duration(seconds)} left"
