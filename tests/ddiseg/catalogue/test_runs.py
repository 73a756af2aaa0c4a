"""Rounds, jobs and sides."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ddiseg.catalogue import Catalogue, JobKind, Split
from ddiseg.catalogue.leases import SERVE, LeaseLostError
from ddiseg.catalogue.runs import BROKEN_OFF
from tests.ddiseg.rows import new_image

pytestmark = pytest.mark.both_databases


@pytest.fixture
def catalogue(shared: Catalogue) -> Catalogue:
    """An empty catalogue, on each database in turn."""
    return shared


@pytest.fixture
def owner(catalogue: Catalogue) -> Iterator[str]:
    """Of the lease of the server that runs."""
    with catalogue.leases.hold(SERVE) as lease:
        yield lease.owner


def test_round__keeps_each_step_as_it_is_done(catalogue: Catalogue) -> None:
    first = catalogue.rounds.begin("tester", {"every": 3})
    catalogue.rounds.step(first, {"step": "pull", "said": "3 masks", "seconds": 0.5})
    second = catalogue.rounds.begin("tester", {"every": 4})
    catalogue.rounds.end(second, "done")
    newest, broken_off = catalogue.rounds.last(5)
    assert (newest.id, newest.outcome, newest.steps) == (second, "done", [])
    assert newest.ended_at is not None
    assert (broken_off.outcome, broken_off.ended_at) == (None, None)
    assert broken_off.steps == [{"step": "pull", "said": "3 masks", "seconds": 0.5}]
    assert [r.id for r in catalogue.rounds.last(1)] == [second]
    assert (newest.settings, broken_off.settings) == ({"every": 4}, {"every": 3})
    last = catalogue.rounds.last_with_settings()
    assert last is not None
    assert last.id == second


def test_request__of_a_kind_one_waits(catalogue: Catalogue, owner: str) -> None:
    assert catalogue.jobs.request(JobKind.PULL)
    assert not catalogue.jobs.request(JobKind.PULL)
    assert catalogue.jobs.request(JobKind.REFRESH)
    assert catalogue.jobs.waiting() == 2
    job = catalogue.jobs.take(owner)
    assert job is not None
    assert job.kind == "pull"
    # What came after the job began may have come too late for it.
    assert catalogue.jobs.request(JobKind.PULL)
    catalogue.jobs.end(job.id, "the server is down")
    assert [(j.kind, j.problem) for j in catalogue.jobs.last(5)] == [
        ("pull", None),
        ("refresh", None),
        ("pull", "the server is down"),
    ]


@pytest.mark.training
def test_request__many_at_once_make_one(catalogue: Catalogue) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: catalogue.jobs.request(JobKind.PULL), range(40)))
    assert asked.count(True) == 1
    assert catalogue.jobs.waiting() == 1


def test_take__nothing_waits(catalogue: Catalogue, owner: str) -> None:
    assert catalogue.jobs.take(owner) is None


def test_take__only_for_the_server_that_holds_the_lease(catalogue: Catalogue) -> None:
    catalogue.jobs.request(JobKind.PULL)
    with catalogue.leases.hold(SERVE) as lease:
        pass
    with pytest.raises(LeaseLostError):
        catalogue.jobs.take(lease.owner)
    assert catalogue.jobs.waiting() == 1


@pytest.mark.training
@pytest.mark.parametrize("asked_again", [False, True])
def test_take_over__jobs_of_a_server_that_is_gone_are_requested_anew(
    catalogue: Catalogue, asked_again: bool
) -> None:
    catalogue.jobs.request(JobKind.PULL)
    with catalogue.leases.hold(SERVE) as gone:
        begun = catalogue.jobs.take(gone.owner)
        assert begun is not None
        assert catalogue.jobs.take_over() == 0, "its server is still there"
    if asked_again:
        catalogue.jobs.request(JobKind.PULL)
    with catalogue.leases.hold(SERVE) as lease:
        assert catalogue.jobs.take_over() == 1
        catalogue.jobs.end(begun.id)  # by the server that was gone: too late
        job = catalogue.jobs.take(lease.owner)
        assert job is not None
        catalogue.jobs.end(job.id)
        assert catalogue.jobs.take(lease.owner) is None
        assert catalogue.jobs.take_over() == 0
    last = [(row.id, row.owner, row.problem) for row in catalogue.jobs.last(5)]
    assert last == [(job.id, lease.owner, None), (begun.id, gone.owner, BROKEN_OFF)]
    assert job.id > begun.id


def test_put_back__only_a_job_that_has_not_ended(catalogue: Catalogue, owner: str) -> None:
    catalogue.jobs.request(JobKind.PULL)
    job = catalogue.jobs.take(owner)
    assert job is not None
    catalogue.jobs.put_back(job.id)
    catalogue.jobs.put_back(job.id)
    assert catalogue.jobs.waiting() == 1
    assert [row.problem for row in catalogue.jobs.last(5)] == [None, BROKEN_OFF]


def test_ids__are_not_given_out_again(catalogue: Catalogue) -> None:
    catalogue.jobs.request(JobKind.PULL)
    (before,) = catalogue.jobs.last(1)
    with catalogue._database.write() as session:
        session.delete(before)
    catalogue.jobs.request(JobKind.PULL)
    assert catalogue.jobs.last(1)[0].id > before.id


def test_sides__never_change(catalogue: Catalogue) -> None:
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in range(1, 4)], "tester")
    catalogue.splits.decide({1: Split.HOLDOUT, 2: Split.TRAINING})
    catalogue.splits.decide({1: Split.TRAINING, 2: Split.HOLDOUT, 3: Split.EXCLUDED})
    assert catalogue.splits.all() == {1: Split.HOLDOUT, 2: Split.TRAINING, 3: Split.EXCLUDED}
