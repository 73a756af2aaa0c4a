"""The block x timestep grid of the paper's figure 6: how well each block performs at each timestep.

A cell is one block at one timestep: probes (`fedd.probes.training`) trained on it, measured by the lesion's
IoU, and a classifier (`fedd.malignancy.classifier`), measured by ROC-AUC. Each photograph passes through the
backbone once per timestep, for all blocks and both tasks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedd.backbone import DIFFUSION_STEPS, IMAGENET_256, Backbone, UNetConfig
from fedd.dataset import ALL, DatasetImage
from fedd.errors import ExplorationError
from fedd.explore.cells import AblationSettings, AblationSplit, Cells, Task
from fedd.explore.clusters import check_explorable
from fedd.explore.state import AblationState, CellMetric
from fedd.figures import HeatMap, draw_heat_maps, save
from fedd.validation import Candidate, malignancy_split, validation_split
from fedd.weights.files import file_hash

TASKS: tuple[Task, ...] = ("segmentation", "classification")

#: The metric in the heat map, by task, and its label.
SHOWN: dict[Task, tuple[str, str]] = {
    "segmentation": ("iou_mean", "mean IoU of the lesion"),
    "classification": ("roc_auc", "ROC-AUC of malignant"),
}

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

    @property
    def cells(self) -> int:
        return len(self.blocks) * len(self.timesteps) * len(self.tasks)


def default_blocks(config: UNetConfig) -> tuple[int, ...]:
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
    return AblationSplit(learned, tested, len(left_out))


def ablate(
    parts: AblationSplit,
    backbone: Backbone,
    grid: Grid,
    settings: AblationSettings,
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> AblationState:
    """Compute the cells that `folder` lacks.

    Writes `state.json`, `grid.csv` and the heat maps into `folder`. A killed run loses its current
    timestep. Raises ExplorationError if `folder` holds another ablation or the backbone lacks a block,
    and what training raises.
    """
    check_explorable(backbone, grid.blocks, grid.timesteps)
    state = AblationState(folder, _made_with(parts, backbone, settings))
    cells = Cells(parts, backbone, settings)
    total = grid.cells
    done = 0
    for timestep in grid.timesteps:
        pending = {
            task: [b for b in grid.blocks if not state.done((task, b, timestep))]
            for task in grid.tasks
        }
        done += len(grid.tasks) * len(grid.blocks) - sum(map(len, pending.values()))
        if any(pending.values()):
            with _scratch(folder / ".activations") as activations:
                state.add(cells.at(timestep, pending, activations))
            done += sum(map(len, pending.values()))
        progress(done, total)
    write_heat_maps(state.metrics(), grid, folder, backbone.name)
    return state


def write_heat_maps(
    metrics: Sequence[CellMetric], grid: Grid, folder: Path, backbone_name: str
) -> list[Path]:
    """Write the paper's figure 6 for each task, and the same by tone; returns the files."""
    written = []
    for task in grid.tasks:
        metric, label = SHOWN[task]
        of_task = [m for m in metrics if (m.task, m.metric) == (task, metric)]
        tones = sorted({m.tone for m in of_task} - {ALL})
        files = {
            f"figure6-{task}.png": [_heat_map(of_task, grid, ALL, f"{label}, {backbone_name}")],
            f"figure6-{task}-by-tone.png": [
                _heat_map(of_task, grid, tone, f"{label}, tone {tone}") for tone in tones
            ],
        }
        for name, panels in files.items():
            figure = draw_heat_maps(
                panels, grid.blocks, grid.timesteps, "decoder block", "timestep"
            )
            save(figure, folder / name)
            written.append(folder / name)
    return written


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
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made_with(
    parts: AblationSplit, backbone: Backbone, settings: AblationSettings
) -> dict[str, Any]:
    """Return what the cells depend on, photographs by the hash of their files."""
    made_with = {"backbone": backbone.hash[:12], **settings.made_with()}
    for task, tested in parts.tested.items():
        content = []
        for item in (*parts.learned[task], *tested):
            mask = file_hash(item.mask) if item.mask and task == "segmentation" else None
            photograph = file_hash(item.path)
            content.append([item.stem, photograph, mask, item.tone, item.patient, item.malignant])
        stems = sorted(item.stem for item in tested)
        made_with[f"photographs for {task}"] = _digest(sorted(content, key=lambda row: str(row[0])))
        made_with[f"test part of {task}"] = _digest(stems)
    return made_with


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _heat_map(metrics: Sequence[CellMetric], grid: Grid, tone: str, title: str) -> HeatMap:
    values = np.full((len(grid.blocks), len(grid.timesteps)), np.nan)
    halves, counts = [], set()
    for m in metrics:
        if m.tone != tone or m.block not in grid.blocks or m.timestep not in grid.timesteps:
            continue
        counts.add((m.n, m.patients))
        if m.value is not None and m.low is not None and m.high is not None:
            values[grid.blocks.index(m.block), grid.timesteps.index(m.timestep)] = m.value
            halves.append((m.high - m.low) / 2)
    n, patients = max(counts, default=(0, 0))
    sizes = f"n = {n} photographs of {patients} patients"
    if not halves:
        return HeatMap(values, title, f"{sizes}: too few to say")
    interval = f"the median 95 % interval is ±{float(np.median(halves)):.2f}"
    return HeatMap(values, title, f"{sizes}; {interval}; frame: highest")
