"""A server without a network, beside a workspace that may have a model."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from ddiseg.catalogue import JobKind
from ddiseg.catalogue.leases import SERVE
from ddiseg.model.train import train_version
from ddiseg.server.app import Backend, create_app
from ddiseg.server.auth import Credentials
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.server.desk import Desk, predict_request
from tests.fedd.conftest import QUICK, TINY

CREDENTIALS = Credentials("ddiseg", "correct horse", "battery staple")
MAX_BODY = 100_000

RECORDED = Path(__file__).parents[4] / "shared" / "reference" / "label_studio_ml_requests.json"


@dataclass
class Served:
    """A server with its client, its log, and the rounds that were run."""

    workspace: Workspace
    backend: Backend
    client: TestClient
    log: pytest.LogCaptureFixture
    done: list[JobKind] = field(default_factory=list)

    def post(self, path: str, body: Any, **more: Any) -> Any:
        return self.client.post(path, json=body, auth=("ddiseg", "correct horse"), **more)

    def send(self, path: str, body: bytes | Iterator[bytes], **more: Any) -> Any:
        """Post a body as it is."""
        return self.client.post(path, content=body, auth=("ddiseg", "correct horse"), **more)

    def predict(self, *tasks: dict[str, Any], context: Any = None) -> Any:
        """The answer to a /predict for tasks."""
        return self.post("/predict", predict_request(*tasks, context=context)).json()

    def get(self, path: str) -> Any:
        return self.client.get(path, auth=("ddiseg", "correct horse"))

    def metric(self, line: str) -> float:
        """The value of one line of /metrics; 0 where there is no such line."""
        found = [x for x in self.get("/metrics").text.splitlines() if x.rpartition(" ")[0] == line]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors: more threads cost more than they give."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recorded() -> dict[str, dict[str, Any]]:
    """What a real Label Studio 1.23 sent, by path and occasion; its secrets were taken out."""
    if not RECORDED.is_file():
        pytest.skip(f"no recorded requests of a Label Studio: {RECORDED} is missing")
    requests: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text())
    return requests


@pytest.fixture
def desk(workspace: Workspace) -> Desk:
    return Desk(workspace)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory, empty_catalogue: Path) -> Path:
    """A workspace with six spots, of which four taught a tiny network, and the network."""
    from fedd.backbone import DiffusionUNet
    from fedd.weights.files import save_backbone

    root = tmp_path_factory.mktemp("trained")
    weights = root / "tiny.safetensors"
    save_backbone(weights, "tiny", TINY, DiffusionUNet.random(TINY, 1).net.state_dict(), {})
    (root / "w").mkdir()
    shutil.copy(empty_catalogue, root / "w" / "catalogue.sqlite")
    desk = Desk(Workspace.create(root / "w"))
    for number, image in enumerate(desk.add_images(6)[:4]):
        desk.accept(image, number)
    train_version(desk.workspace, "manager", str(weights), 0, QUICK)
    desk.workspace.catalogue.close()
    return root / "w"


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Iterator[Desk]:
    """Images 5 and 6 of six are not labelled yet; a model that learned from the others is in use."""
    shutil.copytree(_trained, tmp_path / "trained")
    workspace = Workspace.open(tmp_path / "trained")
    yield Desk(workspace)
    workspace.catalogue.close()


@pytest.fixture
def serve(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Workspace], Served]]:
    """serve(workspace): its server, which does no rounds, but writes them down in `done`."""
    running = ExitStack()
    caplog.set_level("INFO", "ddiseg")

    def start(workspace: Workspace) -> Served:
        done: list[JobKind] = []
        rounds = {
            kind: lambda _stopping, kind=kind: done.append(kind)
            for kind in (JobKind.PULL, JobKind.REFRESH)
        }
        lease = running.enter_context(workspace.catalogue.leases.hold(SERVE))
        backend = Backend(workspace, lease.owner, CREDENTIALS, rounds)
        client = running.enter_context(TestClient(create_app(backend, MAX_BODY)))
        return Served(workspace, backend, client, caplog, done)

    with running:
        yield start


@pytest.fixture
def served(workspace: Workspace, serve: Callable[[Workspace], Served]) -> Served:
    return serve(workspace)


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does; fails after ten seconds."""
    last = time.monotonic() + 10
    while not true():
        assert time.monotonic() < last, "it did not happen"
        time.sleep(0.005)
