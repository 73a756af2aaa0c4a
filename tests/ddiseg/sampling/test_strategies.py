"""Choosing within a tone: what each strategy takes, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from ddiseg.sampling import strategies
from ddiseg.sampling.strategies import Candidates, Pick, Strategy, effective_strategy, pick
from tests.wording import Refusal

NAN = float("nan")


def _candidates(
    uncertainties: Sequence[float],
    descriptors: Sequence[Sequence[float]] | None = None,
    labelled: Sequence[Sequence[float]] = (),
    quality: Sequence[float] | None = None,
) -> Candidates:
    points = np.array(descriptors or [[NAN]] * len(uncertainties), np.float32)
    centres = np.array(labelled, np.float32).reshape(len(labelled), points.shape[1])
    expected = np.array(quality or [NAN] * len(uncertainties), np.float64)
    return Candidates(np.array(uncertainties, np.float64), expected, points, centres)


def _take(barred: Collection[int] = ()) -> Callable[[int], bool]:
    """Takes each index once, unless it is barred."""
    asked = set(barred)

    def take(index: int) -> bool:
        free = index not in asked
        asked.add(index)
        return free

    return take


def _chosen(
    strategy: Strategy, candidates: Candidates, slots: int, barred: Collection[int] = ()
) -> list[int]:
    return [each.index for each in pick(strategy, candidates, slots, _take(barred))]


def test_random__by_rank() -> None:
    picks = pick(Strategy.RANDOM, _candidates([0.1, 0.9, 0.5]), 2, _take(barred=[0]))
    assert picks == [Pick(1, "next by seed", True), Pick(2, "next by seed", True)]


def test_uncertainty__most_uncertain_first_and_says_the_rank() -> None:
    picks = pick(Strategy.UNCERTAINTY, _candidates([0.1, 0.9, NAN, 0.5]), 2, _take(barred=[1]))
    assert picks == [
        Pick(3, "uncertainty 0.5, rank 2 of 3", False),
        Pick(0, "uncertainty 0.1, rank 3 of 3", False),
    ]


def test_uncertainty__of_equals_the_first_by_rank() -> None:
    assert _chosen(Strategy.UNCERTAINTY, _candidates([0.5, 0.9, 0.5, 0.9]), 3) == [1, 3, 0]


def test_uncertainty__not_painted_come_last_and_are_no_random_sample(
    wording: SnapshotAssertion,
) -> None:
    picks = pick(Strategy.UNCERTAINTY, _candidates([NAN, 0.1, NAN]), 3, _take())
    assert [(each.index, each.random) for each in picks] == [(1, False), (0, False), (2, False)]
    assert picks[1].reason == wording


def test_quality__lowest_expected_iou_first_then_the_most_uncertain_without_one() -> None:
    rows = _candidates([0.1, 0.9, 0.2, NAN, NAN], quality=[0.75, NAN, 0.25, NAN, 0.5])
    picks = pick(Strategy.QUALITY, rows, 5, _take())
    assert picks[:4] == [
        Pick(2, "expected IoU 0.25, rank 1 of 4", False),
        Pick(4, "expected IoU 0.50, rank 2 of 4", False),
        Pick(0, "expected IoU 0.75, rank 3 of 4", False),
        Pick(1, "uncertainty 0.9, rank 4 of 4", False),
    ]
    assert (picks[4].index, picks[4].random) == (3, False)


def test_uncertainty__whatever_the_expected_iou() -> None:
    rows = _candidates([0.1, 0.9, NAN], quality=[0.25, 0.75, 0.5])
    assert _chosen(Strategy.UNCERTAINTY, rows, 3) == [1, 0, 2]


def test_diversity__farthest_from_what_is_labelled_then_from_what_is_chosen() -> None:
    line = _candidates([NAN] * 4, [[1.0], [9.0], [10.0], [5.0]], labelled=[[0.0]])
    assert _chosen(Strategy.DIVERSITY, line, 4) == [2, 3, 0, 1]
    # An even line of mean 5 and this standard deviation.
    deviation = np.std([0, 1, 9, 10, 5])
    picks = pick(Strategy.DIVERSITY, line, 1, _take())
    assert picks[0].reason == (f"farthest from the labelled images: distance {10 / deviation:.2f}")


def test_diversity__nothing_labelled_starts_at_the_first_by_rank(
    wording: SnapshotAssertion,
) -> None:
    picks = pick(Strategy.DIVERSITY, _candidates([NAN] * 3, [[5.0], [0.0], [6.0]]), 2, _take())
    assert [each.index for each in picks] == [0, 1]
    assert picks[0].reason == wording


def test_diversity__each_number_counts_alike() -> None:
    wide = [[0.0, 0.0], [1000.0, 0.0], [900.0, 3.0], [0.0, 0.1]]
    assert _chosen(Strategy.DIVERSITY, _candidates([NAN] * 4, wide, labelled=[[0.0, 0.0]]), 1) == [
        2
    ]


def test_diversity__one_that_is_refused_is_no_centre() -> None:
    line = _candidates([NAN] * 3, [[10.0], [9.0], [2.0]], labelled=[[0.0]])
    assert _chosen(Strategy.DIVERSITY, line, 1, barred=[0]) == [1]


def test_diversity__a_number_that_never_differs() -> None:
    flat = _candidates([NAN] * 2, [[1.0, 7.0], [2.0, 7.0]], labelled=[[0.0, 7.0]])
    assert _chosen(Strategy.DIVERSITY, flat, 1) == [1]


def test_mixed__farthest_among_the_most_uncertain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "BREADTH", 2)
    line = _candidates([0.9, 0.8, 0.1, 0.2], [[1.0], [2.0], [50.0], [3.0]], labelled=[[0.0]])
    picks = pick(Strategy.MIXED, line, 1, _take())
    assert [each.index for each in picks] == [1]
    assert picks[0].reason.startswith(
        "among the 2 most uncertain of 4, farthest from the labelled images: distance 0."
    )
    # Where none of the first may be taken, the next most uncertain are looked through.
    assert _chosen(Strategy.MIXED, line, 1, barred=[0, 1]) == [2]


def test_mixed__farthest_among_the_lowest_expected_iou(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "BREADTH", 2)
    places = [[1.0], [2.0], [50.0], [3.0]]
    line = _candidates([0.1] * 4, places, labelled=[[0.0]], quality=[0.1, 0.2, 0.9, 0.3])
    picks = pick(Strategy.MIXED, line, 1, _take())
    assert [each.index for each in picks] == [1]
    assert picks[0].reason.startswith("among the 2 with the lowest expected IoU of 4, farthest")
    assert _chosen(Strategy.MIXED, line, 1, barred=[0, 1]) == [2]


@pytest.mark.parametrize(
    ("painted", "described", "used"),
    [
        ([1, 0], [1, 0], Strategy.MIXED),
        ([1, 0], [0, 0], Strategy.QUALITY),
        ([1, 0], [0, 1], Strategy.QUALITY),
        ([0, 0], [0, 1], Strategy.DIVERSITY),
        ([0, 0], [0, 0], Strategy.RANDOM),
    ],
)
def test_in_effect__mixed_rests_on_what_there_is(
    painted: list[int], described: list[int], used: Strategy
) -> None:
    known = np.array(painted, bool), np.array(described, bool)
    assert effective_strategy(Strategy.MIXED, *known) is used
    assert effective_strategy(Strategy.DIVERSITY, *known) is Strategy.DIVERSITY


def test_mixed__nothing_known_is_a_random_draw() -> None:
    assert pick(Strategy.MIXED, _candidates([NAN, NAN]), 1, _take()) == [
        Pick(0, "next by seed", True)
    ]


def test_diversity__projected_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 200))
    points[17] += 40
    known = _candidates([NAN] * 40, points.tolist(), rng.normal(size=(5, 200)).tolist())
    exact = pick(Strategy.DIVERSITY, known, 1, _take())[0]
    monkeypatch.setattr(strategies, "_EXACT", 39)
    projected = pick(Strategy.DIVERSITY, known, 1, _take())[0]
    assert exact.index == projected.index == 17
    assert exact.reason != projected.reason
    distances = [float(each.reason.rsplit(" ", 1)[1]) for each in (exact, projected)]
    assert distances[1] == pytest.approx(distances[0], rel=0.3)


@pytest.mark.property
@given(
    st.sampled_from(Strategy),
    st.lists(
        st.tuples(st.floats(0, 1) | st.just(NAN), st.booleans(), st.integers(0, 3)), max_size=30
    ),
    st.integers(0, 12),
    st.sets(st.integers(0, 29)),
)
def test_pick__as_many_as_there_are_each_once(
    strategy: Strategy, rows: list[tuple[float, bool, int]], slots: int, barred: set[int]
) -> None:
    points = [[float(place), 1.0] if known else [NAN, NAN] for _, known, place in rows]
    candidates = Candidates(
        np.array([uncertainty for uncertainty, _, _ in rows], np.float64),
        np.array([place / 4 if known else NAN for _, known, place in rows], np.float64),
        np.array(points, np.float32).reshape(len(rows), 2),
        np.zeros((1, 2), np.float32),
    )
    chosen = _chosen(strategy, candidates, slots, barred)
    free = set(range(len(rows))) - barred
    assert len(chosen) == len(set(chosen)) == min(slots, len(free))
    assert set(chosen) <= free


def test_candidates__arrays_that_do_not_go_together(refusal: Refusal) -> None:
    with refusal(ValueError):
        _numbers(2, 2, (1, 1))
    with pytest.raises(ValueError, match="quality has shape"):
        _numbers(1, 2, (1, 1))
    with pytest.raises(ValueError, match="labelled has shape"):
        _numbers(1, 1, (1, 2))


def _numbers(uncertainties: int, quality: int, embeddings: tuple[int, int]) -> Candidates:
    return Candidates(
        *(np.zeros(uncertainties), np.zeros(quality)),
        *(np.zeros(embeddings, np.float32), np.zeros((0, 1), np.float32)),
    )
