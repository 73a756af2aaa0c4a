"""A fair turn at SQLite's single writer lock, within a process and between processes.

SQLite gives its lock to whoever asks at the right moment: its busy handler sleeps longer the longer it
has waited, so that a process which writes again at once overtakes all others. Here writers stand in
line. Threads of a process are served in the order in which they came. Of each process one thread waits
for a lock file beside the database; who holds it is next, waits for the database alone, and gives the
lock file away with the database in hand. Who has just written finds the next one in its way.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

#: Seconds from one look at the lock to the next: of a new writer, and of one that has waited long.
_SLOW, _FAST = 0.010, 0.004

#: And of the one that is next.
_NEXT = 0.001

#: Seconds after which a writer looks as often as it can.
_LONG = 1.0


class TurnTimeoutError(Exception):
    """The turn did not come in time."""


class FairLock:
    """The line of writers of one SQLite file."""

    def __init__(self, file: Path | None) -> None:
        """Make the line; `file` is the database's, None for one in memory."""
        self._threads = _Line()
        self._database = file

    @contextlib.contextmanager
    def turn(self, until: float) -> Iterator[None]:
        """Be the next writer; the database's own lock must be taken inside.

        Args:
            until: a moment of time.monotonic().

        Raises:
            TurnTimeoutError: it did not come until then.
        """
        with self._threads.turn(until):
            release = self._acquire(until)
            try:
                yield
            finally:
                release()

    def _acquire(self, until: float) -> Callable[[], object]:
        """Take the lock file; returns what gives it up.

        Where the disk has no locks nobody waits for it: then only SQLite's lock counts.
        """
        if self._database is None:
            return _nothing
        try:
            # Who may write the database may stand in its line.
            mode = self._database.stat().st_mode & 0o777
            file = self._database.with_name(f"{self._database.name}-writers")
            return (
                _on_windows(file, until) if sys.platform == "win32" else _flock(file, mode, until)
            )
        except (OSError, NotImplementedError):  # a network disk, or a folder that is read-only
            return _nothing


def _nothing() -> None:
    pass


def _flock(file: Path, mode: int, until: float) -> Callable[[], object]:
    """Take a lock file. FileLock would open it for each look, which ten waiting writers feel."""
    import fcntl

    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        os.fchmod(descriptor, mode)  # whatever the umask is
    except FileExistsError:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in polls(until):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return partial(os.close, descriptor)
        raise TurnTimeoutError
    except BaseException:
        os.close(descriptor)
        raise


def _on_windows(file: Path, until: float) -> Callable[[], object]:
    lock = FileLock(file)
    for _ in polls(until):
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            return lock.release
    raise TurnTimeoutError


def polls(until: float, *, often: bool = False) -> Iterator[None]:
    """Yield until a moment, at first seldom and then often: who has waited longer looks more often.

    Args:
        often: from the beginning, for the one whose turn it is.
    """
    began = time.monotonic()
    while (now := time.monotonic()) < until:
        yield
        pause = _NEXT if often else max(_FAST, _SLOW * (1 - (now - began) / _LONG))
        time.sleep(min(pause, max(0.0, until - now)))
    yield


class _Line:
    """Threads that wait, the first one first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextlib.contextmanager
    def turn(self, until: float) -> Iterator[None]:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
        try:
            with self._changed:
                if not self._changed.wait_for(
                    lambda: self._waiting[0] is ticket, max(0.0, until - time.monotonic())
                ):
                    raise TurnTimeoutError
            yield
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()
