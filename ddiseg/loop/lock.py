"""Of all rounds of a workspace one runs at a time, whoever began it; and so with servers."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ddiseg.errors import WorkspaceError


class BusyError(WorkspaceError):
    """Another process is at it."""


@contextlib.contextmanager
def one_round(root: Path) -> Iterator[None]:
    """The right to run a round on a workspace; raises BusyError where another one runs."""
    busy = "another round of the loop runs here (process {holder}): wait for it, or stop it"
    with one_at_a_time(root / "rounds.lock", busy):
        yield


@contextlib.contextmanager
def one_at_a_time(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock on `path`, which ends with the process.

    Raises BusyError, with `busy` and the number of the process as its {holder}, where it is held.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(busy.format(holder=file.read().strip() or "unknown")) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
