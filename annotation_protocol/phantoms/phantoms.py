"""Rendered photographs of skin lesions, with the exact mask of every pixel.

A phantom stands in where no photograph may: in the demo, in the drawings of the annotator's guide,
in tests, and beside the unlabelled photographs that the small backbone learned from. It is drawn
by code from a seed, shows no person, and is never to be quoted as a clinical result.

Arrays: images are (S, S, 3) uint8 RGB, masks (S, S) uint8 class ids of the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.phantoms import appearance, overlays
from annotation_protocol.phantoms.appearance import SKIN_COLOURS, Kind, Tone
from annotation_protocol.phantoms.canvas import Canvas, Floats

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
    redness: float = 0.0  #: reddened skin far around the lesion, which is skin: 0 none, 1 a burn
    satellites: int = 0  #: small lesions close to the lesion
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


def render(
    scene: Scene,
    rng: np.random.Generator,
    size: int = 256,
    skin: NDArray[np.uint8] | None = None,
) -> Phantom:
    """Draw `scene` at `size` x `size`; the same scene, seed and size give the same bytes.

    With `skin` (size, size, 3), a picture of bare skin (`on_skin.bare_skin`), the scene is drawn on that:
    lesions take their colours from it, and its own light stays.
    """
    canvas = Canvas(rng, size)
    if skin is None:
        rgb, skin_colour = appearance.skin(canvas, scene.tone, scene.wild)
    else:
        rgb = np.asarray(skin, np.float32) / np.float32(255)
        skin_colour = np.median(rgb, (0, 1)).astype(np.float32)
    mask = np.full((size, size), SKIN, np.uint8)
    if scene.redness:
        rgb = appearance.redness(canvas, rgb, scene.centre, 2 * scene.radius, scene.redness)
    for spot in _spots(scene, rng):
        rgb, lesion = _lesion(canvas, spot, rgb, skin_colour)
        mask[lesion] = LESION
    rgb = appearance.hairs(canvas, rgb, scene.hair)
    if skin is None:
        rgb = appearance.light(canvas, rgb, scene.wild)
    if scene.marker:
        rgb, pen = overlays.pen(canvas, scene, rgb)
        mask[pen] = MARKER
    if scene.cloth:
        rgb, cloth = overlays.cloth(canvas, rgb)
        mask[cloth] = BACKGROUND
    if scene.plaster:
        rgb, cover = overlays.plaster(canvas, scene, rgb)
        mask[cover] = BACKGROUND
    if scene.ruler:
        rgb, ruler = overlays.ruler(canvas, rgb)
        mask[ruler] = RULER
    image = appearance.camera(canvas, rgb, scene.wild, scene.blur)
    benign_or_not = DIAGNOSES[scene.kind]
    diagnosis, malignant = benign_or_not[int(rng.integers(len(benign_or_not)))]
    return Phantom(image, mask, scene, diagnosis, malignant)


def _spots(scene: Scene, rng: np.random.Generator) -> Iterator[Scene]:
    """Yield the lesions of a scene, each drawn by chance once the one before is on the picture."""
    yield scene
    for _ in range(1, scene.lesions):
        yield _another(scene, rng)
    for _ in range(scene.satellites):
        yield _satellite(scene, rng)


def _another(scene: Scene, rng: np.random.Generator) -> Scene:
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.26, 0.36)
    centre = (0.5 + away * np.sin(angle), 0.5 + away * np.cos(angle))
    return replace(scene, centre=centre, radius=scene.radius * rng.uniform(0.6, 1.0))


def _satellite(scene: Scene, rng: np.random.Generator) -> Scene:
    """A lesion of an eighth to a third of the width, outside the rim of the scene's own."""
    angle, away = rng.uniform(0, 2 * np.pi), scene.radius * rng.uniform(1.9, 3.0)
    row, column = scene.centre
    centre = (row + away * np.sin(angle), column + away * np.cos(angle))
    radius = max(0.012, scene.radius * rng.uniform(0.12, 0.35))
    return replace(scene, centre=centre, radius=radius)


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
