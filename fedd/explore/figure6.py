"""The best block of each fraction, and the heat maps of an ablation: the paper's figure 6.

The paper draws the accuracy on the test. Here the best block is derived on the part that is measured first,
which in a reproduction is the validation split; on another part, the same cell is framed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedd.dataset import ALL
from fedd.explore.cells import VALIDATION, WHOLE
from fedd.explore.state import CellMetric
from fedd.figures import HeatMap, draw_heat_maps, save


@dataclass(frozen=True)
class Map:
    """One figure of a task: its metric, the label, and the ending of the file's name."""

    metric: str
    label: str
    ending: str = ""


#: The figures of each task; the metric of the first one decides which block is best.
MAPS: Mapping[str, tuple[Map, ...]] = {
    "segmentation": (Map("iou_mean", "mean IoU of the lesion"),),
    "classification": (
        Map("accuracy", "accuracy"),
        Map("roc_auc", "ROC-AUC of malignant", "-roc-auc"),
    ),
}

#: The metric of the paper's figure 6: only its map marks the paper's blocks.
PAPER_METRIC = "accuracy"

#: What decides among cells that are equal in the first metric.
_SECOND = {"segmentation": "iou_pooled", "classification": "roc_auc"}


@dataclass(frozen=True)
class BestBlock:
    """The best cell of a fraction: highest in the task's metric, then in the second one.

    `ties` are the blocks of the other cells that are equal in the first metric.
    """

    metric: CellMetric
    ties: tuple[int, ...]
    cells: int  #: that were compared

    @property
    def block(self) -> int:
        return self.metric.block

    @property
    def timestep(self) -> int:
        return self.metric.timestep


def best_blocks(metrics: Sequence[CellMetric], task: str) -> dict[int, BestBlock]:
    """Return the best block by fraction, derived on the part that was measured first."""
    of_task = [m for m in metrics if m.task == task and m.tone == ALL]
    if not of_task:
        return {}
    first = of_task[0].part
    found = {}
    for fraction in sorted({m.fraction for m in of_task}):
        cells = [m for m in of_task if (m.fraction, m.part) == (fraction, first)]
        second = {(m.block, m.timestep): m.value or 0.0 for m in cells if m.metric == _SECOND[task]}
        known = [m for m in cells if m.metric == MAPS[task][0].metric and m.value is not None]
        if not known:
            continue
        highest = max(m.value for m in known if m.value is not None)
        equal = [m for m in known if m.value is not None and m.value >= highest - 1e-9]
        best = min(
            equal,
            key=lambda m: (-second.get((m.block, m.timestep), 0.0), m.timestep, m.block),
        )
        others = sorted({m.block for m in equal} - {best.block})
        found[fraction] = BestBlock(best, tuple(others), len(known))
    return found


def value_at(
    metrics: Sequence[CellMetric], best: BestBlock, part: str, block: int | None = None
) -> CellMetric | None:
    """Return the deciding metric on a part: of the best cell, or of another block where it is highest."""
    m = best.metric
    cells = [
        x
        for x in metrics
        if (x.task, x.fraction, x.part, x.tone, x.metric)
        == (m.task, m.fraction, part, m.tone, m.metric)
        and x.value is not None
        and (
            x.block == block
            if block is not None
            else (x.block, x.timestep) == (m.block, m.timestep)
        )
    ]
    return max(cells, key=lambda x: (x.value or 0.0, -x.timestep), default=None)


