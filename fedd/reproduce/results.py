"""Results of the cells on disk: one JSON file each, so that a killed run can be resumed.

A result holds measurements of each photograph (confusion matrices, probabilities); scores are computed
from them later, so that another score needs no new training.
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
from fedd.files import write_file
from fedd.reproduce.plan import Cell

#: Writing 5 here resets the peak of a process's memory on Linux (proc(5)).
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

#: Version of a result's layout: 2 holds validation and every photograph of the classification tests.
VERSION = 2


@dataclass(frozen=True)
class Cost:
    """Time and memory of a cell; `gpu_bytes` is None without a GPU."""

    seconds: float
    peak_rss: int  #: bytes
    gpu_bytes: int | None = None


class Meter:
    """Measures time and memory from its creation to `read`."""

    def __init__(self) -> None:
        with suppress(OSError):  # not Linux: the peak is that of the whole process
            _CLEAR.write_text("5")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()

    def read(self) -> Cost:
        seconds = time.perf_counter() - self._start
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return Cost(seconds, _peak_rss(), gpu or None)


@dataclass(frozen=True)
class Result:
    """Measurements of a cell, by stem, of every photograph that it is tested or validated on."""

    cell: Cell
    learned: int  #: number of training photographs
    cost: Cost
    confusions: Mapping[str, list[list[int]]]  #: of segmentation, (C, C) pixels, rows are the truth
    probabilities: Mapping[str, float]  #: of classification, of malignancy


class OtherInputsError(ReproductionError):
    """A stored result that was made with other photographs, settings or weights."""

    def __init__(self, path: Path, difference: str) -> None:
        self.difference = difference
        super().__init__(
            f"{path} was made with {difference}: use the same, give another --out, or delete the file to "
            "run the cell again"
        )


class ResultStore:
    """A folder of results; each is written atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Create the folder; raises ReproductionError if that fails."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReproductionError(
                f"the folder {self.folder} can't be created: {error.strerror}"
            ) from error

    def get(
        self, cell: Cell, made_with: Mapping[str, Any], photographs: int | None = None
    ) -> Result | None:
        """Return the result of a cell, None if it is missing.

        `photographs` is how many it is trained and measured on now. Raises OtherInputsError if it was
        made with anything else, and ReproductionError if it can't be read.
        """
        path = self._path(cell)
        try:
            stored = json.loads(path.read_text("utf-8"))
            before, values = stored["made_with"], stored["result"]
            if (version := before["version"]) == VERSION:
                result = Result(
                    **{**values, "cell": Cell(**values["cell"]), "cost": Cost(**values["cost"])}
                )
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise ReproductionError(
                f"{self.folder} is no folder: give a folder as --out"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise ReproductionError(
                f"{path} can't be read as a cell's result, {what}: delete it to run the cell again"
            ) from error
        if version != VERSION:
            raise ReproductionError(
                f"{path} was written by another version of this program (layout {version}, now "
                f"{VERSION}), whose tests are others: give another --out, or delete {self.folder} to run "
                "its cells again (the features beside it are used again)"
            )
        then = result.learned + len(result.confusions) + len(result.probabilities)
        if difference := _difference(before, _versioned(made_with), then, photographs):
            raise OtherInputsError(path, difference)
        return result

    def put(self, result: Result, made_with: Mapping[str, Any]) -> None:
        stored = {"made_with": _versioned(made_with), "result": asdict(result)}
        write_file(self._path(result.cell), json.dumps(stored))

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.json"


def _versioned(made_with: Mapping[str, Any]) -> dict[str, Any]:
    # As JSON returns it, for comparison with what is stored.
    versioned: dict[str, Any] = json.loads(json.dumps({"version": VERSION, **made_with}))
    return versioned


def _difference(
    before: Mapping[str, Any], now: Mapping[str, Any], used_then: int, used_now: int | None
) -> str:
    """Describe how `before` differs from `now`; empty if it does not.

    Photographs differ by a hash, which says nothing to a person: they are counted instead.
    """
    old, new = _flat(before), _flat(now)
    counts = f" ({used_then} then, {used_now} now)" if used_now not in (None, used_then) else ""
    parts = [
        f"other photographs{counts}"
        if key == "photographs"
        else f"{key} {json.dumps(old.get(key))}, not {json.dumps(new.get(key))}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    return " and ".join(parts[:2]) + (f" and {len(parts) - 2} more" if len(parts) > 2 else "")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values by their innermost names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def _peak_rss() -> int:
    """Return the peak of the process's memory in bytes."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text("utf-8")):
            return int(found.group(1)) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
