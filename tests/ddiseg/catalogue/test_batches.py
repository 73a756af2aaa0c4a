"""Batches: stored whole or not at all, open until they are closed."""

from __future__ import annotations

import pytest

from ddiseg.catalogue import Catalogue, State
from ddiseg.catalogue.batches import NewMember
from ddiseg.errors import InputError, NotFoundError
from tests.ddiseg.rows import new_image, new_mask
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases


@pytest.fixture
def four(catalogue: Catalogue) -> Catalogue:
    """Images #1 to #4, patients p1 to p4."""
    dataset = catalogue.images.dataset("clinic")
    rows = [new_image(n, tone="V-VI", patient=f"p{n}") for n in range(1, 5)]
    catalogue.images.add(dataset.id, rows, "tester")
    return catalogue


def _store(catalogue: Catalogue, name: str, *image_ids: int) -> None:
    members = [NewMember(i, i % 2 == 1, f"reason {i}") for i in image_ids]
    catalogue.batches.store(name, members, {"request": {"size": 2}}, "tester")


def test_store__members_in_the_order_of_the_draw(four: Catalogue) -> None:
    _store(four, "a", 3, 2)
    members = four.batches.members("a")
    assert [(m.image.id, m.random, m.reason) for m in members] == [
        (3, True, "reason 3"),
        (2, False, "reason 2"),
    ]
    assert four.batches.image_ids("a") == [3, 2]
    assert {i.id: i.state for i in four.images.select()} == {
        1: "new",
        2: "queued",
        3: "queued",
        4: "new",
    }
    assert four.batches.get("a").drawn_by == {"request": {"size": 2}}
    event = four.events.last("batch")
    assert event is not None
    assert event.detail == {
        "name": "a",
        "n": 2,
        "origin": "person",
        "request": {"size": 2},
    }
    assert four.events.contradictions() == []


def test_store__the_name_is_taken(four: Catalogue) -> None:
    _store(four, "a", 1)
    with pytest.raises(InputError, match="batch 'a' exists"):
        _store(four, "a", 2)


def test_store__drawn_by_another_in_the_same_moment(four: Catalogue, refusal: Refusal) -> None:
    _store(four, "a", 1, 2)
    with refusal(InputError):
        _store(four, "b", 2, 3)
    assert [batch.name for batch in four.batches.all()] == ["a"]
    assert four.images.find("#3").state == State.NEW


def test_store__given_to_people_in_the_same_moment(four: Catalogue, refusal: Refusal) -> None:
    four.masks.submit([new_mask(3, "annotator-1")])
    with refusal(InputError):
        _store(four, "a", 3, 4)
    assert four.images.find("#4").state == State.NEW


def test_pool__counts_images_that_were_drawn_once_each(catalogue: Catalogue) -> None:
    dataset = catalogue.images.dataset("clinic")
    rows = [new_image(n, tone="V-VI" if n < 4 else "I-II") for n in range(1, 7)]
    catalogue.images.add(dataset.id, rows, "tester")
    pool = catalogue.batches.pool()
    assert (pool.sampled, pool.at_random) == ({}, {})
    _store(catalogue, "a", 1, 2, 3, 4)
    catalogue.batches.close("a", "tester")
    _store(catalogue, "b", 1, 2, 6)
    pool = catalogue.batches.pool()
    assert (pool.sampled, pool.at_random) == ({"V-VI": 3, "I-II": 2}, {"V-VI": 2})


def test_close__frees_its_images_once(four: Catalogue) -> None:
    _store(four, "a", 1, 2)
    _store(four, "b", 3)
    assert four.batches.pool().in_open_batch == {1, 2, 3}
    assert four.batches.close("a", "tester")
    assert not four.batches.close("a", "tester")
    assert four.batches.pool().in_open_batch == {3}
    assert four.batches.get("a").closed_at is not None
    _store(four, "c", 1)
    assert four.batches.random_images() == {1, 3}
    event = four.events.last("batch_closed")
    assert event is not None
    assert event.detail == {"name": "a"}


def test_counts__by_tone_and_state(four: Catalogue) -> None:
    _store(four, "a", 1, 2, 3)
    four.masks.submit([new_mask(1, "annotator-1")], reviewer="reviewer-1")
    assert four.batches.counts() == {"a": {("V-VI", "accepted"): 1, ("V-VI", "queued"): 2}}


def test_started__those_in_a_state_and_those_named(four: Catalogue) -> None:
    _store(four, "a", 2)
    four.masks.submit([new_mask(3, "annotator-1")])
    started = four.batches.started((State.SUBMITTED,), four.batches.pool().in_open_batch)
    assert started.ids.tolist() == [2, 3]
    assert started.tones.tolist() == ["V-VI", "V-VI"]
    assert started.groups.tolist() == [2, 3]
    assert started.where(started.ids > 2).ids.tolist() == [3]
    assert four.batches.started((State.REWORK,), ()).ids.tolist() == []


def test_places__counted_by_tone_state_and_open_batch(four: Catalogue) -> None:
    _store(four, "a", 2)
    assert four.batches.places()[:2] == [("V-VI", "new", False, 3), ("V-VI", "queued", True, 1)]


@pytest.mark.parametrize("method", ["get", "members", "image_ids"])
def test_unknown_batch(four: Catalogue, method: str, refusal: Refusal) -> None:
    with refusal(NotFoundError):
        getattr(four.batches, method)("x")
    _store(four, "a", 1)
    with pytest.raises(NotFoundError, match=r"there are: a\)"):
        four.batches.close("x", "tester")