def write_heat_maps(
    metrics: Sequence[CellMetric],
    blocks: Sequence[int],
    timesteps: Sequence[int],
    tasks: Sequence[str],
    folder: Path,
    backbone_name: str,
    paper: Mapping[int, int],
) -> list[Path]:
    """Write the heat maps of each task, a panel for each fraction, and of the last one by tone.

    `paper` is the block that was best in the paper, by fraction; it is marked where the metric is the
    paper's. Returns the files.
    """
    shown = [m for m in metrics if m.block in blocks and m.timestep in timesteps]
    written = []
    for task in tasks:
        best = best_blocks(shown, task)
        parts = list(dict.fromkeys(m.part for m in shown if m.task == task))
        for each in MAPS[task]:
            for part in parts:
                name = f"figure6-{task}{each.ending}{'' if part == parts[0] else f'-{part}'}.png"
                of_map = [
                    m for m in shown if (m.task, m.metric, m.part) == (task, each.metric, part)
                ]
                papers = paper if each.metric == PAPER_METRIC else {}
                panels = [
                    _panel(of_map, blocks, timesteps, best.get(fraction), fraction, each, papers)
                    for fraction in sorted({m.fraction for m in of_map})
                ]
                written += _write(
                    panels, blocks, timesteps, f"{_where(part)}, {backbone_name}", folder / name
                )
        if parts:
            written += _write_by_tone(shown, task, parts, blocks, timesteps, folder)
    return written


def _write_by_tone(
    metrics: Sequence[CellMetric],
    task: str,
    parts: Sequence[str],
    blocks: Sequence[int],
    timesteps: Sequence[int],
    folder: Path,
) -> list[Path]:
    """Write the first map of the largest fraction by tone, if a tone has enough patients for intervals."""
    each = MAPS[task][0]
    largest = max((m.fraction for m in metrics if m.task == task), default=0)
    of_map = [
        m
        for m in metrics
        if (m.task, m.metric, m.fraction, m.part) == (task, each.metric, largest, parts[0])
    ]
    tones = sorted({m.tone for m in of_map} - {ALL})
    if not any(m.low is not None for m in of_map if m.tone != ALL):
        return []
    panels = [_panel(of_map, blocks, timesteps, None, largest, each, {}, tone) for tone in tones]
    return _write(panels, blocks, timesteps, "", folder / f"figure6-{task}-by-tone.png")


def _write(
    panels: list[HeatMap],
    blocks: Sequence[int],
    timesteps: Sequence[int],
    where: str,
    path: Path,
) -> list[Path]:
    if not panels:
        return []
    save(draw_heat_maps(panels, blocks, timesteps, "decoder block", "timestep", where), path)
    return [path]


def _named(blocks: Sequence[int]) -> str:
    if len(blocks) == 1:
        return f"block {blocks[0]} reaches it"
    return f"blocks {', '.join(map(str, blocks[:-1]))} and {blocks[-1]} reach it"


def _where(part: str) -> str:
    return "on the validation split" if part == VALIDATION else "on the test"


def _panel(
    metrics: Sequence[CellMetric],
    blocks: Sequence[int],
    timesteps: Sequence[int],
    best: BestBlock | None,
    fraction: int,
    each: Map,
    paper: Mapping[int, int],
    tone: str = ALL,
) -> HeatMap:
    values = np.full((len(blocks), len(timesteps)), np.nan)
    halves, counts = [], set()
    for m in metrics:
        if (m.tone, m.fraction) != (tone, fraction):
            continue
        counts.add((m.n, m.patients))
        if m.value is not None and m.low is not None and m.high is not None:
            values[blocks.index(m.block), timesteps.index(m.timestep)] = m.value
            halves.append((m.high - m.low) / 2)
    n, patients = max(counts, default=(0, 0))
    title = each.label[:1].upper() + each.label[1:]
    title += "" if tone == ALL else f", tone {tone}"
    if fraction != WHOLE:
        title += f", {fraction} % of DDI"
    sizes = f"n = {n} photographs of {patients} patients"
    marked = {paper[fraction]: "paper's"} if paper.get(fraction) in blocks else {}
    if not halves:
        return HeatMap(values, title, f"{sizes}: too few for an interval", marked=marked)
    note = f"{sizes}; the median 95 % interval is ±{float(np.median(halves)):.2f}"
    if best is None:
        return HeatMap(values, title, note, marked=marked)
    note += f"; frame: block {best.block} at t = {best.timestep}"
    if each.metric == best.metric.metric and metrics[0].part == best.metric.part:
        note += ", the highest"
        if best.ties:
            note += f" ({_named(best.ties)} too)"
    framed = blocks.index(best.block), timesteps.index(best.timestep)
    return HeatMap(values, title, note, framed, marked)
