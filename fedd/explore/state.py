"""The state of an ablation on disk: the finished cells, to resume from, and the grid as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Number
from pathlib import Path
from types import UnionType
from typing import Any

from annotation_protocol.csv_files import csv_text
from fedd.errors import ExplorationError
from fedd.files import write_file

#: Version of the state's layout.
VERSION = 2

#: Name of the state's file.
STATE = "state.json"


@dataclass(frozen=True)
class CellMetric:
    """A metric of a cell, part and tone; its 95 % interval is None with too few patients.

    In files the metric's name is called `figure`.
    """

    task: str
    fraction: int  #: percent of the data that the cell was trained on
    block: int
    timestep: int
    part: str  #: what it was measured on: `validation` or `test`
    tone: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    patients: int

    def __post_init__(self) -> None:
        kinds: dict[str, type | UnionType] = {"str": str, "int": int, "float | None": Number | None}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, kinds[str(field.type)]):
                raise TypeError(f"{field.name} is {value!r} and should be {field.type}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as the state's file holds them."""
        return {"figure" if k == "metric" else k: value for k, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CellMetric:
        """Return the metric that `to_dict` wrote."""
        return cls(**{"metric" if k == "figure" else k: value for k, value in values.items()})


#: A cell of the grid: task, fraction, block, timestep.
CellKey = tuple[str, int, int, int]


class AblationState:
    """The metrics of the finished cells in `folder`, rewritten atomically with each addition.

    `made_with` is what the cells depend on; a key that only one run has is no conflict. Raises
    ExplorationError if the folder holds cells made with anything else, or an unreadable state.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self._path, self._table = folder / STATE, folder / "grid.csv"
        # As JSON returns it, for comparison with what is stored.
        self._made_with = json.loads(json.dumps({"version": VERSION, **made_with}))
        self._cells: dict[CellKey, list[CellMetric]] = {}
        if self._path.exists():
            self._read()

    def prepare(self) -> None:
        """Create the folder; raises ExplorationError if that fails."""
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExplorationError(
                f"the folder {folder} can't be created: {error.strerror}"
            ) from error

    def done(self, cell: CellKey) -> bool:
        return cell in self._cells

    def metrics(self) -> list[CellMetric]:
        """Return all metrics, ordered by task, fraction, block and timestep."""
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
        made_with, rows = _stored(self._path)
        if made_with.get("version") != VERSION:
            raise ExplorationError(
                f"{self._path} was written by another version of fedd: give another --out, or delete it "
                "to start again"
            )
        other = [
            key
            for key in made_with
            if key in self._made_with and made_with[key] != self._made_with[key]
        ]
        if other:
            raise ExplorationError(
                f"{self._path.parent} holds an ablation that was run with "
                f"{_differences(other, made_with, self._made_with)}: use the same, give another --out, or "
                f"delete {self._path.name} in it to start again"
            )
        self._made_with = {**made_with, **self._made_with}
        self._include(_metrics(self._path, rows))

    def _include(self, metrics: Iterable[CellMetric]) -> None:
        for metric in metrics:
            cell = metric.task, metric.fraction, metric.block, metric.timestep
            self._cells.setdefault(cell, []).append(metric)

    def _csv(self) -> str:
        columns = ["figure" if f.name == "metric" else f.name for f in fields(CellMetric)]
        rows = (metric.to_dict() for metric in self.metrics())
        return csv_text([columns, *([row[name] for name in columns] for row in rows)])


def _stored(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what an ablation was made with, and its rows."""
    try:
        state = json.loads(path.read_text("utf-8"))
        return {**state["made_with"]}, list(state["figures"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error


def _metrics(path: Path, rows: Iterable[Mapping[str, Any]]) -> list[CellMetric]:
    try:
        return [CellMetric.from_dict(row) for row in rows]
    except (TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ExplorationError:
    what = error.strerror if isinstance(error, OSError) else "it is damaged"
    return ExplorationError(
        f"{path} can't be read as an ablation's state, {what}: delete it to start again"
    )


def _differences(keys: Iterable[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe differing settings; of long values only the name."""
    parts = []
    for key in keys:
        values = json.dumps(before.get(key)), json.dumps(now.get(key))
        short = all(len(value) <= 15 for value in values)
        parts.append(f"{key} {values[0]}, not {values[1]}" if short else f"other {key}")
    return " and ".join(parts)
