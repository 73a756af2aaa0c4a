"""A lock that is given in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import AbstractContextManager
from types import TracebackType


class Turns(AbstractContextManager[None]):
    """A lock whose waiting threads get it first come, first served.

    `threading.Lock` may go to the thread that has just released it, again and again: a job of many
    batches would then keep out a request that waits for one.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the turn; returns whether it came within `timeout` seconds (None: however long)."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            if mine.wait(timeout):
                return True
        except BaseException:  # Ctrl+C while waiting
            if self._is_mine_after_all(mine):
                self.release()
            raise
        return self._is_mine_after_all(mine)

    def release(self) -> None:
        """Give the turn to the one that waits longest."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False

    def _is_mine_after_all(self, mine: threading.Event) -> bool:
        """Wait no longer; returns whether the turn had come by then."""
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
            return True

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
