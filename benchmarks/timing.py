"""Timing two ways of one job side by side, turn by turn, so that both meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def paired(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Median seconds of each, measured in turns after one unmeasured round."""
    ours(), peer()
    measured = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    return statistics.median(m[0] for m in measured), statistics.median(m[1] for m in measured)
