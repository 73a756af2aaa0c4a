"""How skin, lesions, ink, cloth and paper look, and what light and camera do to them.

Each function draws where it is told to, so that a phantom's shapes may be drawn from a seed
(`phantoms`) or come from a mask that a person drew (`phantoms_over_masks`).

Arrays: pictures are (S, S, 3) float32 in 0 to 1, fields (S, S) float32.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol.phantoms.canvas import Canvas, Floats, Reals, mix, sigmoid

Tone = Literal["I-II", "III-IV", "V-VI"]
Kind = Literal["pigmented", "erythematous", "scaly", "pearly", "ulcerated", "pale"]

#: Two ends of the sRGB range that the skin of each tone group is drawn from.
SKIN_COLOURS: dict[Tone, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "I-II": ((238, 205, 188), (212, 158, 134)),
    "III-IV": ((206, 158, 124), (158, 112, 82)),
    "V-VI": ((132, 90, 66), (66, 42, 33)),
}


def skin(canvas: Canvas, tone: Tone, wild: float) -> tuple[Floats, Floats]:
    """Bare skin of a tone, (S, S, 3), and its colour without texture, (3,)."""
    rng = canvas.rng
    light, dark = (np.array(c, np.float32) / 255 for c in SKIN_COLOURS[tone])
    shade = light + (dark - light) * rng.random() + rng.normal(0, 0.015, 3).astype(np.float32)
    colour: Floats = np.clip(shade, 0.05, 0.97).astype(np.float32)
    rgb = np.broadcast_to(colour, (canvas.size, canvas.size, 3)).astype(np.float32)
    texture = 0.03 * canvas.fractal(24, 4, 0.8) + 0.025 * canvas.fractal(3, 4)
    wrinkle = canvas.streaks(int(rng.integers(25, 90)), 6) * rng.uniform(0.0, 0.035 + 0.05 * wild)
    rgb = rgb * (1 + texture + wrinkle)[..., None]
    red = np.clip(canvas.fractal(3, 3) - rng.uniform(0.2, 1.4), 0, None) * rng.uniform(
        0, 0.10 + 0.15 * wild
    )
    rgb = rgb * (1 - red[..., None] * np.array([0.1, 0.8, 0.7], np.float32))
    if rng.random() < 0.5:  # freckles and sun spots: pigment that is not the lesion
        spots = np.clip(
            canvas.fractal(int(rng.integers(10, 30)), 2) - rng.uniform(1.3, 2.2), 0, 0.6
        )
        rgb = rgb * (
            1 - spots[..., None] * np.array([0.3, 0.45, 0.5], np.float32) * rng.uniform(0.3, 1)
        )
    pores = np.clip(canvas.smooth(min(canvas.size // 2, int(rng.integers(60, 120)))) - 1.6, 0, 1)
    rgb = rgb * (1 - 0.15 * pores[..., None])
    return rgb.astype(np.float32), colour


def lesion(
    canvas: Canvas,
    rgb: Floats,
    skin_colour: Floats,
    inside: Floats,
    *,
    kind: Kind,
    radius: float,
    softness: float,
    contrast: float,
) -> Floats:
    """A lesion on skin. `inside` is a level set: > 0 in the lesion, its unit the `radius`.

    `radius` is a share of the side, `softness` the width of the rim in radii; a `contrast` of 1 is
    plain to see.
    """
    rng = canvas.rng
    cover = sigmoid(inside / np.float32(softness))
    mottle = canvas.fractal(max(3, int(1.2 / radius)), 4, 0.7)
    grain = canvas.fractal(40, 3, 0.9)
    rgb = _halo(rng, kind, rgb, inside)
    colour = _lesion_colour(rng, kind, skin_colour, inside, mottle, grain)
    # A raised lesion: light from one side brightens a flank and shades the other.
    height = np.clip(inside, 0, 0.6) + 0.03 * grain * (inside > 0)
    gy, gx = np.gradient(height.astype(np.float32) * radius * canvas.size)
    side = rng.uniform(0, 2 * np.pi)
    relief = rng.uniform(0.0, 0.16) * (gx * np.cos(side) + gy * np.sin(side))
    colour = colour * (1 + np.clip(relief, -0.35, 0.35))[..., None]
    local = rgb / np.maximum(skin_colour, 0.05)  # keeps the skin's own texture under the lesion
    colour = colour * np.clip(0.5 + 0.5 * local, 0.5, 1.3)
    rgb = mix(rgb, colour.astype(np.float32), cover * np.float32(contrast))
    if kind in ("pearly", "pale") or rng.random() < 0.2:
        shine = np.clip(canvas.smooth(int(rng.integers(12, 40))) - 1.4, 0, 1) * (inside > 0.1)
        rgb = mix(rgb, np.ones_like(rgb), np.asarray(shine * rng.uniform(0.2, 0.8), np.float32))
    return rgb


def redness(
    canvas: Canvas, rgb: Floats, centre: tuple[float, float], reach: float, strength: float
) -> Floats:
    """Reddened skin with a ragged, soft rim about `reach` (a share of the side) from `centre`."""
    rng, (row, column) = canvas.rng, centre
    distance = np.hypot(canvas.y - row, canvas.x - column) / max(reach, 0.05)
    inside = 1 - distance + 0.25 * canvas.fractal(4, 3)
    cover = sigmoid(inside / np.float32(rng.uniform(0.1, 0.3))) * (1 + 0.15 * canvas.fractal(8, 3))
    tint = np.array([0.03, 0.42, 0.36], np.float32)
    fade = 1 - np.clip(strength * cover, 0, 1)[..., None] * tint
    return np.asarray(rgb * fade, np.float32)


def _halo(rng: np.random.Generator, kind: Kind, rgb: Floats, inside: Floats) -> Floats:
    """Reddened skin around the lesion, which is skin in the mask."""
    if kind == "pigmented" or rng.random() < 0.4:
        return rgb
    ring = sigmoid((inside + rng.uniform(0.3, 0.9)) / np.float32(0.25)) * rng.uniform(0, 0.35)
    return np.asarray(
        rgb * (1 - ring[..., None] * np.array([0.05, 0.35, 0.3], np.float32)), np.float32
    )


def _lesion_colour(
    rng: np.random.Generator,
    kind: Kind,
    skin_colour: Floats,
    inside: Floats,
    mottle: Floats,
    grain: Floats,
) -> Floats:
    """Colours of each kind of lesion, (S, S, 3), made from the skin's colour whatever the tone."""

    def tint(*shade: float) -> Floats:
        return np.array(shade, np.float32)

    def flat(colour: Floats) -> Floats:
        return np.broadcast_to(colour, (*inside.shape, 3)).astype(np.float32)

    red = skin_colour * tint(0.98, 0.62, 0.62) + tint(0.03, 0.0, 0.0)
    crust = tint(0.86, 0.78, 0.58) * rng.uniform(0.7, 1.05)
    if kind == "pigmented":
        depth = rng.uniform(0.12, 0.75)
        base = skin_colour * (tint(0.95, 0.78, 0.66) * depth + 0.06)
        second = skin_colour * tint(0.5, 0.42, 0.45) * rng.uniform(0.3, 1.2)
        return (
            mix(flat(base), flat(second), sigmoid(2 * mottle - 1)) * (1 + 0.10 * mottle)[..., None]
        )
    if kind == "erythematous":
        strength = rng.uniform(0.4, 1.2)
        base = skin_colour + (red - skin_colour) * strength
        return flat(base) * (1 + 0.06 * mottle + 0.02 * grain)[..., None]
    if kind == "scaly":
        base = flat(skin_colour * tint(0.92, 0.74, 0.68) * rng.uniform(0.75, 1.05))
        flakes = sigmoid(4 * (grain + 0.6 * mottle - rng.uniform(0.0, 1.2)))
        return mix(base, flat(crust), flakes * np.float32(rng.uniform(0.4, 1.0)))
    if kind == "pearly":
        base = flat(skin_colour * tint(1.06, 0.84, 0.82) + tint(0.04, 0.03, 0.03))
        dip = sigmoid((inside - rng.uniform(0.4, 0.7)) / np.float32(0.08))
        return mix(base, flat(red * rng.uniform(0.6, 1.0)), dip) * (1 + 0.06 * mottle)[..., None]
    if kind == "ulcerated":
        base = flat(red * rng.uniform(0.7, 1.05))
        sore = sigmoid((inside + 0.15 * mottle - rng.uniform(0.1, 0.5)) / np.float32(0.06))
        core = skin_colour * tint(0.55, 0.2, 0.2) if rng.random() < 0.6 else crust
        return mix(base, flat(core), sore) * (1 + 0.08 * mottle + 0.05 * grain)[..., None]
    pale = skin_colour + (tint(0.93, 0.88, 0.84) - skin_colour) * rng.uniform(0.25, 0.7)
    return flat(pale) * (1 + 0.04 * mottle + 0.04 * grain)[..., None]


