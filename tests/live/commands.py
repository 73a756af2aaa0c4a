"""`ddiseg` commands in processes of their own."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddiseg.cli.common import run
from ddiseg.cli.main import cli
from tests.forks import FORKS


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int  #: its exit status; negative: the signal that ended it
    stdout: str
    stderr: str

    @property
    def answer(self) -> dict[str, Any]:
        """What it answered, as JSON. A failure fails the test."""
        assert self.status == 0, self.stderr
        found: dict[str, Any] = json.loads(self.stdout)
        return found


class Command:
    """One `ddiseg` command that runs, and answers in JSON."""

    def __init__(self, root: Path, *words: object, variables: Mapping[str, str] | None = None):
        name = uuid.uuid4().hex
        self._stdout, self._stderr = (root.with_name(f"{name}.{end}") for end in ("out", "err"))
        args = [*map(str, words), "--workspace", str(root), "--output", "json"]
        self._process = FORKS.Process(
            target=_run, args=(args, self._stdout, self._stderr, dict(variables or {}))
        )
        self._process.start()

    def ends_within(self, seconds: float) -> bool:
        """Wait, at most so long; whether it has ended."""
        self._process.join(max(0.0, seconds))
        return self._process.exitcode is not None

    def kill(self) -> Done:
        """SIGKILL: no handler runs, nothing is tidied up. It may have ended before."""
        self._process.kill()
        return self.done()

    def done(self) -> Done:
        """Wait for its end."""
        assert self.ends_within(300), "a command does not end"
        status = self._process.exitcode
        assert status is not None
        done = Done(status, *(p.read_text() if p.exists() else "" for p in self._files))
        for path in self._files:
            path.unlink(missing_ok=True)
        self._process.close()
        return done

    @property
    def _files(self) -> tuple[Path, Path]:
        return self._stdout, self._stderr


def _run(args: list[str], stdout: Path, stderr: Path, variables: Mapping[str, str]) -> None:
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.update(variables)
    sys.exit(run(cli, args))
