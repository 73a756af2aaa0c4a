"""The results of the cells on disk: one JSON file a cell, so that a run goes on where it was killed.

A result holds what was measured of each photograph (confusion matrices, probabilities); figures are
made of it later, so that another way to score needs no other training.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fedd.errors import ReproductionError
from fedd.files import write_text
from fedd.reproduce.plan import Cell

#: Of the layout of a result.
VERSION = 1


@dataclass(frozen=True)
class Cost:
    """What a cell took; `gpu_bytes` is None where no GPU was used."""

    seconds: float
    peak_rss: int  #: bytes
    gpu_bytes: int | None = None


@dataclass(frozen=True)
class Result:
    """What a cell measured, by the stem of the tested photograph."""

    cell: Cell
    learned: int  #: photographs learned from
    cost: Cost
    confusions: Mapping[str, list[list[int]]]  #: of segmentation, (C, C) pixels, rows the truth
    probabilities: Mapping[str, float]  #: of classification, that it is malignant
    threshold: float | None = None  #: of classification, chosen on the validation part


class Results:
    """A folder of results; each is written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReproductionError(f"{folder} can't be made a folder: {error.strerror}") from error

    def get(self, cell: Cell, made_with: Mapping[str, Any]) -> Result | None:
        """The result of a cell, None where it is not done.

        Raises ReproductionError where it was made with anything else, or can't be read.
        """
        path = self._path(cell)
        try:
            stored = json.loads(path.read_text("utf-8"))
            before, values = stored["made_with"], stored["result"]
            result = Result(
                **{**values, "cell": Cell(**values["cell"]), "cost": Cost(**values["cost"])}
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReproductionError(
                f"{path} can't be read as a cell's result ({error}): delete it to run the cell anew"
            ) from error
        if difference := _difference(before, _versioned(made_with)):
            raise ReproductionError(
                f"{path} was made with {difference}: run as then, give another --out, or delete the "
                "file to run the cell anew"
            )
        return result

    def put(self, result: Result, made_with: Mapping[str, Any]) -> None:
        stored = {"made_with": _versioned(made_with), "result": asdict(result)}
        write_text(self._path(result.cell), json.dumps(stored))

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.json"


def _versioned(made_with: Mapping[str, Any]) -> dict[str, Any]:
    # As JSON has it, so that what was read back compares equal.
    versioned: dict[str, Any] = json.loads(json.dumps({"version": VERSION, **made_with}))
    return versioned


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What `before` has otherwise than `now`, in words; empty where nothing."""
    there, here = _flat(before), _flat(now)
    parts = [
        f"{key} {json.dumps(there.get(key))}, not {json.dumps(here.get(key))}"
        for key in {**there, **here}
        if there.get(key) != here.get(key)
    ]
    return " and ".join(parts[:2]) + (f" and {len(parts) - 2} more" if len(parts) > 2 else "")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by their names alone: 'epochs' says more than 'settings'."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


#: Linux forgets the peak of a process's memory when 5 is written here (proc(5)).
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Meter:
    """Measures from where it is made to `read`."""

    def __init__(self) -> None:
        with suppress(OSError):  # not Linux: the peak is that of the whole process so far
            _CLEAR.write_text("5")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()

    def read(self) -> Cost:
        seconds = time.perf_counter() - self._start
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return Cost(seconds, _peak_rss(), gpu or None)


def _peak_rss() -> int:
    """Bytes."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text("utf-8")):
            return int(found.group(1)) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
