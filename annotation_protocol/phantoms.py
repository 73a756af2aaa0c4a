"""Rendered photographs of skin lesions, with the exact mask of every pixel.

A phantom stands in where no photograph may: in the demo, in the drawings of the annotator's guide,
in tests, and beside the unlabelled photographs that the small backbone learned from. It is drawn
by code from a seed, shows no person, and is never to be quoted as a clinical result.

Arrays: images are (S, S, 3) uint8 RGB, masks (S, S) uint8 class ids of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol.canvas import Canvas, Floats, Reals, mix, sigmoid

BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)

Tone = Literal["I-II", "III-IV", "V-VI"]
Kind = Literal["pigmented", "erythematous", "scaly", "pearly", "ulcerated", "pale"]

TONES: tuple[Tone, ...] = ("I-II", "III-IV", "V-VI")

#: Two ends of the sRGB range that the skin of each tone group is drawn from.
SKIN_COLOURS: dict[Tone, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "I-II": ((238, 205, 188), (212, 158, 134)),
    "III-IV": ((206, 158, 124), (158, 112, 82)),
    "V-VI": ((132, 90, 66), (66, 42, 33)),
}

#: What a lesion of each kind may be called: (diagnosis, malignant). Names as DDI spells them.
DIAGNOSES: dict[Kind, tuple[tuple[str, bool], ...]] = {
    "pigmented": (("melanocytic-nevi", False), ("melanoma", True)),
    "erythematous": (("dermatofibroma", False), ("squamous-cell-carcinoma-in-situ", True)),
    "scaly": (("seborrheic-keratosis", False), ("squamous-cell-carcinoma", True)),
    "pearly": (("epidermal-cyst", False), ("basal-cell-carcinoma", True)),
    "ulcerated": (("pyogenic-granuloma", False), ("mycosis-fungoides", True)),
    "pale": (("verruca-vulgaris", False), ("metastatic-carcinoma", True)),
}


@dataclass(frozen=True)
class Scene:
    """What is in a phantom. Lengths and positions are shares of the image's side (0 to 1)."""

    tone: Tone
    kind: Kind
    centre: tuple[float, float] = (0.5, 0.5)  #: row, column of the lesion
    radius: float = 0.18
    contrast: float = 1.0  #: 1 is plain to see, 0.3 is faint
    marker: bool = False  #: surgical pen around or beside the lesion
    ruler: bool = False
    cloth: bool = False  #: drape, clothes or room at one side
    hair: float = 0.0  #: 0 none, 1 a scalp
    blur: float = 0.0  #: standard deviation of the blur
    lesions: int = 1
    plaster: bool = False  #: a dressing that hides most of the lesion
    wild: float = 0.3  #: strength of light, colour cast, wrinkles and glare


