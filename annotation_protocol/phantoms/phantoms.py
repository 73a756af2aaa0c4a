"""Rendered photographs of skin lesions, with the exact mask of every pixel.

A phantom stands in where no photograph may: in the demo, in the drawings of the annotator's guide,
in tests, and beside the unlabelled photographs that the small backbone learned from. It is drawn
by code from a seed, shows no person, and is never to be quoted as a clinical result.

Arrays: images are (S, S, 3) uint8 RGB, masks (S, S) uint8 class ids of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol.phantoms import appearance
from annotation_protocol.phantoms.appearance import SKIN_COLOURS, Kind, Tone
from annotation_protocol.phantoms.canvas import Canvas, Floats, sigmoid

__all__ = [
    "BACKGROUND",
    "DIAGNOSES",
    "LESION",
    "MARKER",
    "RULER",
    "SKIN",
    "SKIN_COLOURS",
    "TONES",
    "Kind",
    "Phantom",
    "Scene",
    "Tone",
    "draw_scene",
    "render",
]

BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)

TONES: tuple[Tone, ...] = ("I-II", "III-IV", "V-VI")

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
    rgb, skin_colour = appearance.skin(canvas, scene.tone, scene.wild)
    mask = np.full((size, size), SKIN, np.uint8)
    for index in range(scene.lesions):
        spot = scene if index == 0 else _another(scene, rng)
        rgb, lesion = _lesion(canvas, spot, rgb, skin_colour)
        mask[lesion] = LESION
    rgb = appearance.hairs(canvas, rgb, scene.hair)
    rgb = appearance.light(canvas, rgb, scene.wild)
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
    image = appearance.camera(canvas, rgb, scene.wild, scene.blur)
    benign_or_not = DIAGNOSES[scene.kind]
    diagnosis, malignant = benign_or_not[int(rng.integers(len(benign_or_not)))]
    return Phantom(image, mask, scene, diagnosis, malignant)


def _another(scene: Scene, rng: np.random.Generator) -> Scene:
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.26, 0.36)
    centre = (0.5 + away * np.sin(angle), 0.5 + away * np.cos(angle))
    return replace(scene, centre=centre, radius=scene.radius * rng.uniform(0.6, 1.0))


def _lesion(
    canvas: Canvas, scene: Scene, rgb: Floats, skin_colour: Floats
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
    rgb = appearance.lesion(
        canvas,
        rgb,
        skin_colour,
        inside,
        kind=scene.kind,
        radius=scene.radius,
        softness=softness,
        contrast=scene.contrast,
    )
    return rgb, inside > 0


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
    return appearance.ink(canvas, rgb, alpha), alpha > 0.5


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
    cloth = appearance.cloth(canvas)
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
    paper = np.array([0.93, 0.88, 0.8], np.float32) * (1 + 0.03 * canvas.streaks(120, 1))[..., None]
    return np.where(cover[..., None], paper, rgb).astype(np.float32), cover


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
    rgb = np.where(strip[..., None], appearance.paper(canvas), rgb)
    return np.where(tick[..., None], np.float32(0.12), rgb).astype(np.float32), strip
