"""What the photograph with its overlay keeps and what it shows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.errors import InputError
from ddiseg.masks import Mask, draw_overlay
from tests.wording import Refusal

PROTOCOL = load_protocol()
BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)


def photograph(size: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(90, 160, (size, size, 3), dtype=np.uint8)


def one_of_each(size: int = 40) -> Mask:
    mask = np.full((size, size), SKIN, np.uint8)
    mask[:8] = BACKGROUND
    mask[-6:] = RULER
    mask[14:26, 14:26] = LESION
    mask[12:30, 32:36] = MARKER
    return mask


def saturation(pixels: NDArray[np.uint8]) -> float:
    return float(np.ptp(pixels.astype(int), axis=-1).mean())


def test_draw_overlay__skin_keeps_its_tone() -> None:
    photo, mask = photograph(), np.full((40, 40), SKIN, np.uint8)
    before = photo.copy()
    np.testing.assert_array_equal(draw_overlay(photo, mask, PROTOCOL), photo)
    np.testing.assert_array_equal(photo, before)


def test_draw_overlay__every_other_class_shows() -> None:
    photo, mask = photograph(), one_of_each()
    overlay = draw_overlay(photo, mask, PROTOCOL, outline=False)
    np.testing.assert_array_equal(overlay[mask == SKIN], photo[mask == SKIN])
    for index in (LESION, MARKER, RULER):
        colour = np.array(PROTOCOL.class_at(index).rgb, float)
        region = mask == index
        distance = [np.abs(picture[region] - colour).mean() for picture in (photo, overlay)]
        assert distance[1] < 0.9 * distance[0]
    assert saturation(overlay[mask == BACKGROUND]) < 2 < saturation(photo[mask == BACKGROUND])
    assert overlay[mask == BACKGROUND].mean() < 0.8 * photo[mask == BACKGROUND].mean()


def test_draw_overlay__unlabelled_pixels_are_dotted() -> None:
    photo, mask = photograph(), np.full((40, 40), SKIN, np.uint8)
    mask[:, 20:] = 255
    overlay = draw_overlay(photo, mask, PROTOCOL)
    np.testing.assert_array_equal(overlay[:, :20], photo[:, :20])
    white = (overlay[:, 20:] == 255).all(-1)
    assert 0.05 < white.mean() < 0.2
    assert (overlay[:, 20:] == photo[:, 20:]).all(-1).mean() > 0.8


def test_draw_overlay__outline_is_the_class_colour_just_inside() -> None:
    overlay = draw_overlay(photograph(), one_of_each(), PROTOCOL)
    assert tuple(overlay[14, 20]) == tuple(overlay[20, 14]) == PROTOCOL.class_at(LESION).rgb
    assert tuple(overlay[20, 32]) == PROTOCOL.class_at(MARKER).rgb
    assert tuple(overlay[34, 20]) == PROTOCOL.class_at(RULER).rgb
    # The picture's edge ends no region: no line along it.
    assert tuple(overlay[39, 20]) != PROTOCOL.class_at(RULER).rgb


def test_draw_overlay__one_pixel_region_is_seen() -> None:
    mask = np.full((40, 40), SKIN, np.uint8)
    mask[20, 20] = LESION
    assert (
        tuple(draw_overlay(photograph(), mask, PROTOCOL)[20, 20]) == PROTOCOL.class_at(LESION).rgb
    )


def test_draw_overlay__lesion_keeps_its_texture() -> None:
    photo, mask = photograph(), np.full((40, 40), LESION, np.uint8)
    overlay = draw_overlay(photo, mask, PROTOCOL)
    assert overlay.std() > 0.8 * photo.std()


def test_draw_overlay__mask_of_another_size() -> None:
    photo = photograph(80)
    large = np.repeat(np.repeat(one_of_each(), 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(
        draw_overlay(photo, one_of_each(), PROTOCOL), draw_overlay(photo, large, PROTOCOL)
    )


def test_draw_overlay__no_opacity_no_outline_is_the_photograph() -> None:
    photo = photograph()
    overlay = draw_overlay(photo, one_of_each(), PROTOCOL, opacity=0, outline=False)
    np.testing.assert_array_equal(overlay, photo)


@pytest.mark.parametrize(
    ("photo", "mask", "opacity"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), 0.5),
        (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), 0.5),
        (np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 7, np.uint8), 0.5),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), 1.5),
    ],
)
def test_draw_overlay__refused(photo: Any, mask: Any, opacity: float, refusal: Refusal) -> None:
    with refusal(InputError):
        draw_overlay(photo, mask, PROTOCOL, opacity)


def test_masks__import_is_light() -> None:
    code = "import sys, ddiseg.masks; print(*{'PIL', 'pycocotools', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
