"""Leases between real processes, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ddiseg import processes
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.leases import ROUND, SERVE, LeaseHeldError, LeaseLostError
from ddiseg.catalogue.tables import Lease
from tests.forks import FORKS

ATTEMPTS = 15


def _race(url: str, barrier: Any, results: Any) -> None:
    catalogue = Catalogue.open(url)
    for _ in range(ATTEMPTS):
        barrier.wait(30)
        try:
            with catalogue.leases.hold(ROUND):
                barrier.wait(30)
            results.put((os.getpid(), None))
        except LeaseHeldError as error:
            barrier.wait(30)
            results.put((os.getpid(), str(error)))


def _hold(url: str, ready: Any, end: Any) -> None:
    global kept  # a lease that its process never gives back
    kept = Catalogue.open(url).leases.hold(ROUND)
    kept.__enter__()
    ready.set()
    end.wait(30)


@contextmanager
def held_by_another(url: str, name: str = ROUND) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Another process that holds a lease, and a function that lets it end by itself."""
    ready, end = FORKS.Event(), FORKS.Event()
    process = FORKS.Process(target=_hold, args=(url, ready, end))
    process.start()
    try:
        assert ready.wait(30)
        yield process, end.set
    finally:
        process.kill()
        process.join()


def change(catalogue: Catalogue, columns: str) -> None:
    """Change the row of a lease, as another machine or the passing of time would."""
    with catalogue._database.write() as session:
        session.execute(text(f"UPDATE leases SET {columns}"))


def row(catalogue: Catalogue) -> Lease:
    with catalogue._database.read() as session:
        return session.query(Lease).one()


@pytest.mark.process
def test_hold__until_the_end_of_the_block(shared: Catalogue) -> None:
    assert shared.leases.holder(ROUND) is None
    with shared.leases.hold(ROUND), shared.leases.hold(SERVE):
        holder = shared.leases.holder(ROUND)
        assert holder is not None
        assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in holder
        with pytest.raises(LeaseHeldError), shared.leases.hold(ROUND):
            pytest.fail("held twice")
    assert shared.leases.holder(ROUND) is None
    with shared.leases.hold(ROUND):
        pass


@pytest.mark.process
def test_hold__of_two_processes_at_once_one_wins(shared_url: str) -> None:
    barrier, results = FORKS.Barrier(2), FORKS.Queue()
    racers = [FORKS.Process(target=_race, args=(shared_url, barrier, results)) for _ in range(2)]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=60) for _ in range(2 * ATTEMPTS)]
    for racer in racers:
        racer.join(30)
    refused = [(pid, why) for pid, why in outcomes if why is not None]
    assert len(refused) == ATTEMPTS, "in each attempt one wins and one is refused"
    for pid, why in refused:
        (winner,) = {racer.pid for racer in racers} - {pid}
        assert f"(process {winner} on {socket.gethostname()}, since " in why


@pytest.mark.process
@pytest.mark.parametrize("killed", [True, False])
def test_hold__after_a_process_that_never_gave_it_back(
    shared: Catalogue, shared_url: str, killed: bool
) -> None:
    with held_by_another(shared_url) as (process, end):
        assert f"process {process.pid}" in str(shared.leases.holder(ROUND))
        with pytest.raises(LeaseHeldError), shared.leases.hold(ROUND):
            pytest.fail("held twice")
        process.kill() if killed else end()
        process.join(30)
        assert process.exitcode == (-9 if killed else 0), "the heartbeat's thread kept it alive"
        assert shared.leases.holder(ROUND) is None
        with shared.leases.hold(ROUND):
            assert row(shared).pid == os.getpid()


@pytest.mark.process
def test_hold__a_number_that_another_process_got_since(shared: Catalogue, shared_url: str) -> None:
    with held_by_another(shared_url):
        change(shared, "started = 'before'")
        with shared.leases.hold(ROUND):
            pass


@pytest.mark.process
@pytest.mark.parametrize("machine", ["'another boot pid:[1]'", "NULL"])
def test_hold__a_process_of_another_machine_until_its_lease_ends(
    shared: Catalogue, shared_url: str, machine: str
) -> None:
    with held_by_another(shared_url) as (process, _end):
        process.kill()
        process.join()
        change(shared, f"machine = {machine}, holder = 'process 7 on elsewhere'")
        with (
            pytest.raises(LeaseHeldError, match="process 7 on elsewhere"),
            shared.leases.hold(ROUND),
        ):
            pytest.fail("nobody here knows whether that process has ended")
        change(shared, "expires_at = acquired_at")
        assert shared.leases.holder(ROUND) is None
        with shared.leases.hold(ROUND) as lease:
            assert row(shared).owner == lease.owner


@pytest.mark.process
def test_heartbeat__renews_the_lease(shared: Catalogue) -> None:
    with shared.leases.hold(ROUND, length=60, heartbeat=0.01) as lease:
        beats, first = threading.Event(), row(shared)
        while not beats.wait(0.01):
            if (now := row(shared)).heartbeat_at > first.heartbeat_at:
                beats.set()
        assert now.acquired_at == first.acquired_at
        assert now.expires_at == pytest.approx(now.heartbeat_at + 60, abs=0.01)
        assert now.owner == lease.owner


def test_check__an_ended_lease_that_nobody_took_goes_on(shared: Catalogue) -> None:
    with shared.leases.hold(ROUND) as lease:
        change(shared, "expires_at = acquired_at")
        lease.check()
        assert shared.leases.holder(ROUND) is not None


@pytest.mark.process
def test_lost__the_holder_is_told_and_leaves_the_row_alone(shared: Catalogue) -> None:
    lost = threading.Event()
    with shared.leases.hold(ROUND, heartbeat=0.01) as lease:
        lease.on_lost = lost.set
        change(shared, "owner = 'new', holder = 'process 7 on elsewhere'")
        with pytest.raises(LeaseLostError, match="process 7 on elsewhere") as caught:
            lease.check()
        assert "\n" not in str(caught.value)
        assert lost.wait(10)
    assert row(shared).owner == "new"


def test_lost__let_go_by_the_one_that_took_it(shared: Catalogue) -> None:
    with shared.leases.hold(ROUND) as lease:
        with shared._database.write() as session:
            session.execute(text("DELETE FROM leases"))
        with pytest.raises(LeaseLostError, match="another process"):
            lease.check()


@pytest.mark.process
def test_hold__where_the_system_tells_no_start_of_a_process_until_the_lease_ends(
    shared: Catalogue, shared_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "Path", lambda _path: tmp_path / "missing")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processes.started(os.getpid()) is None
    with held_by_another(shared_url) as (process, _end):
        process.kill()
        process.join()
        with pytest.raises(LeaseHeldError), shared.leases.hold(ROUND):
            pytest.fail("nobody knows whether that process has ended")
        change(shared, "expires_at = acquired_at")
        with shared.leases.hold(ROUND):
            pass
