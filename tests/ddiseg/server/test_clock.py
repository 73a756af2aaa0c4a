from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from ddiseg.catalogue import JobKind
from ddiseg.catalogue.leases import SERVE
from ddiseg.server.app import Backend, Clock
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.server.conftest import CREDENTIALS, until


def test_clock__ticks_at_once_and_again_until_it_is_stopped() -> None:
    ticks: list[int] = []
    clock = Clock(0.001, lambda: ticks.append(1))
    clock.start()
    until(lambda: len(ticks) > 2)
    clock.stop()
    assert not [t for t in threading.enumerate() if t.name == "clock"]


def test_clock__off() -> None:
    clock = Clock(0, lambda: pytest.fail("it ticks"))
    clock.start()
    assert not [t for t in threading.enumerate() if t.name == "clock"]
    clock.stop()


@pytest.fixture
def owner(workspace: Workspace) -> Iterator[str]:
    with workspace.catalogue.leases.hold(SERVE) as lease:
        yield lease.owner


def _backend(workspace: Workspace, owner: str, done: list[JobKind], every: float) -> Backend:
    def do(kind: JobKind) -> Callable[[Callable[[], bool]], None]:
        return lambda _stopping: done.append(kind)

    rounds = {kind: do(kind) for kind in (JobKind.PULL, JobKind.REFRESH)}
    return Backend(workspace, owner, CREDENTIALS, rounds, every=every)


def test_backend__begins_with_a_round_and_has_more_by_time(
    workspace: Workspace, owner: str
) -> None:
    done: list[JobKind] = []
    backend = _backend(workspace, owner, done, every=0.01)
    backend.start()
    until(lambda: len(done) > 1)
    backend.stop()
    assert set(done) == {JobKind.PULL}


def test_backend__a_round_by_time_waits_once_however_long_the_one_before_takes(
    workspace: Workspace, owner: str
) -> None:
    """Ticks that come while a round runs are one round afterwards."""
    begun, go = threading.Event(), threading.Event()

    def slow(_stopping: Callable[[], bool]) -> None:
        begun.set()
        go.wait(10)

    backend = Backend(workspace, owner, CREDENTIALS, {JobKind.PULL: slow}, every=0.001)
    backend.start()
    begun.wait(10)
    until(lambda: workspace.catalogue.jobs.waiting() == 1)
    asked = []
    want = backend.jobs_wanted.want
    backend.jobs_wanted.want = lambda *of: asked.append(of) or want(*of)  # type: ignore[method-assign]
    until(lambda: len(asked) > 5)
    assert workspace.catalogue.jobs.waiting() == 1
    go.set()
    backend.stop()
