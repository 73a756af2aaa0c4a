"""Of all rounds of a workspace one runs at a time, whoever began it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ddiseg.errors import WorkspaceError

FILE = "rounds.lock"


class BusyError(WorkspaceError):
    """Another round runs on this workspace."""


@contextlib.contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Hold the workspace's lock, which ends with the process; raises BusyError where it is held."""
    path = root / FILE
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = file.read().strip() or "unknown"
            raise BusyError(
                f"another round of the loop runs here (process {holder}): wait for it, or stop it"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
