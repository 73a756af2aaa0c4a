"""Requests, clicks, jobs and rounds of a server share one copy of the network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ddiseg.catalogue import JobKind
from ddiseg.catalogue.leases import SERVE
from ddiseg.errors import DdisegError
from ddiseg.loop.options import RoundOptions
from ddiseg.model import backbones as module
from ddiseg.model import train
from ddiseg.model.backbones import Backbones
from ddiseg.server.app import Backend, create_app
from ddiseg.server.run import rounds
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.server.conftest import CREDENTIALS, MAX_BODY, Served, until
from tests.ddiseg.server.desk import Desk, asked
from tests.fedd.conftest import QUICK

pytestmark = pytest.mark.training


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    loaded: list[Any] = []
    real = module.load_backbone

    def load(name: str) -> Any:
        loaded.append(real(name))
        return loaded[-1]

    monkeypatch.setattr(module, "load_backbone", load)
    return loaded


@pytest.fixture
def serve(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Workspace], Served]]:
    """A server with its real rounds; there is no labelling server."""
    running = ExitStack()

    def start(workspace: Workspace) -> Served:
        backbones = Backbones(workspace)
        weights = workspace.catalogue.models.current().backbone
        options = RoundOptions(every=1, backbone=weights)
        lease = running.enter_context(workspace.catalogue.leases.hold(SERVE))
        jobs = rounds(workspace, options, "manager", backbones)
        backend = Backend(workspace, lease.owner, CREDENTIALS, jobs, backbones=backbones)
        client = running.enter_context(TestClient(create_app(backend, MAX_BODY)))
        return Served(workspace, backend, client, caplog)

    with running:
        yield start


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "default_settings", lambda _config: QUICK)


def click() -> dict[str, Any]:
    value = {"x": 50, "y": 50, "width": 0.3, "keypointlabels": ["lesion"], "labels": ["lesion"]}
    return {"result": [{"type": "keypointlabels", "from_name": "click", "value": value}]}


def run_round(served: Served) -> None:
    """The server's own round; the labelling server's steps fail."""
    do = served.backend.worker._do[JobKind.REFRESH]
    with pytest.raises(DdisegError, match="pull"):
        do(lambda: False)


@pytest.mark.usefixtures("quick")
def test_backbone__is_loaded_once_for_predict_click_and_round(
    trained: Desk, serve: Callable[[Workspace], Served], loads: list[Any]
) -> None:
    images = list(trained.workspace.catalogue.images.select())[4:]
    first, _ = trained.give(images)
    served = serve(trained.workspace)
    (answer,) = served.predict(asked(first))["results"]
    assert answer["result"]
    (clicked,) = served.predict(asked(first), context=click())["results"]
    assert clicked["result"]
    trained.accept(images[1], 5)
    run_round(served)
    assert [v.name for v in trained.workspace.catalogue.models.all()] == ["fedd-1", "fedd-2"]
    (clicked,) = served.predict(asked(first), context=click())["results"]
    assert clicked["result"], "by the version that the round trained, or the one before"
    assert len(loads) == 1
    with served.backend.model.predictor() as predictor:
        assert predictor.net is loads[0]
        assert predictor.version.name == trained.workspace.catalogue.models.current().name


@pytest.mark.usefixtures("quick")
def test_predict__is_answered_while_a_round_trains(
    trained: Desk,
    serve: Callable[[Workspace], Served],
    loads: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = list(trained.workspace.catalogue.images.select())[4:]
    (task,) = trained.give(images[:1])
    trained.accept(images[1], 5)
    served = serve(trained.workspace)
    training, go_on = threading.Event(), threading.Event()
    real = train.train_probes

    def waits(*given: Any, **more: Any) -> Any:
        training.set()
        assert go_on.wait(30)
        return real(*given, **more)

    monkeypatch.setattr(train, "train_probes", waits)
    round_of = threading.Thread(target=partial(run_round, served))
    round_of.start()
    try:
        until(training.is_set)
        (answer,) = served.predict(asked(task))["results"]
        assert answer["result"]
    finally:
        go_on.set()
        round_of.join()
    assert len(loads) == 1
