"""The block x timestep grid of the paper's figure 6: how well each block performs at each timestep.

A cell is one block at one timestep, trained on one fraction of the data: probes (`fedd.probes.training`),
measured by the lesion's IoU, or a classifier (`fedd.malignancy.classifier`), measured by accuracy and
ROC-AUC. Each photograph passes through the backbone once per timestep, for all fractions, blocks and both
tasks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedd.backbone import (
    DIFFUSION_STEPS,
    IMAGENET_256,
    Backbone,
    is_verified,
    precision_of,
)
from fedd.dataset import DatasetImage
from fedd.errors import ExplorationError
from fedd.explore.cells import (
    TEST,
    WHOLE,
    AblationSettings,
    AblationSplit,
    Cells,
    Task,
    Training,
)
from fedd.explore.clusters import check_explorable
from fedd.explore.figure6 import write_heat_maps
from fedd.explore.state import AblationState, CellMetric
from fedd.files import file_hash
from fedd.network.architecture import Architecture
from fedd.validation import Candidate, malignancy_split, validation_split
from fedd.weights.names import titled_weights

TASKS: tuple[Task, ...] = ("segmentation", "classification")

#: Called with (cells done, cells in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grid:
    """The cells of an ablation. The paper's timesteps go to 1000; the schedule's last one is 999."""

    blocks: tuple[int, ...]
    timesteps: tuple[int, ...]
    tasks: tuple[Task, ...] = TASKS

    def __post_init__(self) -> None:
        last = DIFFUSION_STEPS - 1
        in_schedule = sorted({last if t == DIFFUSION_STEPS else t for t in self.timesteps})
        object.__setattr__(self, "timesteps", tuple(in_schedule))
        object.__setattr__(self, "blocks", tuple(sorted(set(self.blocks))))


def default_blocks(config: Architecture) -> tuple[int, ...]:
    """Return the paper's blocks for its network, all blocks of another."""
    paper = config == IMAGENET_256
    return tuple(range(2, 15, 2)) if paper else tuple(range(config.decoder_blocks))


def split(
    items: Sequence[DatasetImage],
    tasks: Sequence[Task],
    *,
    test: Collection[str] | None = None,
    share: float = 0.3,
    seed: int = 0,
) -> AblationSplit:
    """Split the photographs of each task into training and test, by patient.

    `test` are the stems of the test split; by default about `share` of the patients of each tone are
    sampled (for classification, of each tone and label). Segmentation needs masks, classification known
    malignancy. Raises ExplorationError if a split is empty or `test` names missing photographs,
    TrainingDataError if there are too few patients.
    """
    usable: dict[Task, list[DatasetImage]] = {
        "segmentation": [item for item in items if item.mask is not None],
        "classification": [item for item in items if item.malignant is not None],
    }
    lacking = {
        "segmentation": "no masks: give --masks",
        "classification": "no known malignancy: give --table",
    }
    for task in tasks:
        if not usable[task]:
            raise ExplorationError(
                f"{task} can't be ablated, the {len(items)} photographs have {lacking[task]}"
            )
    if test is None:
        named = {task: _sampled(task, usable[task], share, seed) for task in tasks}
    else:
        if missing := sorted(set(test) - {item.stem for item in items}):
            raise ExplorationError(
                f"{len(missing)} photographs of the test split are missing, first {missing[0]}"
            )
        named = {task: set(test) for task in tasks}
    tested = {task: [i for i in usable[task] if i.stem in named[task]] for task in tasks}
    patients = {task: {item.patient for item in tested[task]} for task in tasks}
    learned = {task: [i for i in usable[task] if i.patient not in patients[task]] for task in tasks}
    for task in tasks:
        if not (learned[task] and tested[task]):
            raise ExplorationError(
                f"{task}: {len(learned[task])} photographs to learn from and {len(tested[task])} to "
                "test on; give more, or name the test split with --test"
            )
    left_out = {i.path for t in tasks for i in usable[t]} - {
        i.path for t in tasks for i in (*learned[t], *tested[t])
    }
    return AblationSplit(
        {task: {WHOLE: items} for task, items in learned.items()},
        {task: {TEST: items} for task, items in tested.items()},
        left_out=len(left_out),
    )


