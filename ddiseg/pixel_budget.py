"""A bound on the pixels that are unpacked at one time, whatever the number of files and threads.

A PNG of half a megabyte may unpack to 178 megapixels. Unpacking takes about 7 bytes a pixel at its
peak: 4 in Pillow, 3 in the array.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

#: Pixels unpacked at one time: the largest photograph alone, or 15 of 12 megapixels.
LIMIT = 180_000_000


class PixelBudget:
    """A semaphore that counts pixels. Who needs more than there are waits until nothing else runs."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.held = 0
        self._waiting: deque[object] = deque()
        self._condition = threading.Condition()
        self._thread = threading.local()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for `pixels` in order of arrival, and hold them; inside another hold, do nothing."""
        if getattr(self._thread, "holds", False):
            yield
            return
        ticket = object()
        with self._condition:
            self._waiting.append(ticket)
            self._condition.wait_for(
                lambda: (
                    self._waiting[0] is ticket
                    and (self.held == 0 or self.held + pixels <= self.limit)
                )
            )
            self._waiting.popleft()
            self.held += pixels
            self._condition.notify_all()
        self._thread.holds = True
        try:
            yield
        finally:
            self._thread.holds = False
            with self._condition:
                self.held -= pixels
                self._condition.notify_all()


#: The budget of this process.
BUDGET = PixelBudget()
