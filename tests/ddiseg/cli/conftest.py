"""The command line, run in this process: what it prints where, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ddiseg.cli.common import run
from ddiseg.cli.main import cli
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class Result:
    """How one command line ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def ddiseg(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """ddiseg("--workspace", path, "status"): the result of that command line."""
    monkeypatch.delenv("DDISEG_WORKSPACE", raising=False)

    def call(*args: object) -> Result:
        capsys.readouterr()
        status = run(cli, [str(arg) for arg in args])
        printed = capsys.readouterr()
        return Result(status, printed.out, printed.err)

    return call


@pytest.fixture
def here(ddiseg: Callable[..., Result], workspace: Workspace) -> Callable[..., Result]:
    """here("status"): that command line in the workspace."""
    return lambda *words: ddiseg("--workspace", workspace.root, *words)