def hairs(canvas: Canvas, rgb: Floats, amount: float) -> Floats:
    """Hairs of one lie over everything; an `amount` of 0 is none, 1 a scalp."""
    rng, size = canvas.rng, canvas.size
    count = int(amount * 220)
    if not count:
        return rgb
    from PIL import ImageDraw

    scale = 2
    sheet = Image.new("L", (size * scale, size * scale), 0)
    pen = ImageDraw.Draw(sheet)
    lean = rng.uniform(0, 2 * np.pi)
    for _ in range(count):
        start, bend = rng.uniform(-0.1, 1.1, 2), rng.normal(0, 0.5)
        heading, length = lean + rng.normal(0, 0.5), rng.uniform(0.1, 0.5)
        t = np.linspace(0, 1, 9)
        turn = heading + bend * t
        points = np.stack(
            [start[0] + length * t * np.cos(turn), start[1] + length * t * np.sin(turn)], 1
        )
        width = max(1, round(scale * size * rng.uniform(0.002, 0.006)))
        pen.line(
            [tuple(p) for p in (points * size * scale).tolist()],
            fill=int(rng.integers(120, 255)),
            width=width,
        )
    alpha = np.asarray(sheet.resize((size, size), Image.Resampling.BOX), np.float32) / 255
    colour = (
        np.array([0.12, 0.09, 0.07], np.float32)
        if rng.random() < 0.75
        else np.array([0.8, 0.76, 0.7], np.float32)
    )
    return mix(
        rgb,
        np.broadcast_to(colour, rgb.shape).astype(np.float32),
        alpha * np.float32(rng.uniform(0.5, 0.95)),
    )


