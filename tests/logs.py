"""Watching what ddiseg logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def logged(react: Callable[[str], object] | None = None) -> Iterator[list[str]]:
    """Collect the lines that ddiseg logs; `react` is called with each and may raise."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            if react is not None:
                react(lines[-1])

    logger, handler = logging.getLogger("ddiseg"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
