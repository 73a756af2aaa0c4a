"""Masks on their way to the store: hashed, encoded and written on threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from ddiseg.errors import InputError

M = TypeVar("M")

#: Threads that encode and write masks: mostly they wait for the disk, which joins their flushes.
THREADS = 8

#: Masks held in memory, in work or waiting for a thread.
HELD = 16


class MaskWriter(Generic[M]):
    """Runs `store`, which stores a mask and returns its hash, on threads."""

    def __init__(self, store: Callable[[M], str]) -> None:
        self._store = store
        self._held = threading.Semaphore(HELD)
        self._threads = ThreadPoolExecutor(THREADS, "mask")

    def add(self, mask: M) -> Future[str]:
        """Hand in a mask; waits while too many are held. The future raises what `store` raises.

        It raises InputError for a mask that the memory does not suffice for.
        """
        self._held.acquire()
        try:
            return self._threads.submit(self._run, mask)
        except BaseException:
            self._held.release()
            raise

    def end(self, *, drop: bool = False) -> None:
        """Take no more masks; with `drop`, cancel those that no thread has begun."""
        self._threads.shutdown(wait=False, cancel_futures=drop)

    def join(self) -> None:
        """Wait for the threads."""
        self._threads.shutdown()

    def _run(self, mask: M) -> str:
        try:
            return self._store(mask)
        except MemoryError as error:
            raise InputError("its mask needs more memory than this computer has left") from error
        finally:
            self._held.release()
