"""Colours as values, and which known value a soft one is taken for."""

from __future__ import annotations

import numpy as np

from ddiseg.masks.colours import (
    colour_value,
    colour_values,
    nearest_values,
    too_near,
    value_text,
)

RED, DARK_RED = colour_value(128, 0, 0), colour_value(113, 0, 0)


def test_colour_values__are_no_grey_levels() -> None:
    pixels = np.array([[[128, 0, 0], [0, 0, 5]]], np.uint8)
    assert colour_values(pixels).tolist() == [[RED, colour_value(0, 0, 5)]]
    assert [value_text(RED), value_text(5)] == ["#800000", "5"]


def test_nearest_values__between_two_known_ones_is_neither() -> None:
    between, above = colour_value(121, 0, 0), colour_value(138, 10, 0)
    values = np.array(sorted([between, above, RED]))
    found, left = nearest_values(values, [RED, DARK_RED])
    assert found == {RED: RED, above: RED}
    assert left.tolist() == [between]


def test_nearest_values__a_grey_level_is_no_colour() -> None:
    found, left = nearest_values(np.array([0, 11, colour_value(0, 0, 3)]), [0, 20])
    assert found == {0: 0, 11: 20}
    assert left.tolist() == [colour_value(0, 0, 3)]


def test_too_near() -> None:
    assert too_near([RED, DARK_RED, 0]) == (DARK_RED, RED)
    assert too_near([0, 21, RED]) is None
    assert too_near([0, 20]) == (0, 20)
