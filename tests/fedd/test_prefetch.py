from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from fedd.prefetch import prefetch


@dataclass(frozen=True)
class Photograph:
    number: int
    opened_pixels: int = 0
    held_pixels: int = 0


def job(number: int, pixels: int = 0, seconds: float = 0) -> Callable[[], Photograph]:
    def run() -> Photograph:
        time.sleep(seconds)
        return Photograph(number, pixels, pixels)

    return run


@pytest.mark.slow
def test_prefetch__in_order_whoever_is_ready_first() -> None:
    jobs = [job(number, seconds=0.02 * (9 - number)) for number in range(9)]
    assert [each.number for each in prefetch(jobs, 4, 4)] == list(range(9))


def test_prefetch__on_several_threads() -> None:
    """Each waits for the other: one thread alone would never come back."""
    meeting = threading.Barrier(2, timeout=30)

    def run() -> Photograph:
        meeting.wait()
        return Photograph(0)

    assert len(list(prefetch([run, run], 2, 2))) == 2


def test_prefetch__runs_while_the_caller_works() -> None:
    second = threading.Event()

    def announced() -> Photograph:
        second.set()
        return Photograph(1)

    with closing(prefetch([job(0), announced], 1, 2)) as found:
        assert next(found).number == 0
        assert second.wait(30), "begun although the caller has not asked for it"


class Asked:
    """Endless jobs; counts those that were taken."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.taken = pixels, 0

    def __iter__(self) -> Iterator[Callable[[], Photograph]]:
        while True:
            self.taken += 1
            yield job(self.taken, self.pixels)


def test_prefetch__few_are_taken_ahead() -> None:
    jobs = Asked(pixels=1)
    with closing(prefetch(jobs, 2, 6)) as found:
        for _ in range(50):
            next(found)
        assert jobs.taken <= 50 + 6


def test_prefetch__large_ones_are_bounded_in_pixels() -> None:
    jobs = Asked(pixels=24_000_000)
    with closing(prefetch(jobs, 8, 64, pixels=64_000_000)) as found:
        for _ in range(20):
            next(found)
        assert jobs.taken <= 20 + 2, "48 MP; with a third one 72 MP"


def test_prefetch__before_a_size_is_known_few_are_begun() -> None:
    jobs = Asked(pixels=24_000_000)
    with closing(prefetch(jobs, 64, 64, pixels=64_000_000)) as found:
        next(found)
        assert jobs.taken <= 17


def test_prefetch__one_that_is_larger_than_the_bound_runs_alone() -> None:
    jobs = [job(number, 200) for number in range(3)]
    assert len(list(prefetch(jobs, 2, 8, pixels=100))) == 3


def test_prefetch__an_error_in_its_turn() -> None:
    def broken() -> Photograph:
        raise ValueError("second")

    found = prefetch([job(0), broken, job(2)], 2, 8)
    assert next(found).number == 0
    with pytest.raises(ValueError, match="second"):
        next(found)
    assert list(found) == []


def test_prefetch__closed_early_ends_its_threads() -> None:
    started = threading.Event()
    ran = []

    def slow() -> Photograph:
        started.set()
        time.sleep(0.05)
        ran.append(1)
        return Photograph(0)

    found = prefetch([job(0), *[slow] * 50], 2, 50)
    next(found)
    assert started.wait(30)
    found.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    assert len(ran) <= 4, "only those that had begun"


def test_prefetch__none() -> None:
    assert list(prefetch([], 2, 2)) == []