def light(canvas: Canvas, rgb: Floats, wild: float) -> Floats:
    """Uneven light and glare, stronger the more `wild`, 0 to 1."""
    rng = canvas.rng
    angle = rng.uniform(0, 2 * np.pi)
    slope = (canvas.x - 0.5) * np.cos(angle) + (canvas.y - 0.5) * np.sin(angle)
    distance = (canvas.x - 0.5) ** 2 + (canvas.y - 0.5) ** 2
    shade = (
        1 + rng.uniform(0, 0.15 + 0.5 * wild) * slope - rng.uniform(0, 0.3 + 0.5 * wild) * distance
    )
    shade = shade * (1 + rng.uniform(0, 0.15 * wild) * canvas.smooth(2))
    rgb = rgb * shade[..., None]
    if rng.random() < 0.15 + 0.25 * wild:  # glare: the flash in the skin's lines
        shine = np.clip(canvas.fractal(32, 3, 0.9) - rng.uniform(1.8, 3.0), 0, 0.6) * rng.uniform(
            0.3, 1
        )
        shine *= np.clip(
            1.2 - 3 * ((canvas.x - rng.random()) ** 2 + (canvas.y - rng.random()) ** 2), 0, 1
        )
        rgb = mix(rgb, np.ones_like(rgb), np.asarray(shine, np.float32))
    return np.asarray(rgb, np.float32)


def ink(canvas: Canvas, rgb: Floats, alpha: Reals) -> Floats:
    """A surgical pen's ink, faded here and there; `alpha` 0 to 1 says where."""
    rng = canvas.rng
    inks = (
        (0.25, 0.2, 0.55),
        (0.15, 0.25, 0.6),
        (0.12, 0.12, 0.2),
        (0.45, 0.25, 0.6),
        (0.75, 0.2, 0.45),
    )
    colour = np.array(inks[rng.integers(len(inks))], np.float32)
    fade = np.clip(rng.uniform(0.6, 1.0) + 0.15 * canvas.fractal(20, 3), 0.3, 1)
    return mix(
        rgb,
        np.broadcast_to(colour, rgb.shape).astype(np.float32),
        np.asarray(alpha * fade, np.float32),
    )


def cloth(canvas: Canvas) -> Floats:
    """A drape, clothes or the room, all over the canvas."""
    rng = canvas.rng
    colours = (
        (0.25, 0.45, 0.6),
        (0.3, 0.55, 0.5),
        (0.85, 0.86, 0.88),
        (0.15, 0.16, 0.2),
        (0.55, 0.5, 0.45),
    )
    colour = np.array(colours[rng.integers(len(colours))], np.float32) * rng.uniform(0.8, 1.1)
    weave = (
        1 + 0.08 * canvas.streaks(90, 3) + 0.08 * canvas.streaks(90, 3) + 0.08 * canvas.smooth(4)
    )
    return np.asarray(colour * weave[..., None], np.float32)


def paper(canvas: Canvas) -> Floats:
    """A paper ruler's ground, all over the canvas."""
    shade = np.array([0.95, 0.94, 0.9], np.float32) * canvas.rng.uniform(0.85, 1.0)
    return np.asarray(shade * (1 + 0.02 * canvas.smooth(6))[..., None], np.float32)


def camera(canvas: Canvas, rgb: Floats, wild: float, blur: float) -> NDArray[np.uint8]:
    """The picture as (S, S, 3) uint8: colour cast, contrast, blur (a share of the side), noise."""
    rng = canvas.rng
    cast = 1 + rng.normal(0, 0.02 + 0.06 * wild, 3).astype(np.float32)
    gamma = np.exp(rng.normal(0, 0.05 + 0.2 * wild))
    seen: Reals = np.clip(rgb * cast * rng.uniform(1 - 0.2 * wild, 1 + 0.12 * wild), 0, 1) ** gamma
    if blur > 0:
        from scipy.ndimage import gaussian_filter

        sigma = blur * canvas.size
        seen = gaussian_filter(seen, (sigma, sigma, 0))
    seen = seen + rng.normal(0, rng.uniform(0.002, 0.01 + 0.02 * wild), seen.shape)
    return np.asarray(np.clip(seen * 255 + 0.5, 0, 255), np.uint8)
