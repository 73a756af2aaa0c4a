"""A process that runs rounds in children of its own and kills them at a given moment.

A child is a copy of this process with everything imported, so that a round begins at once and a
moment drawn at random falls into its work. Reads lines `SECONDS` (or `-` for a whole round) from
stdin, answers each with `killed` or `done SECONDS`.

    python -m tests.ddiseg.rounds.killed_rounds ROOT URL TOKEN WEIGHTS
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.folder import Folder
from ddiseg.loop import refresh as refreshing
from ddiseg.rounds.round import RoundOptions, run_round
from ddiseg.workspace import Workspace
from tests.fedd.conftest import QUICK


def main() -> None:
    root, url, token, weights = sys.argv[1:]
    torch.set_num_threads(1)
    for line in sys.stdin:
        started = time.monotonic()
        child = os.fork()
        if not child:
            _run(Path(root), url, token, weights)
        seconds = line.strip()
        if seconds != "-":
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed", flush=True)
        else:
            assert os.WEXITSTATUS(status) == 0, "the round failed"
            print(f"done {time.monotonic() - started:.3f}", flush=True)


def _run(root: Path, url: str, token: str, weights: str) -> None:
    failed = True
    try:
        refreshing.default_settings = lambda _config: QUICK
        connection = Connection(url, token, embedded=True, media=Folder(root).media)
        options = RoundOptions(every=1, draw=4, tolerance=1.0, backbone=weights, device="cpu")
        steps = run_round(Workspace.open(root), lambda: connection, options, "manager")
        failed = any(step.failed for step in steps)
        if failed:
            print([step for step in steps if step.failed], file=sys.stderr, flush=True)
    finally:
        os._exit(int(failed))


if __name__ == "__main__":
    main()