@dataclass(frozen=True)
class Phantom:
    """A rendered photograph, (S, S, 3) uint8, and its mask, (S, S) uint8."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    scene: Scene
    diagnosis: str
    malignant: bool


def draw_scene(rng: np.random.Generator, tone: Tone, *, wild: float = 0.3) -> Scene:
    """A random scene; `wild` from 0 (studio light) to 1 (an old phone in a dim room)."""
    kinds: tuple[Kind, ...] = tuple(DIAGNOSES)
    return Scene(
        tone=tone,
        kind=kinds[rng.integers(len(kinds))],
        centre=(float(rng.normal(0.5, 0.05)), float(rng.normal(0.5, 0.05))),
        radius=float(np.clip(rng.lognormal(np.log(0.155), 0.42), 0.05, 0.36)),
        contrast=float(rng.uniform(1.0 - 0.75 * wild, 1.0)),
        marker=bool(rng.random() < 0.3),
        ruler=bool(rng.random() < 0.25),
        cloth=bool(rng.random() < 0.3),
        hair=float(max(0.0, rng.normal(0.0, 0.12 + 0.15 * wild))),
        blur=float(max(0.0, rng.normal(0.0, 0.003 * wild))),
        wild=wild,
    )


def render(scene: Scene, rng: np.random.Generator, size: int = 256) -> Phantom:
    """Draw `scene` at `size` x `size`; the same scene, seed and size give the same bytes."""
    canvas = Canvas(rng, size)
    rgb, skin_colour = _skin(canvas, scene)
    mask = np.full((size, size), SKIN, np.uint8)
    for index in range(scene.lesions):
        spot = scene if index == 0 else _another(scene, rng)
        rgb, lesion = _lesion(canvas, spot, rgb, skin_colour)
        mask[lesion] = LESION
    rgb = _hairs(canvas, scene, rgb)
    rgb = _light(canvas, scene, rgb)
    if scene.marker:
        rgb, pen = _pen(canvas, scene, rgb)
        mask[pen] = MARKER
    if scene.cloth:
        rgb, cloth = _cloth(canvas, scene, rgb)
        mask[cloth] = BACKGROUND
    if scene.plaster:
        rgb, cover = _plaster(canvas, scene, rgb)
        mask[cover] = BACKGROUND
    if scene.ruler:
        rgb, ruler = _ruler(canvas, rgb)
        mask[ruler] = RULER
    image = _camera(canvas, scene, rgb)
    benign_or_not = DIAGNOSES[scene.kind]
    diagnosis, malignant = benign_or_not[int(rng.integers(len(benign_or_not)))]
    return Phantom(image, mask, scene, diagnosis, malignant)


def _skin(canvas: Canvas, scene: Scene) -> tuple[Floats, Floats]:
    rng = canvas.rng
    light, dark = (np.array(c, np.float32) / 255 for c in SKIN_COLOURS[scene.tone])
    shade = light + (dark - light) * rng.random() + rng.normal(0, 0.015, 3).astype(np.float32)
    colour: Floats = np.clip(shade, 0.05, 0.97).astype(np.float32)
    rgb = np.broadcast_to(colour, (canvas.size, canvas.size, 3)).astype(np.float32)
    texture = 0.03 * canvas.fractal(24, 4, 0.8) + 0.025 * canvas.fractal(3, 4)
    wrinkle = canvas.streaks(int(rng.integers(25, 90)), 6) * rng.uniform(
        0.0, 0.035 + 0.05 * scene.wild
    )
    rgb = rgb * (1 + texture + wrinkle)[..., None]
    red = np.clip(canvas.fractal(3, 3) - rng.uniform(0.2, 1.4), 0, None) * rng.uniform(
        0, 0.10 + 0.15 * scene.wild
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


def _another(scene: Scene, rng: np.random.Generator) -> Scene:
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.26, 0.36)
    centre = (0.5 + away * np.sin(angle), 0.5 + away * np.cos(angle))
    return replace(scene, centre=centre, radius=scene.radius * rng.uniform(0.6, 1.0))


def _lesion(
    canvas: Canvas, scene: Scene, rgb: Floats, skin: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    rng = canvas.rng
    # A level set: a stretched disc whose rim is moved by smooth noise; > 0 inside, unit = radius.
    row, column = scene.centre
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.7)
    dy, dx = canvas.y - row, canvas.x - column
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / np.sqrt(stretch)
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) * np.sqrt(stretch)
    ragged = rng.uniform(0.05, 0.35)
    warp = canvas.smooth(max(2, int(0.6 / scene.radius))) + 0.5 * canvas.fractal(
        int(2 / scene.radius), 3
    )
    inside = (1 - np.sqrt(u * u + v * v) / scene.radius + ragged * warp * 0.7).astype(np.float32)
    inside = np.minimum(inside, (1.75 - np.sqrt(u * u + v * v) / scene.radius).astype(np.float32))
    softness = (
        rng.uniform(0.02, 0.10) if scene.kind in ("pigmented", "scaly") else rng.uniform(0.04, 0.22)
    )
    cover = sigmoid(inside / np.float32(softness))
    mottle = canvas.fractal(max(3, int(1.2 / scene.radius)), 4, 0.7)
    grain = canvas.fractal(40, 3, 0.9)
    rgb = _halo(rng, scene, rgb, inside)
    colour = _lesion_colour(rng, scene, skin, inside, mottle, grain)
    # A raised lesion: light from one side brightens a flank and shades the other.
    height = np.clip(inside, 0, 0.6) + 0.03 * grain * (inside > 0)
    gy, gx = np.gradient(height.astype(np.float32) * scene.radius * canvas.size)
    side = rng.uniform(0, 2 * np.pi)
    relief = rng.uniform(0.0, 0.16) * (gx * np.cos(side) + gy * np.sin(side))
    colour = colour * (1 + np.clip(relief, -0.35, 0.35))[..., None]
    local = rgb / np.maximum(skin, 0.05)  # keeps the skin's own texture under the lesion
    colour = colour * np.clip(0.5 + 0.5 * local, 0.5, 1.3)
    rgb = mix(rgb, colour.astype(np.float32), cover * np.float32(scene.contrast))
    if scene.kind in ("pearly", "pale") or rng.random() < 0.2:
        shine = np.clip(canvas.smooth(int(rng.integers(12, 40))) - 1.4, 0, 1) * (inside > 0.1)
        rgb = mix(rgb, np.ones_like(rgb), np.asarray(shine * rng.uniform(0.2, 0.8), np.float32))
    return rgb, cover > 0.5


def _halo(rng: np.random.Generator, scene: Scene, rgb: Floats, inside: Floats) -> Floats:
    """Reddened skin around the lesion, which is skin in the mask."""
    if scene.kind == "pigmented" or rng.random() < 0.4:
        return rgb
    ring = sigmoid((inside + rng.uniform(0.3, 0.9)) / np.float32(0.25)) * rng.uniform(0, 0.35)
    return np.asarray(
        rgb * (1 - ring[..., None] * np.array([0.05, 0.35, 0.3], np.float32)), np.float32
    )


def _lesion_colour(
    rng: np.random.Generator,
    scene: Scene,
    skin: Floats,
    inside: Floats,
    mottle: Floats,
    grain: Floats,
) -> Floats:
    """Paint of each kind of lesion, (S, S, 3), made from the skin's colour whatever the tone."""

    def paint(*shade: float) -> Floats:
        return np.array(shade, np.float32)

    def flat(colour: Floats) -> Floats:
        return np.broadcast_to(colour, (*inside.shape, 3)).astype(np.float32)

    red = skin * paint(0.98, 0.62, 0.62) + paint(0.03, 0.0, 0.0)
    crust = paint(0.86, 0.78, 0.58) * rng.uniform(0.7, 1.05)
    if scene.kind == "pigmented":
        depth = rng.uniform(0.12, 0.75)
        base = skin * (paint(0.95, 0.78, 0.66) * depth + 0.06)
        second = skin * paint(0.5, 0.42, 0.45) * rng.uniform(0.3, 1.2)
        return (
            mix(flat(base), flat(second), sigmoid(2 * mottle - 1)) * (1 + 0.10 * mottle)[..., None]
        )
    if scene.kind == "erythematous":
        strength = rng.uniform(0.4, 1.2)
        base = skin + (red - skin) * strength
        return flat(base) * (1 + 0.06 * mottle + 0.02 * grain)[..., None]
    if scene.kind == "scaly":
        base = flat(skin * paint(0.92, 0.74, 0.68) * rng.uniform(0.75, 1.05))
        flakes = sigmoid(4 * (grain + 0.6 * mottle - rng.uniform(0.0, 1.2)))
        return mix(base, flat(crust), flakes * np.float32(rng.uniform(0.4, 1.0)))
    if scene.kind == "pearly":
        base = flat(skin * paint(1.06, 0.84, 0.82) + paint(0.04, 0.03, 0.03))
        dip = sigmoid((inside - rng.uniform(0.4, 0.7)) / np.float32(0.08))
        return mix(base, flat(red * rng.uniform(0.6, 1.0)), dip) * (1 + 0.06 * mottle)[..., None]
    if scene.kind == "ulcerated":
        base = flat(red * rng.uniform(0.7, 1.05))
        sore = sigmoid((inside + 0.15 * mottle - rng.uniform(0.1, 0.5)) / np.float32(0.06))
        core = skin * paint(0.55, 0.2, 0.2) if rng.random() < 0.6 else crust
        return mix(base, flat(core), sore) * (1 + 0.08 * mottle + 0.05 * grain)[..., None]
    pale = skin + (paint(0.93, 0.88, 0.84) - skin) * rng.uniform(0.25, 0.7)
    return flat(pale) * (1 + 0.04 * mottle + 0.04 * grain)[..., None]


