"""The share that is drawn: right in every tone over all pushes, whatever is pushed at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddiseg.catalogue.tables import Image
from ddiseg.labelstudio.allocation import StratifiedAllocation

TONES = st.sampled_from(["I-II", "III-IV", "V-VI", "unknown"])
PERCENT = st.integers(0, 1000).map(lambda tenths: tenths / 10)
#: Pushes one after the other, each of images of these tones.
PUSHES = st.lists(st.lists(TONES, max_size=12), max_size=20)


def images(*tones: str, start: int = 0) -> list[Image]:
    return [Image(id=n, content_hash=f"{n:064x}", tone=t) for n, t in enumerate(tones, start)]


def one_by_one(tones: Iterable[str], percent: float, what: str = "control") -> list[str]:
    """Tones of what is drawn where each push is of one image."""
    allocation, drawn = StratifiedAllocation({}), []
    for number, tone in enumerate(tones):
        drawn += [tone] * len(allocation.draw(what, images(tone, start=number), percent, 0))
    return drawn


@pytest.mark.property
@given(st.lists(TONES, max_size=60), PERCENT, st.integers(0, 5))
def test_draw__in_one_push_the_total_is_exact_and_every_tone_within_one(
    tones: list[str], percent: float, seed: int
) -> None:
    there = images(*tones)
    drawn = StratifiedAllocation({}).draw("control", there, percent, seed)
    assert abs(len(drawn) - len(tones) * percent / 100) <= 0.5 + 1e-6
    for tone, n in Counter(tones).items():
        of_tone = sum(image.tone == tone for image in there if image.id in drawn)
        assert abs(of_tone - n * percent / 100) < 1


@pytest.mark.property
@given(PUSHES, PERCENT, st.integers(0, 5))
def test_draw__any_pushes_keep_every_tone_within_one(
    pushes: list[list[str]], percent: float, seed: int
) -> None:
    _check(pushes, [percent] * len(pushes), seed)


@pytest.mark.property
@given(PUSHES, st.data(), st.integers(0, 5))
def test_draw__so_does_another_percentage_in_each(
    pushes: list[list[str]], data: st.DataObject, seed: int
) -> None:
    _check(pushes, [data.draw(PERCENT) for _ in pushes], seed)


def _check(pushes: Sequence[Sequence[str]], percents: Sequence[float], seed: int) -> None:
    """After every push each tone within one of its exact share, and the total within two.

    In the worst order of four tones, no rule keeps both the tones and the total within one: whoever
    pushes image by image can send a tone that must be drawn from just where the total must not.
    """
    allocation, drawn, there = StratifiedAllocation({}), Counter[str](), 0
    exact: defaultdict[str, float] = defaultdict(float)
    for tones, percent in zip(pushes, percents, strict=True):
        batch = images(*tones, start=there)
        there += len(batch)
        found = allocation.draw("control", batch, percent, seed)
        drawn.update(image.tone for image in batch if image.id in found)
        for tone in tones:
            exact[tone] += percent / 100
        assert all(abs(drawn[tone] - exact[tone]) < 1 + 1e-6 for tone in exact)
        assert abs(drawn.total() - sum(exact.values())) < 2
        # What a push writes down is all that the next one needs.
        allocation = StratifiedAllocation(allocation.carry)


def test_draw__a_fifth_of_pushes_of_one() -> None:
    assert Counter(one_by_one(["I-II", "III-IV", "V-VI"] * 50, 20)) == {
        "I-II": 10,
        "III-IV": 10,
        "V-VI": 10,
    }
    assert len(one_by_one(["V-VI"] * 200, 50)) == 100
    assert len(one_by_one(["V-VI"] * 200, 60)) == 120


def test_draw__no_tone_is_always_the_one_that_goes_without() -> None:
    allocation, drawn = StratifiedAllocation({}), Counter[str]()
    for week in range(8):
        batch = images(*["I-II", "III-IV", "V-VI"] * 4, start=12 * week)
        found = allocation.draw("control", batch, 20, 0)
        drawn.update(image.tone for image in batch if image.id in found)
    assert sorted(drawn.values()) == [6, 6, 7]


def test_draw__the_tone_furthest_behind_first() -> None:
    allocation = StratifiedAllocation({"control": {"V-VI": 0.5, "I-II": -0.3}})
    [drawn] = allocation.draw("control", images("I-II", "III-IV", "V-VI"), 20, 0)
    assert drawn == 2
    assert allocation.carry == {"control": {"V-VI": -0.3, "I-II": -0.1, "III-IV": 0.2}}


def test_draw__no_more_of_a_tone_than_there_is() -> None:
    allocation = StratifiedAllocation({"control": {"I-II": 0.9, "V-VI": 0.95}})
    assert allocation.draw("control", images("V-VI"), 90, 0) == {0}
    assert allocation.carry == {"control": {"I-II": 0.9, "V-VI": 0.85}}


def test_draw__ties_are_not_settled_by_name() -> None:
    first = set()
    for seed in range(20):
        there = images("I-II", "III-IV", "V-VI")
        [drawn] = StratifiedAllocation({}).draw("control", there, 34, seed)
        first.add(there[drawn].tone)
    assert first == {"I-II", "III-IV", "V-VI"}


@pytest.mark.property
@given(st.lists(TONES, max_size=60), st.floats(-0.99, 0.99), st.integers(0, 5))
def test_draw__all_and_none_whatever_is_owed(tones: list[str], owed: float, seed: int) -> None:
    before = {"control": {"I-II": owed, "V-VI": owed}}
    allocation = StratifiedAllocation(before)
    assert allocation.draw("control", images(*tones), 0, seed) == set()
    assert allocation.draw("control", images(*tones), 100, seed) == set(range(len(tones)))
    assert allocation.carry == before


def test_draw__what_is_owed_to_one_draw_is_not_owed_to_another() -> None:
    allocation = StratifiedAllocation({"control": {"V-VI": 0.9}})
    assert allocation.draw("readers", images("V-VI"), 20, 0) == set()
    assert allocation.draw("control", images("V-VI"), 20, 0) == {0}


@pytest.mark.property
@given(st.permutations(range(20)))
def test_draw__row_numbers_and_order_decide_nothing(order: list[int]) -> None:
    there = images(*["I-II", "V-VI"] * 10)
    drawn = StratifiedAllocation({}).draw("control", there, 30, 0)
    hashes = {image.content_hash for image in there if image.id in drawn}
    renumbered = [
        Image(id=100 + n, content_hash=there[i].content_hash, tone=there[i].tone)
        for n, i in enumerate(order)
    ]
    drawn = StratifiedAllocation({}).draw("control", renumbered, 30, 0)
    assert {image.content_hash for image in renumbered if image.id in drawn} == hashes


def test_draw__seed_and_purpose_decide() -> None:
    there = images(*["I-II"] * 100)
    draws = {
        frozenset(StratifiedAllocation({}).draw(what, there, 20, seed))
        for seed in (0, 1)
        for what in ("a", "b")
    }
    assert len(draws) == 4
    assert StratifiedAllocation({}).draw("a", there, 20, 0) == StratifiedAllocation({}).draw(
        "a", there, 20, 0
    )
