from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import JobKind, Purpose
from ddiseg.catalogue.database import Database
from ddiseg.errors import WorkspaceError
from ddiseg.server.jobs import JobsWanted
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.server.conftest import Served, until
from tests.ddiseg.server.desk import PROJECT, REVIEWS, Desk

pytestmark = pytest.mark.both_databases

PULL = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}}


@pytest.fixture(autouse=True)
def _project(desk: Desk) -> None:
    images = desk.add_images(1)
    desk.give(images)
    desk.give(images, purpose=Purpose.REVIEW)


@pytest.fixture
def idle(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A server whose worker takes no jobs, so that they can be counted."""
    monkeypatch.setattr(served.backend.worker._jobs, "take", lambda _owner: None)
    until(served.backend.worker._thread.is_alive)
    return served


def _waiting(served: Served) -> list[str]:
    jobs = served.workspace.catalogue.jobs.last(1000)
    return sorted(job.kind for job in jobs if job.started_at is None)


@contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    """The catalogue, as another process has it while it writes."""
    other = Database(workspace.catalogue._database.engine.url)
    with other.write() as session:
        session.execute(text("SELECT 1"))  # takes the lock
        yield
    other.engine.dispose()


@pytest.mark.training
@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("ANNOTATION_CREATED", ["pull"]),
        ("ANNOTATIONS_CREATED", ["pull"]),
        ("ANNOTATION_UPDATED", ["pull"]),
        ("ANNOTATIONS_DELETED", ["pull"]),
        ("TASKS_DELETED", ["pull"]),
        ("START_TRAINING", ["refresh"]),
        ("PROJECT_UPDATED", []),
        ("", []),
    ],
)
@pytest.mark.parametrize("project", [PROJECT, REVIEWS])
def test_action__asks_for_its_job(idle: Served, action: str, kind: list[str], project: int) -> None:
    answer = idle.post("/webhook", {"action": action, "project": {"id": project}})
    assert answer.json() == {"status": "queued" if kind else "ignored"}
    assert _waiting(idle) == kind


@pytest.mark.training
@pytest.mark.parametrize("occasion", ["PROJECT_UPDATED", "START_TRAINING", "ANNOTATION_UPDATED"])
def test_recorded_webhook__of_ours_and_of_others(
    idle: Served, recorded: dict[str, Any], occasion: str
) -> None:
    body = recorded[f"/webhook {occasion}"]["body"]
    ours = {**body, "project": {**body["project"], "id": PROJECT}}
    theirs = {**body, "project": {**body["project"], "id": 77}}
    jobs = {"START_TRAINING": ["refresh"], "ANNOTATION_UPDATED": ["pull"]}.get(occasion, [])
    assert idle.post("/webhook", theirs).status_code == 200
    assert _waiting(idle) == []
    assert idle.post("/webhook", ours).status_code == 200
    assert _waiting(idle) == jobs
    unknown = idle.metric('ddiseg_webhooks_total{outcome="unknown project"}')
    assert unknown == (1 if jobs else 0)


@pytest.mark.training
def test_odd_project__is_ignored(idle: Served) -> None:
    for project in (None, {}, {"id": None}, {"id": "3"}, {"id": True}, [3], 3, {"id": [3]}):
        answer = idle.post("/webhook", {"action": "ANNOTATION_CREATED", "project": project})
        assert (answer.status_code, answer.json()) == (200, {"status": "ignored"})
    assert _waiting(idle) == []


@pytest.mark.training
def test_odd_number__is_an_unknown_project(idle: Served) -> None:
    for number in (0, -3, 2**70):
        answer = idle.post("/webhook", {"action": "START_TRAINING", "project": {"id": number}})
        assert answer.json() == {"status": "unknown project"}


@pytest.mark.training
def test_garbage__is_refused(idle: Served) -> None:
    for body in (b"", b"{", b"[]", b'{"project": 3}', b'{"action": 7}', b"\xff"):
        answer = idle.client.post("/webhook", content=body, auth=("ddiseg", "correct horse"))
        assert answer.status_code == 400
    assert _waiting(idle) == []


@pytest.mark.training
def test_flood_replayed_and_out_of_order__is_one_job_of_a_kind(
    idle: Served, recorded: dict[str, Any]
) -> None:
    bodies = [recorded[f"/webhook {o}"]["body"] for o in ("START_TRAINING", "ANNOTATION_UPDATED")]
    flood = [{**b, "project": {"id": PROJECT}} for b in bodies for _ in range(50)]
    random.Random(0).shuffle(flood)
    answers = [idle.post("/webhook", body) for body in flood]
    assert {answer.json()["status"] for answer in answers} == {"queued"}
    assert _waiting(idle) == ["pull", "refresh"]
    assert idle.metric('ddiseg_webhooks_total{outcome="queued"}') == 100


@pytest.mark.training
def test_job__is_done_once_asked_for(served: Served) -> None:
    served.post("/webhook", PULL)
    until(lambda: served.done == [JobKind.PULL])
    until(lambda: served.metric('ddiseg_jobs_total{kind="pull",outcome="done"}') == 1)


@pytest.mark.training
def test_catalogue_locked__is_told_soon_and_loses_nothing(
    idle: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddiseg.server.app.PATIENCE", 0.05)
    with _locked(idle.workspace):
        for _ in range(3):
            answer = idle.post("/webhook", PULL)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
        assert idle.client.get("/health").status_code == 200
    until(lambda: _waiting(idle) == ["pull"])
    assert idle.metric('ddiseg_webhooks_total{outcome="busy"}') == 3


@pytest.mark.training
def test_catalogue_broken__is_told(idle: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_kind: JobKind) -> bool:
        raise WorkspaceError("the catalogue's disk is full")

    monkeypatch.setattr(idle.workspace.catalogue.jobs, "request", broken)
    assert idle.post("/webhook", PULL).status_code == 503
    monkeypatch.undo()
    assert idle.post("/webhook", PULL).status_code == 200


@pytest.mark.training
def test_defect__is_told_and_the_next_webhook_is_taken(
    idle: Served, monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    def defect(_kind: JobKind) -> bool:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(idle.workspace.catalogue.jobs, "request", defect)
    assert idle.post("/webhook", PULL).status_code == 503
    assert idle.log.messages == wording
    monkeypatch.undo()
    assert idle.post("/webhook", PULL).json() == {"status": "queued"}


@pytest.mark.training
def test_jobs_wanted__those_that_come_while_one_is_written_share_the_next_write(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go = [], threading.Event()

    def slow(kind: JobKind) -> bool:
        written.append(kind)
        return go.wait(10)

    monkeypatch.setattr(workspace.catalogue.jobs, "request", slow)
    wanted = JobsWanted(workspace, lambda: None)
    wanted.start()
    first = wanted.want(JobKind.PULL, PROJECT)
    until(lambda: bool(written))
    later = [wanted.want(JobKind.PULL, PROJECT) for _ in range(100)]
    assert not later[0].done()
    go.set()
    assert all(future.result(10) for future in [first, *later])
    wanted.stop()
    assert written == [JobKind.PULL] * 2


@pytest.mark.training
def test_jobs_wanted__giving_up_does_not_cancel_it_for_others(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(workspace.catalogue.jobs, "request", lambda _kind: go.wait(10))
    wanted = JobsWanted(workspace, lambda: None)
    wanted.start()

    async def impatient() -> None:
        await asyncio.wait_for(asyncio.wrap_future(wanted.want(JobKind.PREDICT)), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    same = wanted.want(JobKind.PREDICT)
    go.set()
    assert same.result(10)
    wanted.stop()


@pytest.mark.training
def test_jobs_wanted__stop_writes_what_is_asked_for(workspace: Workspace) -> None:
    wanted = JobsWanted(workspace, lambda: None)
    future = wanted.want(JobKind.REFRESH, PROJECT)
    wanted.start()
    wanted.stop()
    assert future.result(0)
    assert workspace.catalogue.jobs.waiting() == 1
