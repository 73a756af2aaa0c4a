"""Slots by tone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddiseg.sampling.quotas import move_towards, share_out

ROOM = {"I-II": 100, "III-IV": 100, "V-VI": 100}


@pytest.mark.parametrize(
    ("seed", "shares"), [(0, [4, 3, 3]), (1, [3, 4, 3]), (2, [3, 3, 4]), (3, [4, 3, 3])]
)
def test_share_out__the_remainder_moves_with_the_seed(seed: int, shares: list[int]) -> None:
    assert list(share_out(10, ROOM, seed).values()) == shares


def test_share_out__what_a_tone_has_no_room_for_goes_to_the_others() -> None:
    assert share_out(30, {**ROOM, "V-VI": 2}) == {"I-II": 14, "III-IV": 14, "V-VI": 2}
    assert share_out(30, {"I-II": 3, "V-VI": 0}) == {"I-II": 3, "V-VI": 0}
    assert share_out(30, {}) == {}


def test_share_out__what_is_odd_goes_to_the_tone_with_the_fewest_so_far() -> None:
    so_far = {"I-II": 8, "III-IV": 7, "V-VI": 8}
    assert share_out(10, ROOM, 0, so_far) == {"I-II": 3, "III-IV": 4, "V-VI": 3}
    assert share_out(11, ROOM, 2, so_far) == {"I-II": 3, "III-IV": 4, "V-VI": 4}
    # Even shares are even, whatever there was before.
    assert share_out(12, ROOM, 0, {"I-II": 99}) == dict.fromkeys(ROOM, 4)


def test_share_out__over_many_rounds_the_tones_are_even() -> None:
    so_far = dict.fromkeys(ROOM, 0)
    for _ in range(8):
        shares = share_out(2, ROOM, 0, so_far)
        so_far = {tone: so_far[tone] + shares[tone] for tone in ROOM}
    assert sorted(so_far.values()) == [5, 5, 6]


def test_share_out__a_size_beyond_counting() -> None:
    room = dict.fromkeys(ROOM, 10**18)
    assert set(share_out(10**18 - 1, room).values()) == {333333333333333333}


@given(
    st.integers(0, 60), st.dictionaries(st.text(max_size=2), st.integers(0, 30)), st.integers(0, 9)
)
def test_share_out__full_and_even(size: int, room: dict[str, int], seed: int) -> None:
    shares = share_out(size, room, seed, {tone: seed for tone in list(room)[::2]})
    assert list(shares) == list(room)
    assert sum(shares.values()) == min(size, sum(room.values()))
    assert all(shares[tone] <= room[tone] for tone in room)
    unfilled = [shares[tone] for tone in room if shares[tone] < room[tone]]
    assert not unfilled or max(shares.values()) - min(unfilled) <= 1


def test_move_towards__a_third_of_the_others() -> None:
    shares = {"I-II": 10, "III-IV": 9, "V-VI": 11}
    assert move_towards("V-VI", shares, ROOM) == {"I-II": 7, "III-IV": 6, "V-VI": 17}


def test_move_towards__no_more_than_there_is_room_for() -> None:
    shares = {"I-II": 10, "III-IV": 10, "V-VI": 10}
    moved = move_towards("V-VI", shares, {**ROOM, "V-VI": 14})
    assert moved == {"I-II": 7, "III-IV": 9, "V-VI": 14}
