"""Lanes: threads of a CPU on each of which one image passes at a time.

On a CPU, images side by side on threads of their own are faster than one image on all threads: no
thread waits for another at the end of each operation (docs/decisions/0027).
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

_TURN = threading.Lock()


def lanes(count: int) -> ThreadPoolExecutor:
    """Return a pool of `count` threads that share torch's threads of the calling thread equally."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "lanes")
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # torch sets a thread's number at its first use, and would undo ours
        torch.set_num_threads(max(1, threads // count))
        started.wait()

    with _TURN:
        try:
            for _ in range(count):
                pool.submit(start)
            started.wait()
        finally:
            torch.set_num_threads(threads)  # each thread has set it for those that start later, too
    return pool