class Ablation:
    """An ablation in a folder.

    Raises ExplorationError if the backbone lacks a block of the grid, or if `folder` holds another
    ablation or a damaged one. Nothing is written before `run`.
    """

    def __init__(
        self,
        parts: AblationSplit,
        backbone: Backbone,
        grid: Grid,
        settings: AblationSettings,
        folder: Path,
        paper: Mapping[int, int] | None = None,
    ) -> None:
        """`paper` is the block that is marked in the figures, by fraction in percent."""
        check_explorable(backbone, grid.blocks, grid.timesteps)
        self.parts, self.backbone, self.grid, self.folder = parts, backbone, grid, folder
        self.paper = dict(paper or {})
        self.settings = settings
        self._state = AblationState(folder, _made_with(parts, backbone, settings))

    @property
    def cells(self) -> int:
        """Return the number of cells of the grid."""
        return len(self.grid.timesteps) * sum(map(len, self._trainings().values()))

    def pending(self, timestep: int) -> dict[Task, list[Training]]:
        """Return the trainings of a timestep that are still to be done."""
        return {
            task: [x for x in of_task if not self._state.done((task, *x, timestep))]
            for task, of_task in self._trainings().items()
        }

    def metrics(self) -> list[CellMetric]:
        return self._state.metrics()

    def run(self, progress: Progress = lambda done, total: None) -> list[Path]:
        """Compute the cells that the folder lacks; returns the figures.

        Writes `state.json`, `grid.csv` and the heat maps. A killed run loses its current timestep.
        Raises ExplorationError if the folder can't be created, and what training raises.
        """
        self._state.prepare()
        cells = Cells(self.parts, self.backbone, self.settings)
        pending = {t: self.pending(t) for t in self.grid.timesteps}
        left = {t: sum(map(len, trainings.values())) for t, trainings in pending.items()}
        done = self.cells - sum(left.values())
        progress(done, self.cells)
        for timestep in [t for t, count in left.items() if count]:
            with _scratch(self.folder / ".activations") as activations:
                self._state.add(cells.at(timestep, pending[timestep], activations))
            done += left[timestep]
            progress(done, self.cells)
        return self.draw()

    def draw(self) -> list[Path]:
        """Write the heat maps of the cells that are done; returns the files."""
        return write_heat_maps(
            self.metrics(), self.grid.blocks, self.grid.timesteps, self.grid.tasks, self.folder,
            titled_weights(self.backbone.name, self.backbone.hash, is_verified(self.backbone)), self.paper,
        )  # fmt: skip

    def _trainings(self) -> dict[Task, list[Training]]:
        return {
            task: [
                (fraction, block)
                for fraction in sorted(self.parts.learned[task])
                for block in self.grid.blocks
            ]
            for task in self.grid.tasks
        }


def _sampled(task: Task, items: Sequence[DatasetImage], share: float, seed: int) -> set[str]:
    """Return the stems of a sampled test split."""
    if task == "classification":
        test = malignancy_split(items, share, seed)
        return {item.stem for item, chosen in zip(items, test, strict=True) if chosen}
    candidates = [Candidate(i.stem, i.patient, i.tone, frozenset()) for i in items]
    sampled = validation_split(candidates, share, seed)
    if not sampled.images:
        raise ExplorationError(
            f"no test split can be sampled, {sampled.note}: name one with --test"
        )
    return {items[i].stem for i in sampled.images}


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that is deleted at the end; first deletes what a killed run left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise ExplorationError(f"the folder {folder} can't be created: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made_with(
    parts: AblationSplit, backbone: Backbone, settings: AblationSettings
) -> dict[str, Any]:
    """Return what the cells depend on, photographs by the hash of their files."""
    made_with = {
        "backbone": backbone.hash[:12],
        "precision": precision_of(backbone),
        **settings.made_with(),
    }
    for task, measured in parts.measured.items():
        content = []
        for item in parts.of(task):
            mask = file_hash(item.mask) if item.mask and task == "segmentation" else None
            photograph = file_hash(item.path)
            content.append([item.stem, photograph, mask, item.tone, item.patient, item.malignant])
        used = {
            **{str(fraction): items for fraction, items in parts.learned[task].items()},
            "early stopping": parts.stopping.get(task, ()),
        }
        made_with[f"photographs for {task}"] = _digest(sorted(content, key=lambda row: str(row[0])))
        made_with[f"training part of {task}"] = _digest(_stems(used))
        made_with[f"test part of {task}"] = _digest(_stems(measured))
    return made_with


def _stems(parts: Mapping[str, Sequence[DatasetImage]]) -> dict[str, list[str]]:
    return {name: sorted(item.stem for item in items) for name, items in parts.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
