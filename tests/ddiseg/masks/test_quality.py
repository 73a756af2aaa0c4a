"""What is expected of a prediction: the number to sort by, and the words for people."""

from __future__ import annotations

import numpy as np
import pytest

from ddiseg.masks import Rating, Triage, by_level, in_words, rate

LESION_AND_SKIN = np.array([[4, 1], [4, 4]], np.uint8)
LESION_AND_MARKER = np.array([[4, 1], [2, 4]], np.uint8)
SKIN = np.full((2, 2), 4, np.uint8)

EXPECTED = {1: 0.75, 2: 0.25, 3: 0.125, 4: 0.5}


def test_rate__nothing_is_known_without_an_expected_iou() -> None:
    assert rate({}, LESION_AND_SKIN) == Rating(None, None)


def test_rate__by_name_and_neither_skin_nor_what_is_not_predicted_counts() -> None:
    rating = rate(EXPECTED, LESION_AND_SKIN)
    assert rating.expected_iou == {"lesion": 0.75, "marker": 0.25, "ruler": 0.125, "skin": 0.5}
    assert rating.quality == 0.75


def test_rate__the_lowest_of_what_is_predicted() -> None:
    assert rate(EXPECTED, LESION_AND_MARKER).quality == 0.25


def test_rate__a_lesion_counts_where_none_is_predicted() -> None:
    assert rate({1: 0.05, 4: 0.9}, SKIN).quality == 0.05


def test_rate__outside_0_to_1_or_no_number() -> None:
    assert rate({1: 1.00001, 4: -0.1}, SKIN) == Rating({"lesion": 1.0, "skin": 0.0}, 1.0)
    assert rate({1: float("nan"), 4: 0.5}, SKIN) == Rating({"skin": 0.5}, None)


@pytest.mark.parametrize(
    ("quality", "level"),
    [
        (1.0, Triage.LIKELY_GOOD),
        (0.8, Triage.LIKELY_GOOD),
        (0.79, Triage.CHECK),
        (0.65, Triage.CHECK),
        (0.64, Triage.CORRECT),
        (0.0, Triage.CORRECT),
    ],
)
def test_triage__bounds(quality: float, level: Triage) -> None:
    assert Triage.of(quality) is level
    assert in_words(quality) == f"expected IoU {quality:.2f}: {level}"


def test_by_level__each_level_the_worst_last() -> None:
    assert list(by_level([0.9, 0.1, float("nan"), 0.2]).items()) == [
        (Triage.LIKELY_GOOD, 1),
        (Triage.CHECK, 0),
        (Triage.CORRECT, 2),
    ]
