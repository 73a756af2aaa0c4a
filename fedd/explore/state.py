"""The state of an ablation on disk: the finished cells, to resume from, and the grid as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from annotation_protocol.csv_files import csv_text
from fedd.errors import ExplorationError
from fedd.files import write_file

#: Version of the state's layout.
VERSION = 1


@dataclass(frozen=True)
class CellMetric:
    """A metric of a cell and tone; its 95 % interval is None with too few patients.

    In files the metric's name is called `figure`.
    """

    task: str
    block: int
    timestep: int
    tone: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    patients: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as the state's file holds them."""
        return {"figure" if k == "metric" else k: value for k, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CellMetric:
        """Return the metric that `to_dict` wrote."""
        return cls(**{"metric" if k == "figure" else k: value for k, value in values.items()})


#: A cell of the grid: task, block, timestep.
CellKey = tuple[str, int, int]


class AblationState:
    """The metrics of the finished cells in `folder`, rewritten atomically with each addition.

    `made_with` is what the cells depend on; a key that only one run has is no conflict. Raises
    ExplorationError if the folder holds cells made with anything else, or an unreadable state.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self._path, self._table = folder / "state.json", folder / "grid.csv"
        # As JSON returns it, for comparison with what is stored.
        self._made_with = json.loads(json.dumps({"version": VERSION, **made_with}))
        self._cells: dict[CellKey, list[CellMetric]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExplorationError(
                f"the folder {folder} can't be created: {error.strerror}"
            ) from error
        if self._path.exists():
            self._read()

    def done(self, cell: CellKey) -> bool:
        return cell in self._cells

    def metrics(self) -> list[CellMetric]:
        """Return all metrics, ordered by task, block and timestep."""
        return [metric for cell in sorted(self._cells) for metric in self._cells[cell]]

    def add(self, metrics: Iterable[CellMetric]) -> None:
        """Store the metrics of cells; raises OutputError if they can't be written."""
        self._include(metrics)
        rows = [metric.to_dict() for metric in self.metrics()]
        write_file(
            self._path, json.dumps({"made_with": self._made_with, "figures": rows}, indent=1)
        )
        write_file(self._table, self._csv())

    def _read(self) -> None:
        try:
            state = json.loads(self._path.read_text("utf-8"))
            made_with = state["made_with"]
            metrics = [CellMetric.from_dict(row) for row in state["figures"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExplorationError(
                f"{self._path} can't be read as an ablation's state: {error}; delete it to start again"
            ) from error
        other = [
            key
            for key in made_with
            if key in self._made_with and made_with[key] != self._made_with[key]
        ]
        if other:
            raise ExplorationError(
                f"{self._path.parent} holds an ablation that was run with {_differences(other, made_with, self._made_with)}: "
                "use the same, or give another --out"
            )
        self._made_with = {**made_with, **self._made_with}
        self._include(metrics)

    def _include(self, metrics: Iterable[CellMetric]) -> None:
        for metric in metrics:
            cell = metric.task, metric.block, metric.timestep
            self._cells.setdefault(cell, []).append(metric)

    def _csv(self) -> str:
        columns = ["figure" if f.name == "metric" else f.name for f in fields(CellMetric)]
        rows = (metric.to_dict() for metric in self.metrics())
        return csv_text([columns, *([row[name] for name in columns] for row in rows)])


def _differences(keys: Iterable[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe differing settings; of long values only the name."""
    parts = []
    for key in keys:
        values = json.dumps(before.get(key)), json.dumps(now.get(key))
        short = all(len(value) <= 40 for value in values)
        parts.append(f"{key} {values[0]}, not {values[1]}" if short else f"other {key}")
    return " and ".join(parts)
