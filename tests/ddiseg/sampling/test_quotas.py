"""Quotas: slots by tone, and the tone that gets more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddiseg.catalogue import Catalogue, NewModelVersion
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError
from ddiseg.sampling.quotas import focus_on, share_out, worst_tone
from tests.wording import Refusal

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


@pytest.mark.property
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


def test_focus_on__a_third_of_the_others() -> None:
    shares = {"I-II": 10, "III-IV": 9, "V-VI": 11}
    assert focus_on("V-VI", shares, ROOM) == {"I-II": 7, "III-IV": 6, "V-VI": 17}


def test_focus_on__no_more_than_there_is_room_for() -> None:
    shares = {"I-II": 10, "III-IV": 10, "V-VI": 10}
    moved = focus_on("V-VI", shares, {**ROOM, "V-VI": 14})
    assert moved == {"I-II": 7, "III-IV": 9, "V-VI": 14}


TONES = ("I-II", "V-VI")


def _version(catalogue: Catalogue, gate: dict[str, Any] | None = None) -> ModelVersion:
    new = NewModelVersion("f", "small", "b", {}, [], {}, "1.0", gate=gate)
    return catalogue.models.add(new, "tester")


def _gate(**lower: float) -> dict[str, Any]:
    figures = {
        tone.replace("_", "-"): {"value": 0.8, "interval": [low, 0.9], "n": 20}
        for tone, low in lower.items()
    }
    return {"by_tone": {t: {"candidate": {"lesion_iou": f}} for t, f in figures.items()}}


def _evaluate(catalogue: Catalogue, models: dict[str, int], **lower: float | None) -> None:
    by_tone = {
        tone.replace("_", "-"): {
            "lesion": {
                "iou_mean": 0.7,
                "iou_mean_ci95": None if low is None else [low, 0.9],
                "n": 12,
            }
        }
        for tone, low in lower.items()
    }
    catalogue.evaluations.add({"models": models, "by_tone": by_tone}, [], "tester")


def test_worst__an_evaluation_of_the_model_is_newer_than_its_gate(catalogue: Catalogue) -> None:
    version = _version(catalogue, _gate(I_II=0.3, V_VI=0.6))
    assert worst_tone(catalogue, version, TONES).tone == "I-II"
    _evaluate(catalogue, {version.name: 18}, I_II=0.6, V_VI=0.5)
    worst = worst_tone(catalogue, version, TONES)
    assert (worst.tone, worst.estimate.interval, worst.estimate.n) == ("V-VI", (0.5, 0.9), 12)
    assert worst.source.startswith(f"evaluation of {version.name}, 20")


def test_worst__an_evaluation_of_others_does_not_count(catalogue: Catalogue) -> None:
    version = _version(catalogue, _gate(I_II=0.3, V_VI=0.6))
    _evaluate(catalogue, {version.name: 9, "fedd-0": 9}, I_II=0.6, V_VI=0.5)
    assert worst_tone(catalogue, version, TONES).source == f"gate of {version.name}"


def test_worst__out_of_the_tones_drawn(catalogue: Catalogue) -> None:
    version = _version(catalogue)
    _evaluate(catalogue, {version.name: 27}, I_II=0.6, III_IV=0.2, V_VI=0.7)
    assert worst_tone(catalogue, version, TONES).tone == "I-II"


@pytest.mark.parametrize("figures", [{"I_II": 0.1, "V_VI": None}, {"I_II": 0.1}])
def test_worst__a_tone_of_which_too_little_is_known(
    catalogue: Catalogue, figures: dict[str, float | None]
) -> None:
    """Else a rare tone would lose its slots exactly where nothing is known of it."""
    version = _version(catalogue)
    _evaluate(catalogue, {version.name: 27}, **figures)
    worst = worst_tone(catalogue, version, TONES)
    n = 12 if "V_VI" in figures else 0
    assert (worst.tone, worst.estimate.interval, worst.estimate.n) == ("V-VI", None, n)
    assert "V-VI has too few patients for an interval of its lesion IoU (n = " in str(worst)


@pytest.mark.parametrize(("n", "tone"), [(9, "V-VI"), (10, "I-II")])
def test_worst__an_old_interval_of_too_few_patients_does_not_count(
    catalogue: Catalogue, n: int, tone: str
) -> None:
    version = _version(catalogue)
    by_tone = {
        "I-II": {"lesion": {"iou_mean": 0.6, "iou_mean_ci95": [0.5, 0.7], "n": 20}},
        "V-VI": {
            "lesion": {"iou_mean": 0.9, "iou_mean_ci95": [0.88, 0.92], "n": 20, "patients": n}
        },
    }
    found = {"models": {version.name: 20 + n}, "by_tone": by_tone}
    catalogue.evaluations.add(found, [], "tester")
    worst = worst_tone(catalogue, version, TONES)
    assert worst.tone == tone
    assert ("too few patients for an interval" in str(worst)) == (n == 9)


def test_worst__no_figures(catalogue: Catalogue, refusal: Refusal) -> None:
    with refusal(InputError):
        worst_tone(catalogue, None, TONES)
    version = _version(catalogue)
    with pytest.raises(
        InputError, match=f"of the lesion IoU of {version.name} needs: 'ddiseg refresh --gate'"
    ):
        worst_tone(catalogue, version, TONES)
