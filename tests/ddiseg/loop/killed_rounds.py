"""Rounds in processes of their own, to be killed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.folder import Folder
from ddiseg.loop.options import RoundOptions
from ddiseg.loop.round import run_round
from ddiseg.model import train as refreshing
from ddiseg.workspace.workspace import Workspace
from tests.fedd.conftest import QUICK
from tests.forks import FORKS


@dataclass(frozen=True)
class Site:
    """A workspace, its server, and the weights that its rounds train with."""

    root: Path
    url: str
    token: str
    weights: Path


def run(site: Site, kill_after: float | None = None) -> float | None:
    """Run a round; the seconds it took, or None where it was killed, after so many."""
    started = time.monotonic()
    process = FORKS.Process(target=_round, args=(site,))
    process.start()
    process.join(kill_after)
    killed = process.exitcode is None
    process.kill()
    process.join()
    assert killed or process.exitcode == 0, "the round failed"
    process.close()
    return None if killed else time.monotonic() - started


def _round(site: Site) -> None:
    torch.set_num_threads(1)
    refreshing.default_settings = lambda _config: QUICK
    connection = Connection(site.url, site.token, embedded=True, media=Folder(site.root).media)
    options = RoundOptions(every=1, draw=4, max_drop=1.0, backbone=str(site.weights), device="cpu")
    steps = run_round(Workspace.open(site.root), lambda: connection, options, "manager")
    os._exit(int(any(step.failed for step in steps)))
