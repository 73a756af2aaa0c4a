"""How a cell is run: train on its fraction, look at the whole test part once.

A photograph passes the backbone once a task, whatever the number of fractions and seeds: the fractions
nest, and activations are kept on disk. Its augmented views and close-ups, where the settings have any
(those of the shipped backbone have a second look, the paper's have not), pass once a seed; a close-up
that a prediction asks for passes where no prediction has asked for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol import load_protocol
from annotation_protocol.metrics import confusion
from fedd.backbone import DiffusionUNet, Replicas
from fedd.baselines import Diagnosed, train_cnn, train_unet
from fedd.baselines.packages import baselines_problem
from fedd.cache import FeatureCache
from fedd.dataset import TONES, UNKNOWN, DatasetImage
from fedd.errors import FeddError, ReproductionError, TrainingDataError
from fedd.malignancy.classifier import Examples, train_classifier
from fedd.malignancy.discrimination import best_threshold
from fedd.probes.training import Example, train_probes
from fedd.reproduce.plan import FEDD, SEGMENTATION, Cell, Plan, chosen, settings_as_json
from fedd.reproduce.pooled import PooledFeatures
from fedd.reproduce.results import Meter, Result, Results
from fedd.reproduce.split import PaperSplit, drawing_order

Photograph = NDArray[np.uint8]
Mask = NDArray[np.uint8]

#: Photographs of each tone in the qualitative figure.
SHOWN_PER_TONE = 2

#: Photographs looked at at once.
_BATCH = 8


class Workbench:
    """What all cells share: the photographs, the backbone and its features in `folder`."""

    def __init__(
        self,
        plan: Plan,
        parts: PaperSplit,
        backbone: DiffusionUNet | Replicas,
        folder: Path,
        device: str = "cpu",
    ) -> None:
        self.plan, self.parts, self.backbone = plan, parts, backbone
        self._folder, self._device = folder, device
        self._classes = load_protocol().class_names
        self._cache = FeatureCache(folder / "features")
        self._pooled: dict[int, PooledFeatures] = {}
        _check_blocks(plan, backbone)

    def made_with(self, cell: Cell) -> dict[str, Any]:
        """All that decides the outcome of a cell, but for the code."""
        of_backbone = (
            {"backbone": self.backbone.hash[:12], "precision": self.backbone.precision}
            if cell.model == FEDD
            else {}
        )
        return {
            "photographs": self.parts.digest(cell),
            **of_backbone,
            "settings": settings_as_json(self.plan.settings(cell)),
        }

    def run(self, cell: Cell) -> Result:
        """Train and test one cell; raises what training raises.

        For the qualitative figure, the masks of a few photographs are written into `masks/CELL`.
        """
        meter = Meter()
        learned = self.parts.learned[cell.fraction]
        confusions: dict[str, list[list[int]]] = {}
        probabilities: dict[str, float] = {}
        threshold = None
        if cell.task == SEGMENTATION:
            masks = self._fedd_masks(cell) if cell.model == FEDD else self._unet_masks(cell)
            confusions = self._compared(cell, masks)
        else:
            found, threshold = self._fedd_calls(cell) if cell.model == FEDD else self._cnn(cell)
            tested = self.parts.classified
            probabilities = {i.stem: float(p) for i, p in zip(tested, found, strict=True)}
        return Result(cell, len(learned), meter.read(), confusions, probabilities, threshold)

    def mask_path(self, cell: Cell, item: DatasetImage) -> Path:
        """Where the mask of a shown photograph is kept."""
        return self._folder / "masks" / cell.name / f"{item.stem}.png"

    def shown(self) -> list[DatasetImage]:
        """A few photographs of each tone for the qualitative figure.

        Chosen by name alone out of the test of segmentation, so that cells of any run have them.
        """
        test = drawing_order(self.parts.segmented)
        return [i for tone in TONES for i in [x for x in test if x.tone == tone][:SHOWN_PER_TONE]]

    def _fedd_masks(self, cell: Cell) -> Iterator[Mask]:
        settings = self.plan.probe_settings(cell)
        probes = train_probes(
            self._examples(self.parts.learned[cell.fraction]),
            self.backbone,
            settings,
            self._classes,
            validation=self._examples(self.parts.validation),
            cache=self._cache,
        )
        for start in range(0, len(self.parts.segmented), _BATCH):
            part = self.parts.segmented[start : start + _BATCH]
            photographs = [item.photograph() for item in part]
            for prediction in probes.predict(self.backbone, photographs, self._cache):
                yield prediction.mask

    def _unet_masks(self, cell: Cell) -> Iterator[Mask]:
        unet = train_unet(
            self._examples(self.parts.learned[cell.fraction]),
            self._examples(self.parts.validation),
            self._classes,
            self.plan.unet_settings(cell),
            device=self._device,
        )
        for item in self.parts.segmented:
            yield unet.predict([item.photograph()])[0]

    def _fedd_calls(self, cell: Cell) -> tuple[NDArray[np.float64], float]:
        """Probabilities of the test of classification, and the threshold."""
        settings = self.plan.classifier_settings(cell)
        features = self._pooled.get(settings.timestep)
        if features is None:
            every = [s for s in self.plan.classifiers.values() if s.timestep == settings.timestep]
            blocks = [s.block for s in every]
            folder = self._folder / "features" / "pooled"
            features = PooledFeatures(self.backbone, blocks, settings.timestep, folder)
            self._pooled[settings.timestep] = features
        training, validation = (
            Examples(features.of(items, settings.block), _malignant(items))
            for items in (self.parts.learned[cell.fraction], self.parts.validation)
        )
        done = train_classifier(training, validation, self.backbone, settings).classifier
        tested = features.of(self.parts.classified, settings.block)
        return done.probabilities(tested), done.threshold

    def _cnn(self, cell: Cell) -> tuple[NDArray[np.float64], float]:
        held_out = self.parts.validation
        if len(set(_malignant(held_out).tolist())) < 2:
            raise TrainingDataError(
                "the validation part has malignant or benign photographs only: no threshold can be "
                "chosen on it"
            )
        cnn = train_cnn(
            _diagnosed(self.parts.learned[cell.fraction]),
            _diagnosed(held_out),
            self.plan.cnn_settings(cell),
            device=self._device,
        )
        on_validation = cnn.predict(item.photograph() for item in held_out).astype(np.float64)
        found = cnn.predict(item.photograph() for item in self.parts.classified)
        return found.astype(np.float64), best_threshold(_malignant(held_out), on_validation)

    def _compared(self, cell: Cell, masks: Iterator[Mask]) -> dict[str, list[list[int]]]:
        """A confusion matrix a photograph; keeps the masks that are shown."""
        shown = {item.stem for item in self.shown()}
        found = {}
        for item, mask in zip(self.parts.segmented, masks, strict=True):
            truth = item.class_ids(len(self._classes))
            mask = _stretched(mask, truth.shape)
            known = truth != UNKNOWN
            counts = confusion(truth[known], mask[known], len(self._classes))
            found[item.stem] = counts.tolist()
            if item.stem in shown and cell.seed == self.plan.seeds[0]:
                path = self.mask_path(cell, item)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
        return found

    def _examples(self, items: Sequence[DatasetImage]) -> Iterator[Example]:
        for item in items:
            mask = item.class_ids(len(self._classes))
            yield Example(item.photograph(), mask, item.patient, item.tone)


def _check_blocks(plan: Plan, backbone: DiffusionUNet | Replicas) -> None:
    """Find out before hours of work, not after them."""
    needed = {*plan.probes.features.blocks, *(s.block for s in plan.classifiers.values())}
    if missing := sorted(needed - set(backbone.blocks)):
        raise ReproductionError(
            f"{backbone.name} has decoder blocks {backbone.blocks[0]} to {backbone.blocks[-1]}, and "
            f"the paper's experiments read block {missing[-1]} too: give weights that go so far "
            f"('fedd weights fetch imagenet-256 --blocks {missing[-1]}')"
        )


def _malignant(items: Sequence[DatasetImage]) -> NDArray[np.bool_]:
    return np.array([bool(item.malignant) for item in items])


def _diagnosed(items: Sequence[DatasetImage]) -> Iterator[Diagnosed]:
    for item in items:
        yield Diagnosed(item.photograph(), bool(item.malignant))


def _stretched(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The mask at the truth's size: the published masks are square, whatever the photograph."""
    if mask.shape == shape:
        return mask
    resized = Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    return np.array(resized)


