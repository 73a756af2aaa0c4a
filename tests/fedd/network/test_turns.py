from __future__ import annotations

import threading
import time

import pytest

from fedd.network.turns import Turns


def until(turns: Turns, waiting: int) -> None:
    while len(turns._waiting) < waiting:
        time.sleep(0.001)


def test_turns__first_come_first_served() -> None:
    turns, order = Turns(), []

    def take(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(5)]
    with turns:
        for waiting, thread in enumerate(threads, start=1):
            thread.start()
            until(turns, waiting)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_turns__a_job_of_many_batches_lets_a_request_in_after_one() -> None:
    turns, done = Turns(), threading.Event()
    batches_before = []

    def request() -> None:
        with turns:
            batches_before.append(batch)
            done.set()

    thread = threading.Thread(target=request)
    for batch in range(1000):
        with turns:
            if batch == 3:
                thread.start()
                until(turns, 1)
        if done.is_set():
            break
    thread.join()
    assert batches_before[0] <= 4


def test_turns__no_longer_than_one_wants_to_wait() -> None:
    turns = Turns()
    with turns:
        assert not turns.acquire(0.01)
        assert not turns.acquire(0)
    assert not turns._waiting
    assert turns.acquire(0)
    turns.release()


def test_turns__one_at_a_time_and_free_after_an_error() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="lost"), turns:
        raise ValueError("lost")
    inside, most = [0], []

    def work() -> None:
        for _ in range(50):
            with turns:
                inside[0] += 1
                most.append(inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 200
