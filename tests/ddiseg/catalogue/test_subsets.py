"""Subsets: stored once, never changed."""

from __future__ import annotations

import pytest

from ddiseg.catalogue import Catalogue
from ddiseg.errors import InputError, NotFoundError
from tests.ddiseg.rows import new_image
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases


@pytest.fixture
def five(catalogue: Catalogue) -> Catalogue:
    """Images #1 to #5; the odd ones of tone I-II, the even ones V-VI."""
    dataset = catalogue.images.dataset("clinic")
    rows = [new_image(n, tone="I-II" if n % 2 else "V-VI") for n in range(1, 6)]
    catalogue.images.add(dataset.id, rows, "tester")
    return catalogue


def test_store__members_and_sizes(five: Catalogue) -> None:
    assert five.subsets.store({"a": [1, 2, 3], "b": [4]}, {"seed": 7}, "tester") == ["a", "b"]
    assert five.subsets.members("a") == {1, 2, 3}
    assert five.subsets.sizes() == {"a": {"I-II": 2, "V-VI": 1}, "b": {"V-VI": 1}}
    assert five.subsets.get("a").drawn_by == {"seed": 7}
    assert five.subsets.names() == ["a", "b"]
    event = five.events.last("subset")
    assert event is not None
    assert event.detail == {"name": "b", "n": 1, "seed": 7}


def test_store__the_same_again_is_unchanged(five: Catalogue) -> None:
    five.subsets.store({"a": [1, 2]}, {"seed": 7}, "tester")
    assert five.subsets.store({"a": [2, 1]}, {"seed": 8}, "tester") == []
    assert five.subsets.get("a").drawn_by == {"seed": 7}


def test_names__in_one_order_whatever_the_language_of_the_database(five: Catalogue) -> None:
    names = ["C", "a-c", "aa", "b"]
    five.subsets.store({name: [1] for name in reversed(names)}, {}, "tester")
    assert five.subsets.names() == list(five.subsets.sizes()) == names
    with pytest.raises(NotFoundError, match=r"\(there are: C, a-c, aa, b\)"):
        five.subsets.get("x")


@pytest.mark.parametrize("members", [[1], [1, 2, 3], [3, 4]])
def test_store__never_changes(five: Catalogue, members: list[int], refusal: Refusal) -> None:
    five.subsets.store({"a": [1, 2]}, {}, "tester")
    with refusal(InputError):
        five.subsets.store({"new": [5], "a": members}, {}, "tester")
    assert five.subsets.members("a") == {1, 2}
    assert five.subsets.names() == ["a"]  # all or none


@pytest.mark.parametrize("lookup", ["members", "get"])
def test_unknown_subset__names_those_there_are(
    five: Catalogue, lookup: str, refusal: Refusal
) -> None:
    with refusal(NotFoundError):
        getattr(five.subsets, lookup)("x")
    five.subsets.store({"a": [1], "b": [2]}, {}, "tester")
    with refusal(NotFoundError):
        getattr(five.subsets, lookup)("x")