#: Called with a cell, its number from 1, how many there are, and what becomes of it.
Report = Callable[[Cell, int, int, str], None]


@dataclass(frozen=True)
class PlanOutcome:
    """What became of the cells of a plan."""

    done: list[Result]  #: of this run and earlier ones
    ran: list[Cell]  #: in this run
    left_out: dict[Cell, str]  #: not asked for
    unavailable: dict[Cell, str]  #: asked for, but a package that they need is missing or broken
    failed: dict[Cell, str]  #: run without a result, with the reason

    @property
    def missing(self) -> dict[Cell, str]:
        """All cells without a result, with the reason."""
        return {**self.left_out, **self.unavailable, **self.failed}


def run_cells(
    workbench: Workbench,
    folder: Path,
    only: Collection[str] = (),
    report: Report = lambda cell, number, total, what: None,
) -> PlanOutcome:
    """Run the cells of the plan that `folder` lacks, those named in `only`.

    Writes `cells/CELL.json` as each is done. A cell that can't be run does not stop the others;
    without the extra `[baselines]` FEDD's cells are run. Raises ReproductionError where `folder`
    holds cells that were made with other settings, photographs or weights.
    """
    cells = workbench.plan.cells
    asked = set(chosen(cells, only))
    store = Results(folder / "cells")
    # All are looked at before any is run: a refusal comes at once, not after hours.
    found = {cell: store.get(cell, workbench.made_with(cell)) for cell in cells}
    lacking = baselines_problem()
    outcome = PlanOutcome(
        [result for result in found.values() if result is not None], [], {}, {}, {}
    )
    for number, cell in enumerate(cells, 1):
        if found[cell] is not None:
            report(cell, number, len(cells), "done before")
        elif cell not in asked:
            outcome.left_out[cell] = "not asked for (--only)"
        elif lacking and cell.model != FEDD:
            outcome.unavailable[cell] = lacking
        else:
            report(cell, number, len(cells), "running")
            try:
                result = workbench.run(cell)
            except FeddError as error:
                outcome.failed[cell] = str(error)
                report(cell, number, len(cells), f"failed: {error}")
                continue
            store.put(result, workbench.made_with(cell))
            outcome.done.append(result)
            outcome.ran.append(cell)
    return outcome
