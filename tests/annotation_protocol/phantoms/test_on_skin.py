"""Phantoms on real skin: the mask stays exact, the skin is the photograph's, the seed decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED
from annotation_protocol.phantoms.on_skin import (
    bare_skin,
    composite,
    difficult_scene,
    overlaid,
)
from annotation_protocol.phantoms.phantoms import LESION, MARKER, RULER, SKIN, Scene, render

SIZE = 64

#: Skin of a tone that no phantom has by itself.
COLOUR = (150, 110, 90)


def _photograph(
    seed: int = 0, shape: tuple[int, int] = (80, 100), margin: float = 0.4
) -> NDArray[np.uint8]:
    """Grainy skin with a dark lesion in the middle; the margin is a share of each side."""
    rng = np.random.default_rng(seed)
    picture = np.full((*shape, 3), COLOUR) + rng.normal(0, 3, (*shape, 3))
    high, wide = int(margin * shape[0]), int(margin * shape[1])
    picture[high:-high, wide:-wide] -= 80
    return picture.clip(0, 255).astype(np.uint8)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_bare_skin__without_the_lesion() -> None:
    for seed in range(4):
        skin = bare_skin(_photograph(), _rng(seed), SIZE)
        assert skin is not None
        assert skin.shape == (SIZE, SIZE, 3)
        assert np.abs(skin.reshape(-1, 3).astype(float) - COLOUR).max() < 25


def test_bare_skin__the_inside_of_a_large_lesion_is_calm_but_no_skin() -> None:
    for seed in range(4):
        assert bare_skin(_photograph(margin=0.25), _rng(seed), SIZE) is None


def test_bare_skin__its_grain_stays() -> None:
    grainy, smooth = _photograph(), np.full((80, 100, 3), COLOUR, np.uint8)
    one, other = (bare_skin(each, _rng(), SIZE) for each in (grainy, smooth))
    assert one is not None
    assert other is not None
    assert one.std((0, 1)).min() > other.std((0, 1)).max() + 0.5


@pytest.mark.parametrize("colour", [(2, 2, 2), (255, 255, 255), (60, 90, 140)])
def test_bare_skin__calm_but_no_skin(colour: tuple[int, int, int]) -> None:
    assert bare_skin(np.full((80, 100, 3), colour, np.uint8), _rng(), SIZE) is None


def test_bare_skin__lesion_all_over() -> None:
    stripes = np.full((96, 96, 3), COLOUR, np.uint8)
    stripes[(np.arange(96) // 12) % 2 == 1] //= 3
    assert bare_skin(stripes, _rng(), SIZE) is None
    assert composite(stripes, _rng(), SIZE) is None


def test_bare_skin__photograph_of_a_few_pixels() -> None:
    skin = bare_skin(np.full((2, 3, 3), COLOUR, np.uint8), _rng(), SIZE)
    assert skin is not None
    assert (skin == COLOUR).all()


def test_composite__same_seed_same_bytes() -> None:
    one, again, other = (composite(_photograph(), _rng(seed), SIZE) for seed in (3, 3, 4))
    assert one is not None
    assert again is not None
    assert other is not None
    assert one.image.tobytes() == again.image.tobytes()
    assert one.mask.tobytes() == again.mask.tobytes()
    assert one.image.tobytes() != other.image.tobytes()


def test_render__only_what_the_mask_names_covers_the_given_skin() -> None:
    """A camera without noise or cast would leave the skin as it is; it changes it little."""
    skin = np.full((SIZE, SIZE, 3), COLOUR, np.uint8)
    scene = Scene("I-II", "pigmented", radius=0.15, marker=True, wild=0.0)
    phantom = render(scene, _rng(1), SIZE, skin)
    away = np.abs(phantom.image.astype(int) - skin).max(-1)
    assert np.median(away[phantom.mask == SKIN]) < 12
    assert np.median(away[phantom.mask == LESION]) > 30
    assert np.median(away[phantom.mask == MARKER]) > 15


def test_render__lesion_takes_its_colour_from_the_skin() -> None:
    scene = Scene("I-II", "erythematous", radius=0.2, wild=0.0)
    light, dark = (
        render(scene, _rng(1), SIZE, np.full((SIZE, SIZE, 3), colour, np.uint8))
        for colour in ((220, 180, 160), (90, 60, 45))
    )
    assert np.array_equal(light.mask, dark.mask)
    lesion = light.mask == LESION
    assert light.image[lesion].mean() > dark.image[lesion].mean() + 60


def test_render__reddened_skin_is_skin() -> None:
    scene = Scene("I-II", "pigmented", radius=0.12, wild=0.0)
    red = render(replace(scene, redness=0.9), _rng(2), SIZE)
    assert set(np.unique(red.mask)) == {LESION, SKIN}
    plain = render(scene, _rng(2), SIZE)

    def redness(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> float:
        skin = image[mask == SKIN].astype(float)
        return float((skin[:, 0] - skin[:, 1]).std())

    assert redness(red.image, red.mask) > 1.5 * redness(plain.image, plain.mask)


def test_render__satellites_are_small_lesions_apart() -> None:
    from scipy.ndimage import label

    scene = Scene("I-II", "pigmented", radius=0.12)
    counts = [
        label(render(replace(scene, satellites=n), _rng(5), 2 * SIZE).mask == LESION)[1]
        for n in (0, 4)
    ]
    assert counts[1] > counts[0]


def test_difficult_scene__tiny_and_huge() -> None:
    rng = _rng()
    scenes = [difficult_scene(rng) for _ in range(120)]
    radii = [scene.radius for scene in scenes]
    assert min(radii) < 0.03
    assert max(radii) > 0.4
    for name in ("redness", "satellites", "hair", "marker"):
        assert {bool(getattr(scene, name)) for scene in scenes} == {True, False}


def test_overlaid__nothing_else_changes() -> None:
    photograph = _photograph(shape=(SIZE, SIZE))
    shown = set()
    for seed in range(12):
        found = overlaid(photograph, _rng(seed))
        changed = (found.image != photograph).any(-1)
        drawn = found.mask != UNLABELLED
        shown |= set(np.unique(found.mask))
        assert 0 < drawn.mean() < 0.4
        assert changed[drawn].mean() > 0.95
        # Beside a stroke's rim, which is neither, every pixel is as it was.
        assert (changed & ~drawn).mean() < 0.06
    assert shown == {MARKER, RULER, UNLABELLED}


def test_overlaid__same_seed_same_bytes() -> None:
    photograph = _photograph(shape=(SIZE, SIZE))
    one, again = (overlaid(photograph, _rng(7)) for _ in range(2))
    assert one.image.tobytes() == again.image.tobytes()
    assert one.mask.tobytes() == again.mask.tobytes()
