from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedd.probes.calibration import calibrate, expected_calibration_error, mean_softmax


def drawn(pixels: int, seed: int, sharpness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1, P, 4) and labels drawn from the very probabilities that logits / sharpness give."""
    rng = torch.Generator().manual_seed(seed)
    honest = 2 * torch.randn(pixels, 4, generator=rng)
    labels = torch.multinomial(honest.softmax(1), 1, generator=rng)[:, 0]
    return (honest * sharpness)[None], labels


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_calibrate__finds_the_temperature_that_was_put_in(sharpness: float) -> None:
    logits, labels = drawn(20_000, 0, sharpness)
    found = calibrate(logits, labels, images=7)
    assert found.temperature == pytest.approx(sharpness, rel=0.05)
    assert found.ece < 0.015
    assert (found.images, found.pixels) == (7, 20_000)
    if sharpness != 1.0:
        assert found.ece_before > 0.05


def test_calibrate__classes_that_are_never_predicted_do_not_matter() -> None:
    logits, labels = drawn(5_000, 1, 2.0)
    more = torch.cat([logits, torch.full((1, 5_000, 1), -torch.inf)], 2)
    assert calibrate(more, labels, 1).temperature == pytest.approx(
        calibrate(logits, labels, 1).temperature, rel=1e-6
    )


def test_calibrate__always_right_stays_within_bounds() -> None:
    labels = torch.zeros(100, dtype=torch.long)
    found = calibrate(torch.tensor([[[1.0, 0.0]]]).repeat(1, 100, 1), labels, 1)
    assert math.isfinite(found.ece)
    assert 0.04 < found.temperature < 21


def test_ece__by_hand() -> None:
    """Four pixels at 0.9 confidence, half right; four at 0.6, all right: (0.4 + 0.4) / 2."""
    probabilities = torch.tensor([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 4)
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.4)


@pytest.mark.property
@given(st.integers(0, 10_000))
def test_ece__as_bin_by_bin(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    probabilities = (3 * torch.randn(200, 3, generator=rng)).softmax(1)
    labels = torch.randint(0, 3, (200,), generator=rng)
    confidence, predicted = probabilities.max(1)
    slow = 0.0
    for low in range(15):
        inside = (confidence * 15 >= low) & (confidence * 15 < low + 1 + (low == 14))
        if inside.any():
            accuracy = (predicted == labels)[inside].double().mean()
            slow += float(inside.double().mean() * (accuracy - confidence[inside].mean()).abs())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(slow, abs=1e-5)


def test_mean_softmax__members_have_one_voice_each() -> None:
    logits = torch.tensor([[[100.0, 0.0]], [[0.0, 1.0]]])
    expected = (1 + 1 / (1 + math.e)) / 2
    assert float(mean_softmax(logits, 1.0)[0, 0]) == pytest.approx(expected, rel=1e-5)
