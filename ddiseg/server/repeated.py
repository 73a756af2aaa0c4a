"""A log in which a message that comes again and again stands once, with how often it came."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds in which a message is logged once.
SECONDS = 30.0

#: Messages remembered.
_MOST = 200

#: Loggers of a server; a filter works on what is logged by exactly these, or by a handler.
_LOGGERS = ("uvicorn.error", "asyncio")


class RepeatedMessages(logging.Filter):
    """Lets a message through once in `seconds`; numbers in it make no difference."""

    def __init__(self, seconds: float = SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()  #: (since, held back)

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        key = f"{record.name} {record.levelno} {re.sub(r'0x[0-9a-f]+|[0-9]+', '#', text)[:200]}"
        now = time.monotonic()
        with self._lock:
            since, held_back = self._seen.pop(key, (-math.inf, 0))
            if now - since < self._seconds:
                self._seen[key] = since, held_back + 1
                return False
            self._seen[key] = now, 0
            if len(self._seen) > _MOST:
                self._seen.popitem(last=False)
        if held_back:
            record.msg = f"{text} ({held_back} more in {now - since:.0f} s)"
            record.args = ()
        return True


@contextmanager
def repeated_messages_once(seconds: float = SECONDS) -> Iterator[None]:
    """Log what the web server and its event loop say once in so many seconds."""
    found = RepeatedMessages(seconds)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(found)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(found)
