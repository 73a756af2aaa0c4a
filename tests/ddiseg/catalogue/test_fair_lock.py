"""Turns of SQLite's writers: in order, bounded, and given up by whoever is killed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.connections import BUSY_TIMEOUT
from ddiseg.catalogue.fair_lock import FairLock, TurnTimeoutError
from tests.forks import FORKS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a database."""
    (tmp_path / "x.sqlite").touch(0o660)
    return tmp_path / "x.sqlite"


def soon() -> float:
    return time.monotonic() + 30


@pytest.mark.slow
def test_turn__threads_in_the_order_in_which_they_came(file: Path) -> None:
    lock, order, threads = FairLock(file), list[int](), list[threading.Thread]()

    def take(number: int) -> None:
        with lock.turn(soon()):
            order.append(number)

    with lock.turn(soon()):
        for number in range(8):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(lock._threads._waiting) < number + 2:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_turn__too_long_a_wait_leaves_the_line(file: Path) -> None:
    lock = FairLock(file)
    with lock.turn(soon()), pytest.raises(TurnTimeoutError), lock.turn(time.monotonic()):
        pytest.fail("two at once")
    other = FairLock(file)  # as of another process
    with lock.turn(soon()), pytest.raises(TurnTimeoutError), other.turn(time.monotonic() + 0.02):
        pytest.fail("two at once")
    with other.turn(soon()), pytest.raises(TurnTimeoutError), lock.turn(time.monotonic()):
        pytest.fail("two at once")
    with lock.turn(time.monotonic() + 1):
        pass


@pytest.mark.parametrize("in_memory", [True, False])
def test_turn__no_lock_file_can_be_had(file: Path, in_memory: bool) -> None:
    (file.parent / "x.sqlite-writers").mkdir()
    with FairLock(None if in_memory else file).turn(soon()):
        pass


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_turn__who_may_write_the_database_may_stand_in_line(file: Path) -> None:
    file.chmod(0o660)
    with FairLock(file).turn(soon()):
        assert file.with_name("x.sqlite-writers").stat().st_mode & 0o777 == 0o660


def _hold(file: Path, held: Any) -> None:
    with FairLock(file).turn(soon()):
        held.set()
        time.sleep(60)


@pytest.mark.process
def test_turn__killed_holder_frees_it(file: Path) -> None:
    held = FORKS.Event()
    process = FORKS.Process(target=_hold, args=(file, held))
    process.start()
    assert held.wait(30)
    process.kill()
    process.join()
    with FairLock(file).turn(soon()):
        pass


def _write(url: str, ready: Any, end: Any, counts: Any, number: int) -> None:
    catalogue = Catalogue.open(url)
    ready.wait()
    while not end.is_set():
        catalogue.events.record("tick", f"writer {number}", {})
        counts[number] += 1
    catalogue.close()


@pytest.mark.process
def test_write__no_process_is_starved(catalogue: Catalogue) -> None:
    ready, end, counts = FORKS.Barrier(5), FORKS.Event(), FORKS.Array("i", 4)
    url = catalogue._database.engine.url.render_as_string()
    writers = [FORKS.Process(target=_write, args=(url, ready, end, counts, n)) for n in range(4)]
    for each in writers:
        each.start()
    ready.wait()
    while sum(counts) < 200:
        time.sleep(0.01)
    end.set()
    for each in writers:
        each.join()
    assert catalogue.events.count() == sum(counts)
    assert max(counts) <= 3 * min(counts), list(counts)


def test_write__another_program_has_the_database(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BUSY_TIMEOUT == 60
    other = Catalogue.open(catalogue._database.engine.url)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with other._database.write():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    threading.Timer(0.05, leave.set).start()
    catalogue.events.record("tick", "tester", {})  # waits for it
    thread.join()
    assert catalogue.events.count() == 1
    other.close()
