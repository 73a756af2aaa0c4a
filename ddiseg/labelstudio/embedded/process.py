"""Background processes that a later command identifies safely. POSIX only, as is the server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ddiseg.errors import WorkspaceError
from ddiseg.processes import started

#: Seconds that a process has to end by itself.
GRACE = 10.0


@dataclass(frozen=True)
class Process:
    """A process, identified by pid and start time, as a pid is reused."""

    pid: int
    started: str  #: opaque; equal as long as it is the same process

    @classmethod
    def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: int
    ) -> Process:
        """Start `command` so that it outlives this process and its terminal.

        Args:
            folder: its working directory; only the owner may read files that it creates.
            log: descriptor of its standard output and error.
        """
        child = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
        child.returncode = 0  # it is meant to run on: no warning from Popen
        return cls(child.pid, started(child.pid) or "ended at once")

    @property
    def alive(self) -> bool:
        return started(self.pid) == self.started

    def stop(self) -> None:
        """End the process and its children, if it still runs.

        Raises:
            WorkspaceError: it can't be ended.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive:
                return
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return
            except PermissionError as error:
                raise WorkspaceError(
                    f"process {self.pid} belongs to another user: let that user stop it"
                ) from error
            self._wait(GRACE)
        if self.alive:
            raise WorkspaceError(f"process {self.pid} does not end: restart the machine")

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.05)


@contextmanager
def attended(
    command: Sequence[str], log: IO[str], pass_fds: Collection[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `command` and wait for its end; an exception in the block ends it and its children.

    It has a process group of its own, which Ctrl+C reaches only through this process.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        process_group=0,
    )
    try:
        yield child
        child.wait()
    except BaseException:
        _end_group(child)
        raise


def _end_group(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The child's children may outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
