from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from ddiseg.catalogue import Catalogue, JobKind
from ddiseg.catalogue.leases import SERVE, LeaseHeldError
from ddiseg.catalogue.tables import Job
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.server import jobs as module
from ddiseg.server.jobs import Do, StoppedError, Worker
from ddiseg.server.metrics import Metrics
from tests.ddiseg.server.conftest import until
from tests.logs import logged

pytestmark = pytest.mark.both_databases


class Hands:
    """Starts workers on a catalogue, and stops them all in the end."""

    def __init__(self, catalogue: Catalogue, owner: str, log: list[str]) -> None:
        self.catalogue, self.owner, self.log = catalogue, owner, log
        self.workers: list[Worker] = []

    def start(self, do: Do) -> Worker:
        worker = Worker(self.catalogue.jobs, self.owner, dict.fromkeys(JobKind, do), Metrics())
        worker.start()
        self.workers.append(worker)
        return worker

    def last(self) -> Job:
        return self.catalogue.jobs.last(1)[0]


@pytest.fixture
def hands(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    monkeypatch.setattr(module, "RETRY", 0.01)
    monkeypatch.setattr(module, "POLL", 0.01)
    with catalogue.leases.hold(SERVE) as lease, logged() as log:
        made = Hands(catalogue, lease.owner, log)
        yield made
        for worker in made.workers:
            worker.stop(10)


def _raises(error: Exception) -> Do:
    def do(_stopping: Callable[[], bool]) -> None:
        raise error

    return do


def test_jobs__one_after_the_other_in_their_order(hands: Hands) -> None:
    kinds = [JobKind.PREDICT, JobKind.PULL, JobKind.REFRESH]
    for kind in kinds:
        hands.catalogue.jobs.request(kind)
    hands.start(lambda _stopping: None)
    until(lambda: len(hands.log) == 3)
    assert [line.split(":")[0] for line in hands.log] == ["paint", "pull", "refresh"]
    assert all(job.ended_at and job.problem is None for job in hands.catalogue.jobs.last(3))


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (InputError("no masks yet"), "no masks yet"),
        (
            ZeroDivisionError("by zero"),
            "unexpected ZeroDivisionError: by zero (a defect: report it)",
        ),
    ],
)
def test_failure__ends_the_job_and_not_the_worker(
    hands: Hands, error: Exception, problem: str
) -> None:
    hands.start(_raises(error))
    for _ in range(2):
        before = len(hands.log)
        hands.catalogue.jobs.request(JobKind.PULL)
        until(lambda before=before: len(hands.log) > before)
        assert hands.last().problem == problem


def test_busy__is_tried_again(hands: Hands) -> None:
    tried: list[int] = []

    def do(_stopping: Callable[[], bool]) -> None:
        tried.append(1)
        if len(tried) < 3:
            raise LeaseHeldError("another round runs")

    hands.catalogue.jobs.request(JobKind.PULL)
    hands.start(do)
    until(lambda: bool(hands.log))
    assert len(tried) == 3
    assert hands.last().problem is None


def test_start__takes_up_what_a_killed_server_left(hands: Hands) -> None:
    hands.catalogue.jobs.request(JobKind.REFRESH)
    job = hands.catalogue.jobs.take(hands.owner)
    assert job is not None
    with hands.catalogue._database.write() as session:
        session.get_one(Job, job.id).owner = "killed"
    hands.start(lambda _stopping: None)
    until(lambda: len(hands.log) == 2)
    assert hands.log[0] == "an earlier server did not finish 1 job: requested again"
    assert hands.last().ended_at


@pytest.fixture
def begun_job(hands: Hands) -> tuple[Worker, threading.Event]:
    """A worker at a job that ends once the event is set."""
    begun, go = threading.Event(), threading.Event()

    def do(_stopping: Callable[[], bool]) -> None:
        begun.set()
        go.wait(10)

    hands.catalogue.jobs.request(JobKind.PULL)
    worker = hands.start(do)
    begun.wait(10)
    return worker, go


def test_stop__lets_the_job_at_hand_end(
    hands: Hands, begun_job: tuple[Worker, threading.Event]
) -> None:
    worker, go = begun_job
    threading.Timer(0.05, go.set).start()
    assert worker.stop(10)
    assert hands.last().ended_at


def test_stop__puts_back_a_job_that_does_not_end(
    hands: Hands, begun_job: tuple[Worker, threading.Event]
) -> None:
    worker, go = begun_job
    assert not worker.stop(0.01)
    assert hands.catalogue.jobs.waiting() == 1
    go.set()  # it ends after all: the one that waits now is another
    worker._thread.join(10)
    assert hands.catalogue.jobs.waiting() == 1
    assert hands.last().ended_at is None


@pytest.mark.parametrize("error", [StoppedError("stops"), LeaseHeldError("another round runs")])
def test_stop__puts_back_a_job_that_left_off_or_waits(hands: Hands, error: Exception) -> None:
    begun = threading.Event()

    def do(stopping: Callable[[], bool]) -> None:
        begun.set()
        until(stopping)
        raise error

    hands.catalogue.jobs.request(JobKind.PREDICT)
    worker = hands.start(do)
    begun.wait(10)
    assert worker.stop(10)
    assert hands.catalogue.jobs.waiting() == 1


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (WorkspaceError("locked"), "no job can be taken: locked"),
        (
            ZeroDivisionError("by zero"),
            "unexpected ZeroDivisionError: by zero (a defect: report it)",
        ),
    ],
)
def test_catalogue_fails__is_told_and_tried_again(
    hands: Hands, monkeypatch: pytest.MonkeyPatch, failure: Exception, told: str
) -> None:
    take, failures = hands.catalogue.jobs.take, [failure]

    def failing_once(owner: str) -> Job | None:
        if failures:
            raise failures.pop()
        return take(owner)

    monkeypatch.setattr(hands.catalogue.jobs, "take", failing_once)
    hands.catalogue.jobs.request(JobKind.PULL)
    hands.start(lambda _stopping: None)
    until(lambda: len(hands.log) == 2)
    assert hands.log[0] == told
    assert hands.last().ended_at


def test_end_of_a_job__that_can_t_be_written_down_does_not_end_the_worker(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, failures = hands.catalogue.jobs.end, [ZeroDivisionError("by zero")]

    def failing_once(job_id: int, problem: str | None = None) -> None:
        if failures:
            raise failures.pop()
        end(job_id, problem)

    monkeypatch.setattr(hands.catalogue.jobs, "end", failing_once)
    for kind in (JobKind.PULL, JobKind.PREDICT):
        hands.catalogue.jobs.request(kind)
    hands.start(lambda _stopping: None)
    until(lambda: len(hands.log) == 2)
    assert "by zero" in hands.log[0]
    assert hands.log[1].startswith("paint: done")
