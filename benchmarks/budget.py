"""A table that is printed row by row, within a number of seconds whatever happens."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fedd.errors import DeviceError

#: Seconds after the end of the budget at which a stage that hangs is given up, with all that follow.
GRACE = 20


class Table:
    """A Markdown table of three columns: each row is printed as soon as it is measured.

    `budget` are the seconds in which a stage may begin.
    """

    def __init__(self, budget: float, out: Callable[[str], object]) -> None:
        self._end, self._out = time.monotonic() + budget, out
        self.stage_name = ""
        self.failed = False

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def head(self, above: str) -> None:
        self._out(f"{above}\n\n| What | Measured | Goal |\n|---|---|---|")

    def row(self, what: str, measured: str, goal: str = "", met: bool = True) -> None:
        verdict = f"{goal}: {'met' if met else 'missed'}" if goal else ""
        self._out(f"| {what} | {measured} | {verdict} |")

    def has_time(self, what: str, needed: float) -> bool:
        """Return whether `needed` seconds are left; prints a row that says so if not."""
        if (left := self.seconds_left) >= needed:
            return True
        self.row(what, f"not measured: it takes about {needed:.0f} s, and {left:.0f} s were left")
        return False

    def stage(self, what: str, needed: float, job: Callable[[], object]) -> None:
        """Run a stage that takes about `needed` seconds.

        Without time for it, or if it fails, a row says so and the next stage may go on: the machine may
        be hard to come by.
        """
        if not self.has_time(what, needed):
            return
        self.stage_name = what
        try:
            job()
        except (torch.OutOfMemoryError, DeviceError) as error:
            self._failed(what, "not measured: the GPU's memory ran out", error)
        except Exception as error:  # noqa: BLE001 - a defect in one stage must not cost the others
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._failed(what, f"failed: {first.replace('|', '/')}", error)

    def _failed(self, what: str, measured: str, error: Exception) -> None:
        self.failed = True
        traceback.print_exception(error)
        self.row(what, measured)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a temporary folder, for as long as the budget and its grace last.

        Then the process ends, even if a stage hangs in a compiler or a driver, and the folder is
        removed.
        """
        with tempfile.TemporaryDirectory(prefix="fedd-gpu-") as name:
            timer = threading.Timer(self.seconds_left + GRACE, self._give_up, [name])
            timer.daemon = True
            timer.start()
            try:
                yield Path(name)
            finally:
                timer.cancel()

    def _give_up(self, folder: str) -> None:
        self.row(self.stage_name, "given up: the budget of time ended, with all that follows")
        shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
        os._exit(1)
