"""How long something takes and how much memory: the cost of a cell."""

from __future__ import annotations

import re
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from fedd.reproduce.results import Cost

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
