from __future__ import annotations

import numpy as np
import pytest

from ddiseg.errors import InputError
from ddiseg.model.lighting import D65, colour_temperature, daylight_gains, exposure, one_grey_level
from tests.wording import Refusal

GREY = np.full((2, 3, 3), 128, np.uint8)


def _linear(value: int) -> float:
    """sRGB's transfer function written out for one value (IEC 61966-2-1)."""
    v = value / 255
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("stops", [-1.0, -0.3, 0.3, 1.0])
def test_exposure__multiplies_linear_light(stops: float) -> None:
    changed = exposure(stops).apply(GREY)
    assert changed.shape == GREY.shape
    assert changed.dtype == np.uint8
    for value in np.unique(changed):
        assert _linear(int(value)) == pytest.approx(2**stops * _linear(128), rel=0.01)


def test_exposure__clips_what_gets_too_bright_and_keeps_black() -> None:
    ends = np.array([[[0, 0, 0], [255, 250, 240]]], np.uint8)
    assert exposure(1).apply(ends).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(("kelvin", "redder"), [(-500, True), (500, False)])
def test_colour_temperature__lower_is_redder_and_grey_keeps_its_luminance(
    kelvin: float, redder: bool
) -> None:
    red, green, blue = (int(v) for v in colour_temperature(kelvin).apply(GREY)[0, 0])
    assert (red > 128 > blue) is redder
    assert (red < 128 < blue) is not redder
    luminance = 0.2126 * _linear(red) + 0.7152 * _linear(green) + 0.0722 * _linear(blue)
    assert luminance == pytest.approx(_linear(128), rel=0.01)


def test_daylight__d65_is_white_and_both_formulas_meet_at_7000_kelvin() -> None:
    np.testing.assert_allclose(daylight_gains(D65), 1, atol=2e-3)
    np.testing.assert_allclose(daylight_gains(7000), daylight_gains(7000.001), atol=2e-3)


def test_daylight__chromaticity_of_d50() -> None:
    """CIE 15 gives x, y = 0.3457, 0.3585 for D50, whose temperature is 5003 K."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]
    )  # fmt: skip
    xyz = to_xyz @ daylight_gains(5003)
    np.testing.assert_allclose(xyz[:2] / xyz.sum(), (0.3457, 0.3585), atol=2e-4)


def test_one_grey_level__is_the_smallest_change() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    changed = one_grey_level().apply(pixels).astype(int) - pixels
    assert changed[0, :255].tolist() == [[1, 1, 1]] * 255
    assert changed[0, 255].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("make", "by"), [(exposure, 0), (exposure, 5), (colour_temperature, 0), (colour_temperature, -3000), (exposure, float("nan"))])  # fmt: skip
def test_change__none_or_too_much_is_refused(make: object, by: float, refusal: Refusal) -> None:
    assert callable(make)
    with refusal(InputError):
        make(by)
