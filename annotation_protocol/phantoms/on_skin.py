"""Phantoms on real skin: rendered lesions, pen, rulers and hair composited into photographs.

A composite has the skin, the light and the camera of a photograph and the exact mask of a phantom. Its
scenes are those that masks fail on: tiny and huge lesions, satellites, reddened skin, hair, pen rings.
`overlaid` draws pen and rulers over a whole photograph, for pairs that differ in nothing else.

Arrays: photographs are (H, W, 3) uint8 RGB, masks (S, S) uint8 class ids of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol import UNLABELLED
from annotation_protocol.phantoms import overlays
from annotation_protocol.phantoms.canvas import Canvas, Floats, Reals
from annotation_protocol.phantoms.phantoms import (
    MARKER,
    RULER,
    TONES,
    Phantom,
    Scene,
    draw_scene,
    render,
)

#: Width and height in pixels that a photograph is looked at to find bare skin.
_GLANCE = 48

#: Side of the window of bare skin among these pixels; odd, so that it has a middle.
_SIDE = 17

#: Standard deviation of a calm window's colours, of 0 to 1; more is a lesion, cloth or the room.
CALM = 0.05

#: Skin is at least so much more red than blue, and so far from black and white, of 0 to 1.
_RED, _DARK = 0.03, 0.08

#: Largest difference in a colour channel between bare skin and the photograph's border, of 0 to 1.
_LIKE_BORDER = 0.15

#: Share of a window's slow shading that stays: all of it would show where the window is mirrored.
_SHADING = 0.3


@dataclass(frozen=True)
class Overlaid:
    """A photograph with pen or a ruler drawn on it, (S, S, 3) uint8, and where they are.

    The mask is MARKER and RULER there, and 255 (unknown) elsewhere.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def composite(
    photograph: NDArray[np.uint8], rng: np.random.Generator, size: int = 256
) -> Phantom | None:
    """Return a difficult scene on the photograph's own skin; None where it shows no bare skin.

    The same photograph, seed and size give the same bytes.
    """
    skin = bare_skin(photograph, rng, size)
    if skin is None:
        return None
    return render(difficult_scene(rng), rng, size, skin)


def bare_skin(
    photograph: NDArray[np.uint8], rng: np.random.Generator, size: int
) -> NDArray[np.uint8] | None:
    """Return a picture of the photograph's calmest skin, (size, size, 3); None if none is calm.

    The window is one of the calmest, mirrored at its edges where a wider view is drawn.
    """
    rough = _roughness(photograph)
    if not rough.min() <= CALM:
        return None
    calm = np.flatnonzero(rough <= max(float(rough.min()) * 1.2, 1e-3))
    row, column = divmod(int(calm[rng.integers(len(calm))]), rough.shape[1])
    height, width = photograph.shape[:2]
    top, left = row * height // _GLANCE, column * width // _GLANCE
    tall, broad = (max(1, _SIDE * extent // _GLANCE) for extent in (height, width))
    crop = photograph[top : top + tall, left : left + broad]
    wide = int(rng.integers(1, 3))  # once the window, or twice as wide
    tile = np.asarray(
        Image.fromarray(crop).resize((-(-size // wide),) * 2, Image.Resampling.BICUBIC)
    )
    level = _levelled(tile)
    if wide > 1:
        level = np.pad(level, ((0, len(level)), (0, len(level)), (0, 0)), mode="symmetric")
    return level[:size, :size]


def difficult_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of the kind that masks fail on; the tone is that of the skin it is drawn on."""
    drawn = draw_scene(rng, TONES[int(rng.integers(len(TONES)))], wild=0.2)
    extent = rng.random()
    if extent < 0.35:  # under 1 % of the picture
        radius = float(np.exp(rng.uniform(np.log(0.015), np.log(0.055))))
    elif extent < 0.6:  # over 20 % of it
        radius = float(rng.uniform(0.26, 0.46))
    else:
        radius = drawn.radius
    shift = 0.22 if radius < 0.2 else 0.05
    row, column = rng.uniform(0.5 - shift, 0.5 + shift, 2)
    return replace(
        drawn,
        centre=(float(row), float(column)),
        radius=radius,
        contrast=float(rng.uniform(0.5, 1.0)),
        marker=bool(rng.random() < 0.4),
        cloth=bool(rng.random() < 0.1),
        hair=float(rng.uniform(0.1, 0.8)) if rng.random() < 0.35 else 0.0,
        redness=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.35 else 0.0,
        satellites=int(rng.integers(1, 5)) if rng.random() < 0.2 else 0,
    )


def overlaid(photograph: NDArray[np.uint8], rng: np.random.Generator) -> Overlaid:
    """Draw a pen stroke, a ruler or both over a square photograph (S, S, 3); nothing else changes."""
    size = len(photograph)
    canvas = Canvas(rng, size)
    mask = np.full((size, size), UNLABELLED, np.uint8)
    place = Scene(
        TONES[0],
        "pigmented",
        tuple(rng.uniform(0.4, 0.6, 2).tolist()),
        float(rng.uniform(0.1, 0.28)),
    )
    drawn = rng.random()
    before: Floats = photograph.astype(np.float32) / np.float32(255)
    rgb = before
    if drawn < 0.75:
        rgb, pen = overlays.pen(canvas, place, rgb)
        mask[pen] = MARKER
    if drawn > 0.55:
        rgb, ruler = overlays.ruler(canvas, rgb)
        mask[ruler] = RULER
    changed = (rgb != before).any(-1, keepdims=True)
    image = np.where(changed, np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8), photograph)
    return Overlaid(image, mask)


def _roughness(photograph: NDArray[np.uint8]) -> Reals:
    """Return the standard deviation of the colours in each window of a small copy, (32, 32).

    It is infinite where the mean colour is not that of skin: black, white, less red than blue, or another
    than the photograph has at its border, as the inside of a large lesion has.
    """
    from scipy.ndimage import uniform_filter

    small = Image.fromarray(photograph).resize((_GLANCE, _GLANCE), Image.Resampling.BOX)
    glance = np.asarray(small, np.float64) / 255
    mean, square = (uniform_filter(each, (_SIDE, _SIDE, 1)) for each in (glance, glance**2))
    deviation: Reals = np.sqrt(np.clip(square - mean**2, 0, None)).mean(-1)
    red, blue, grey = mean[..., 0], mean[..., 2], mean.mean(-1)
    ring = np.concatenate([glance[[0, -1]].reshape(-1, 3), glance[:, [0, -1]].reshape(-1, 3)])
    deviation[np.abs(mean - np.median(ring, 0)).max(-1) > _LIKE_BORDER] = np.inf
    deviation[(red < blue + _RED) | (grey < _DARK) | (grey > 1 - _DARK)] = np.inf
    half = _SIDE // 2
    return deviation[half:-half, half:-half]  # the windows that lie in the picture


def _levelled(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a window of skin with most of its slow shading taken out."""
    from scipy.ndimage import gaussian_filter

    rgb = tile.astype(np.float32) / 255
    slow = gaussian_filter(rgb, (len(tile) / 8, len(tile) / 8, 0), mode="reflect")
    mean = rgb.mean((0, 1))
    level = rgb - slow + mean + _SHADING * (slow - mean)
    return np.asarray(np.clip(level * 255 + 0.5, 0, 255), np.uint8)
