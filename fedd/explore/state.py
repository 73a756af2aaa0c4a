"""The cells of an ablation on disk: what is done, so that a run goes on, and the grid as a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from fedd.errors import ExplorationError
from fedd.files import write_text

#: Of the state's layout.
VERSION = 1

#: The name of all tones together.
ALL = "all"


@dataclass(frozen=True)
class CellMetric:
    """One figure of one cell; `value` and its 95 % interval are None where too few patients stand behind it."""

    task: str
    block: int
    timestep: int
    tone: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    patients: int


#: A cell of the grid: task, block, timestep.
CellKey = tuple[str, int, int]


class AblationState:
    """The figures of the cells that are done, in `folder`; written anew, whole, with each addition.

    `made_with` is what the cells depend on; a key that only one run has is no contradiction. Raises
    ExplorationError where the folder holds cells that were made with anything else, or a state that
    can't be read.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self._path, self._table = folder / "state.json", folder / "grid.csv"
        # As JSON has it, so that what was read back compares equal.
        self._made_with = json.loads(json.dumps({"version": VERSION, **made_with}))
        self._cells: dict[CellKey, list[CellMetric]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExplorationError(f"{folder} can't be made a folder: {error.strerror}") from error
        if self._path.exists():
            self._read()

    def done(self, cell: CellKey) -> bool:
        return cell in self._cells

    def figures(self) -> list[CellMetric]:
        """All figures, ordered by task, block and timestep."""
        return [figure for cell in sorted(self._cells) for figure in self._cells[cell]]

    def add(self, figures: Iterable[CellMetric]) -> None:
        """Keep the figures of cells; raises OutputError where they can't be written."""
        self._include(figures)
        rows = [asdict(figure) for figure in self.figures()]
        write_text(
            self._path, json.dumps({"made_with": self._made_with, "figures": rows}, indent=1)
        )
        write_text(self._table, self._csv())

    def _read(self) -> None:
        try:
            state = json.loads(self._path.read_text("utf-8"))
            made_with = state["made_with"]
            figures = [CellMetric(**row) for row in state["figures"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExplorationError(
                f"{self._path} can't be read as an ablation's state: {error}; delete it to start anew"
            ) from error
        other = [
            key
            for key in made_with
            if key in self._made_with and made_with[key] != self._made_with[key]
        ]
        if other:
            raise ExplorationError(
                f"{self._path.parent} holds an ablation that was run with {_differences(other, made_with, self._made_with)}: "
                "run it as then, or give another --out"
            )
        self._made_with = {**made_with, **self._made_with}
        self._include(figures)

    def _include(self, figures: Iterable[CellMetric]) -> None:
        for figure in figures:
            cell = figure.task, figure.block, figure.timestep
            self._cells.setdefault(cell, []).append(figure)

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(field.name for field in fields(CellMetric))
        writer.writerows(astuple(figure) for figure in self.figures())
        return text.getvalue()


def _differences(keys: Iterable[str], there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs; of what is long, only its name."""
    parts = []
    for key in keys:
        values = json.dumps(there.get(key)), json.dumps(here.get(key))
        short = all(len(value) <= 40 for value in values)
        parts.append(f"{key} {values[0]}, not {values[1]}" if short else f"other {key}")
    return " and ".join(parts)
