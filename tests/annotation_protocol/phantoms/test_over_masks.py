"""Phantoms over given masks: every class is to be seen where the mask says so, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_protocol.phantoms.canvas import Canvas
from annotation_protocol.phantoms.over_masks import _lesion, _signed_distance, render_over
from annotation_protocol.phantoms.phantoms import (
    BACKGROUND,
    LESION,
    MARKER,
    RULER,
    SKIN,
    TONES,
    Tone,
)
from tests.wording import Refusal

SIZE = 96


def _mask(*classes: int) -> NDArray[np.uint8]:
    """Skin with a region of each of `classes` in its own corner of the image."""
    mask = np.full((SIZE, SIZE), SKIN, np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    places = {
        LESION: (y - 34) ** 2 + (x - 40) ** 2 < 14**2,
        MARKER: abs(np.hypot(y - 34, x - 40) - 22) < 2,
        RULER: (y > 74) & (y < 90) & (x < 70),
        BACKGROUND: x > 80,
    }
    for class_id in classes:
        mask[places[class_id]] = class_id
    return mask


def _render(mask: NDArray[np.uint8], tone: Tone = "III-IV", seed: int = 0) -> NDArray[np.uint8]:
    return render_over(mask, tone, np.random.default_rng(seed))


def test_render__same_seed_same_bytes() -> None:
    mask = _mask(LESION, MARKER, RULER, BACKGROUND)
    one, again, other = _render(mask), _render(mask), _render(mask, seed=1)
    assert one.shape == (SIZE, SIZE, 3)
    assert one.dtype == np.uint8
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("class_id", [LESION, MARKER, RULER, BACKGROUND])
@pytest.mark.parametrize("tone", TONES)
def test_render__a_class_changes_its_own_pixels(class_id: int, tone: Tone) -> None:
    """Its region differs from the skin around it; over some seeds, for a lesion may be faint."""
    mask = _mask(class_id)
    away = []
    for seed in range(6):
        image = _render(mask, tone, seed).astype(float)
        inside, outside = image[mask == class_id], image[mask == SKIN]
        away.append(np.abs(inside.mean(0) - outside.mean(0)).max())
    assert max(away) > 15


@pytest.mark.parametrize("class_id", [MARKER, RULER, BACKGROUND])
def test_render__pixels_far_from_a_region_stay_skin(class_id: int) -> None:
    """Everything that is drawn before a class's own region is the same, so far away nothing moves."""
    mask = _mask(class_id)
    image, plain = _render(mask).astype(float), _render(_mask()).astype(float)
    near = _signed_distance(mask == class_id) > -4
    skin_away = np.abs(image[~near].mean(0) - plain[~near].mean(0)).max()
    region_away = np.abs(image[mask == class_id].mean(0) - plain[mask == class_id].mean(0)).max()
    assert skin_away < region_away / 2


def test_lesion__is_where_the_mask_says() -> None:
    """On flat skin: changed inside, nothing two radii away, where not even reddened skin reaches."""
    region = _mask(LESION) == LESION
    skin_colour = np.array([0.7, 0.5, 0.4], np.float32)
    flat = np.broadcast_to(skin_colour, (SIZE, SIZE, 3)).astype(np.float32)
    far = _signed_distance(region) < -2 * np.sqrt(region.sum() / np.pi)
    for seed in range(6):
        canvas = Canvas(np.random.default_rng(seed), SIZE)
        changed = np.abs(_lesion(canvas, flat, skin_colour, region, wild=0.0) - flat).max(-1)
        assert changed[far].max() < 0.02
        assert changed[region].mean() > 0.02


def test_render__no_lesion_and_no_skin() -> None:
    cloth = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    assert _render(cloth).std() > 0
    assert _render(_mask()).std() > 0


@pytest.mark.parametrize("class_id", [LESION, MARKER, RULER, BACKGROUND])
def test_render__a_single_pixel(class_id: int) -> None:
    mask = _mask()
    mask[40, 50] = class_id
    assert _render(mask).shape == (SIZE, SIZE, 3)


@pytest.mark.slow
def test_render__darker_skin_for_darker_tones() -> None:
    light, dark = (
        np.mean([_render(_mask(), tone, seed).mean() for seed in range(4)])
        for tone in ("I-II", "V-VI")
    )
    assert light > dark + 60


@pytest.mark.parametrize(
    "mask",
    [np.full((8, 9), SKIN, np.uint8), np.full((8, 8), 7, np.uint8), np.full((8, 8), 255, np.uint8)],
)
def test_render__no_mask_of_the_protocol(mask: NDArray[np.uint8], refusal: Refusal) -> None:
    with refusal(ValueError):
        _render(mask)


def test_signed_distance__crosses_zero_between_the_pixels() -> None:
    region = np.zeros((1, 6), np.bool_)
    region[0, 2:5] = True
    np.testing.assert_allclose(_signed_distance(region), [[-1.5, -0.5, 0.5, 1.5, 0.5, -0.5]])
