"""kill -9 in the middle of refresh and prelabel: nothing half-written, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddiseg.model.train import Refreshed
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace

#: Runs one step in a process of its own and kills that process at the nth call of a function.
STEP = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ddiseg.workspace.workspace import Workspace
from ddiseg.workspace import store, workspace
from ddiseg.catalogue import masks, model_versions
from ddiseg.model import predict, prediction_writer, train
from tests.fedd.conftest import QUICK
root, weights, step, where, count = sys.argv[1:]
prediction_writer.TRANSACTION = 2
owner, name = {"put": (store.Store, "put"), "rename": (os, "replace"), "add": (model_versions.ModelVersions, "add"),
               "paint": (workspace.Workspace, "put_mask"), "rows": (masks.Masks, "add_predictions"),
               "never": (store.Store, "get")}[where]
real, calls = getattr(owner, name), []
def killing(*args, **options):
    calls.append(1)
    if len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)
setattr(owner, name, killing)
w = Workspace.open(Path(root))
if step == "refresh":
    print(train.train_version(w, "tester", weights, 0, QUICK).version.name)
else:
    _, outcomes = predict.prelabel(w, w.catalogue.images.select(ids=[5, 6, 7, 8, 9]))
    print(sorted(o.outcome.value for o in outcomes))
"""


def _run(
    workspace: Workspace, weights: Path, step: str, where: str = "never", count: int = 10_000
) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(workspace.root), str(weights), step, where, str(count)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.strip()


@pytest.mark.process
@pytest.mark.parametrize(("where", "count"), [("rename", 1), ("put", 1), ("add", 1)])
def test_refresh__killed(spots: Workspace, tiny_weights: Path, where: str, count: int) -> None:
    assert _run(spots, tiny_weights, "refresh", where, count)[0] == -signal.SIGKILL
    assert list(spots.catalogue.models.all()) == []
    assert verify(spots).problems == []
    assert _run(spots, tiny_weights, "refresh") == (0, "fedd-1")
    (version,) = spots.catalogue.models.all()
    assert version.file_hash in spots.store.digests(Kind.MODEL)
    assert verify(spots).problems == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("where", "count", "possible"),
    [("paint", 1, {0}), ("paint", 4, {0, 2}), ("rows", 2, {2}), ("rows", 3, {4})],
)
def test_prelabel__killed(
    spots: Workspace,
    tiny_weights: Path,
    learn: Callable[..., Refreshed],
    where: str,
    count: int,
    possible: set[int],
) -> None:
    learn(spots)
    assert _run(spots, tiny_weights, "prelabel", where, count)[0] == -signal.SIGKILL
    kept = len(spots.catalogue.masks.newest_predictions())
    assert kept in possible  # batches are committed whole, while others are written
    assert verify(spots).problems == []
    expected = ["added"] * (5 - kept) + ["unchanged"] * kept
    assert _run(spots, tiny_weights, "prelabel") == (0, str(expected))
    assert len(spots.catalogue.masks.newest_predictions()) == 5
    assert verify(spots).problems == []
