"""Jobs on threads, their results in order, with bounds on what waits."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

#: Fewest and most threads by default. More than cores: some wait for a disk or a network.
FEWEST_THREADS, MOST_THREADS = 4, 16

#: Pixels that results waiting and running together hold by default: 64 photographs of 1024 x 1024, a
#: GPU's batch, or 2 of 24 MP.
PIXELS = 2**26

#: Pixels that a running job is expected to hold before one has ended, and how many of the last count.
EXPECTED_PIXELS, REMEMBERED = 4_000_000, 32


class Sized(Protocol):
    """A result that takes memory."""

    @property
    def opened_pixels(self) -> int:
        """Pixels that were in memory while the job ran."""
        ...

    @property
    def held_pixels(self) -> int:
        """Pixels that are in memory as long as the result is."""
        ...


S = TypeVar("S", bound=Sized)


def default_workers() -> int:
    """Return the number of threads to decode with on this machine."""
    return max(FEWEST_THREADS, min(MOST_THREADS, len(os.sched_getaffinity(0))))


def prefetch(
    jobs: Iterable[Callable[[], S]], workers: int, ahead: int, pixels: int = PIXELS
) -> Generator[S, None, None]:
    """Yield the results of jobs in their order; they run on threads while the caller works.

    An exception of a job is raised in its turn. A generator that is closed, or left by an exception,
    ends its threads before it returns.

    Args:
        ahead: the most jobs that run, or whose results wait.
        pixels: the most that these hold together; a job that needs more runs alone.
    """
    waiting: deque[Future[S]] = deque()
    sizes: deque[int] = deque(maxlen=REMEMBERED)
    pool = ThreadPoolExecutor(workers, "prefetch")
    unstarted = iter(jobs)
    try:
        while True:
            while _has_room(waiting, sizes, ahead, pixels):
                job = next(unstarted, None)
                if job is None:
                    break
                waiting.append(pool.submit(job))
            if not waiting:
                return
            result = waiting.popleft().result()
            sizes.append(result.opened_pixels)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _has_room(waiting: deque[Future[S]], sizes: deque[int], ahead: int, pixels: int) -> bool:
    """Return whether one more job may start: its size is expected to be the largest of the last ones."""
    if not waiting:
        return True
    if len(waiting) >= ahead:
        return False
    expected = max(sizes, default=EXPECTED_PIXELS)
    done = [f for f in waiting if f.done() and not f.cancelled() and f.exception() is None]
    held = sum(f.result().held_pixels for f in done)
    return held + expected * (len(waiting) - len(done) + 1) <= pixels