def _hairs(canvas: Canvas, scene: Scene, rgb: Floats) -> Floats:
    rng, size = canvas.rng, canvas.size
    count = int(scene.hair * 220)
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


def _light(canvas: Canvas, scene: Scene, rgb: Floats) -> Floats:
    rng, wild = canvas.rng, scene.wild
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


def _pen(canvas: Canvas, scene: Scene, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    from PIL import ImageDraw

    rng, size = canvas.rng, canvas.size
    row, column = scene.centre
    scale = 3
    sheet = Image.new("L", (size * scale, size * scale), 0)
    draw = ImageDraw.Draw(sheet)
    width = max(2, round(scale * size * rng.uniform(0.010, 0.024)))
    t = np.linspace(0, 2 * np.pi * rng.uniform(0.75, 1.02), 60) + rng.uniform(0, 6)
    style = rng.random()
    if style < 0.55:  # a ring around the lesion
        reach = scene.radius * rng.uniform(1.35, 1.9) + 0.02
        wobble = (
            1 + 0.06 * np.cos(2 * t + rng.uniform(0, 6)) + 0.04 * np.cos(3 * t + rng.uniform(0, 6))
        )
        points = np.stack(
            [
                column + reach * wobble * np.cos(t),
                row + reach * rng.uniform(0.8, 1.1) * wobble * np.sin(t),
            ],
            1,
        )
        strokes = [points]
    elif style < 0.8:  # two brackets
        reach = scene.radius * rng.uniform(1.3, 1.7) + 0.02
        half = np.linspace(-0.7, 0.7, 20)
        turn = rng.uniform(0, np.pi)
        strokes = [
            np.stack(
                [
                    column + reach * np.cos(turn + flip + half),
                    row + reach * np.sin(turn + flip + half),
                ],
                1,
            )
            for flip in (0, np.pi)
        ]
    else:  # an arrow or a line that points at it
        turn = rng.uniform(0, 2 * np.pi)
        near, far = scene.radius * 1.4 + 0.02, scene.radius * 1.4 + rng.uniform(0.1, 0.25)
        strokes = [
            np.array([[column + r * np.cos(turn), row + r * np.sin(turn)] for r in (near, far)])
        ]
    for points in strokes:
        draw.line(
            [tuple(p) for p in (points * size * scale).tolist()],
            fill=255,
            width=width,
            joint="curve",
        )
    alpha = np.asarray(sheet.resize((size, size), Image.Resampling.BOX), np.float32) / 255
    inks = (
        (0.25, 0.2, 0.55),
        (0.15, 0.25, 0.6),
        (0.12, 0.12, 0.2),
        (0.45, 0.25, 0.6),
        (0.75, 0.2, 0.45),
    )
    ink = np.array(inks[rng.integers(len(inks))], np.float32)
    fade = np.clip(rng.uniform(0.6, 1.0) + 0.15 * canvas.fractal(20, 3), 0.3, 1)
    stained = mix(
        rgb,
        np.broadcast_to(ink, rgb.shape).astype(np.float32),
        np.asarray(alpha * fade, np.float32),
    )
    return stained, alpha > 0.5


def _cloth(canvas: Canvas, scene: Scene, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    rng = canvas.rng
    angle = rng.uniform(0, 2 * np.pi)
    along = (canvas.x - 0.5) * np.cos(angle) + (canvas.y - 0.5) * np.sin(angle)
    edge = rng.uniform(0.3, 0.45) + 0.02 * canvas.smooth(3)
    bend = (
        rng.uniform(0, 0.5)
        * ((canvas.x - 0.5) * np.sin(angle) - (canvas.y - 0.5) * np.cos(angle)) ** 2
    )
    off_skin = along + bend > edge
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
    cloth = colour * weave[..., None]
    shadow = 1 - 0.35 * sigmoid((along + bend - edge + 0.02) / np.float32(0.01)) * (~off_skin)
    rgb = rgb * shadow[..., None]
    return np.where(off_skin[..., None], cloth, rgb).astype(np.float32), off_skin


def _plaster(canvas: Canvas, scene: Scene, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    rng = canvas.rng
    row, column = scene.centre
    angle = rng.uniform(0, np.pi)
    u = (canvas.x - column) * np.cos(angle) + (canvas.y - row) * np.sin(angle)
    v = -(canvas.x - column) * np.sin(angle) + (canvas.y - row) * np.cos(angle)
    cover = (np.abs(u + 0.3 * scene.radius) < 2.2 * scene.radius) & (
        np.abs(v) < 0.75 * scene.radius
    )
    paint = np.array([0.93, 0.88, 0.8], np.float32) * (1 + 0.03 * canvas.streaks(120, 1))[..., None]
    return np.where(cover[..., None], paint, rgb).astype(np.float32), cover


def _ruler(canvas: Canvas, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """A paper ruler along one side, a tick a millimetre, longer at 5 and 10."""
    rng = canvas.rng
    side = int(rng.integers(4))
    away = (canvas.y, 1 - canvas.y, canvas.x, 1 - canvas.x)[side]
    x = canvas.x if side < 2 else canvas.y
    depth, tilt = rng.uniform(0.09, 0.15), rng.uniform(-0.03, 0.03)
    edge = depth + tilt * (x - 0.5)
    strip = away < edge
    spacing = rng.uniform(0.02, 0.03)
    index = np.floor(x / spacing)
    offset = x - index * spacing
    length = np.where(index % 10 == 0, 0.62, np.where(index % 5 == 0, 0.45, 0.3)) * depth
    tick = strip & (offset < 0.18 * spacing) & (edge - away < length)
    paper = np.array([0.95, 0.94, 0.9], np.float32) * rng.uniform(0.85, 1.0)
    rgb = np.where(strip[..., None], paper * (1 + 0.02 * canvas.smooth(6))[..., None], rgb)
    return np.where(tick[..., None], np.float32(0.12), rgb).astype(np.float32), strip


def _camera(canvas: Canvas, scene: Scene, rgb: Floats) -> NDArray[np.uint8]:
    rng, wild = canvas.rng, scene.wild
    cast = 1 + rng.normal(0, 0.02 + 0.06 * wild, 3).astype(np.float32)
    gamma = np.exp(rng.normal(0, 0.05 + 0.2 * wild))
    seen: Reals = np.clip(rgb * cast * rng.uniform(1 - 0.2 * wild, 1 + 0.12 * wild), 0, 1) ** gamma
    if scene.blur > 0:
        from scipy.ndimage import gaussian_filter

        sigma = scene.blur * canvas.size
        seen = gaussian_filter(seen, (sigma, sigma, 0))
    seen = seen + rng.normal(0, rng.uniform(0.002, 0.01 + 0.02 * wild), seen.shape)
    return np.asarray(np.clip(seen * 255 + 0.5, 0, 255), np.uint8)
