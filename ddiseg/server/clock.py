"""Rounds by time: what no webhook told of is seen all the same, and a refresh is due by age."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Clock:
    """Calls `tick` when it starts and every so many seconds, on a thread; never with 0 seconds.

    `tick` must return at once and raise nothing: `JobsWanted.want` does.
    """

    def __init__(self, seconds: float, tick: Callable[[], object]) -> None:
        self._seconds, self._tick = seconds, tick
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        if self._seconds:
            self._thread.start()

    def stop(self) -> None:
        """No tick comes after this."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._tick()
            self._stopped.wait(self._seconds)
