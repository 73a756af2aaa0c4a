"""Draw the pictures of `protocol.md` from phantoms: `python -m annotation_protocol.drawings`.

Every photograph is rendered by code from a seed, so the pictures show no person, carry no licence
and follow the protocol's colours when these change.

Arrays: images are (S, S, 3) uint8 RGB, masks (S, S) uint8 class ids of the protocol.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from annotation_protocol.files import atomic_write
from annotation_protocol.phantoms.phantoms import Kind, Phantom, Scene, Tone, render
from annotation_protocol.protocol import Protocol, load_protocol

DRAWINGS_DIR = Path(__file__).with_name("drawings")

TILE = 256
OPACITY = 0.55
COLOURS = 192

_GAP = 8
_CAPTION = 24
_WHITE, _INK = (255, 255, 255), (34, 34, 34)


def main() -> None:
    """Write every drawing that is new or differs from the file that is there."""
    DRAWINGS_DIR.mkdir(exist_ok=True)
    for name, drawing in draw_all(load_protocol()).items():
        path, data = DRAWINGS_DIR / name, encode(drawing)
        changed = not path.exists() or path.read_bytes() != data
        if changed:
            atomic_write(path, data)
        print(f"{'written' if changed else 'unchanged'} {name} ({len(data) // 1024} KiB)")


def draw_all(protocol: Protocol) -> dict[str, Image.Image]:
    """Return every drawing by its file name: classes, skip reasons, edge cases, overview."""
    drawings = {f"class_{c.name}.png": draw_class(protocol, c.name) for c in protocol.classes}
    for key in SKIP_SCENES:
        drawings[f"skip_{key}.png"] = draw_skip_reason(protocol, key)
    for name in EDGE_SCENES:
        drawings[f"edge_{name}.png"] = draw_edge_cases(protocol, name)
    drawings["overview.png"] = draw_overview(protocol)
    return drawings


def draw_class(protocol: Protocol, name: str) -> Image.Image:
    """Draw three photographs, one a tone; below each the same with the class labelled."""
    label_class = protocol.class_named(name)
    phantoms = [_phantom(scene, seed) for scene, seed in CLASS_SCENES[name]]
    labelled = [draw_classes(p.image, p.mask, protocol, {label_class.index}) for p in phantoms]
    return _tile_rows(
        [
            [(p.image, f"photograph, tone {p.scene.tone}") for p in phantoms],
            [(image, f"{name} labelled") for image in labelled],
        ]
    )


def draw_skip_reason(protocol: Protocol, key: str) -> Image.Image:
    """Draw three photographs, one a tone, to skip for the reason `key`."""
    label = protocol.skip_reason(key).label
    phantoms = [_phantom(scene, seed) for scene, seed in SKIP_SCENES[key]]
    return _tile_rows([[(p.image, f"{label}, tone {p.scene.tone}") for p in phantoms]])


def draw_edge_cases(protocol: Protocol, name: str) -> Image.Image:
    """Draw three photographs that need a rule; below each the same with lesion and marker labelled."""
    indices = {protocol.class_named("lesion").index, protocol.class_named("marker").index}
    phantoms = [(_phantom(scene, seed), caption) for scene, seed, caption in EDGE_SCENES[name]]
    return _tile_rows(
        [
            [(p.image, caption) for p, caption in phantoms],
            [(draw_classes(p.image, p.mask, protocol, indices), "labelled") for p, _ in phantoms],
        ]
    )


def draw_overview(protocol: Protocol) -> Image.Image:
    """Draw three photographs, one a tone; below each the same with all classes labelled; a legend."""
    phantoms = [_phantom(scene, seed) for scene, seed in OVERVIEW_SCENES]
    everything = {c.index for c in protocol.classes}
    labelled = [draw_classes(p.image, p.mask, protocol, everything) for p in phantoms]
    picture = _tile_rows(
        [
            [(p.image, f"photograph, tone {p.scene.tone}") for p in phantoms],
            [(image, "all classes labelled") for image in labelled],
        ]
    )
    return _with_legend(picture, protocol)


def draw_classes(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], protocol: Protocol, indices: Collection[int]
) -> NDArray[np.uint8]:
    """Return `image` with the classes `indices` of `mask` in their colours and outlined, (S, S, 3)."""
    drawn = image.astype(np.float32)
    for index in sorted(indices, key=lambda i: protocol.class_at(i).precedence):
        colour = np.array(protocol.class_at(index).rgb, np.float32)
        region = mask == index
        drawn[region] += (colour - drawn[region]) * OPACITY
    for index in sorted(indices, key=lambda i: protocol.class_at(i).precedence):
        region = mask == index
        # Full colour just inside the rim and near-black just outside: seen on any skin.
        drawn[region & ~_shrunk(_shrunk(region))] = protocol.class_at(index).rgb
        drawn[~region & _grown(region)] = _INK
    return np.asarray(drawn + 0.5, np.uint8)


def encode(drawing: Image.Image) -> bytes:
    """Encode a drawing as a small PNG, in the colours of `with_own_palette`."""
    buffer = io.BytesIO()
    with_own_palette(drawing).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def with_own_palette(drawing: Image.Image) -> Image.Image:
    """Return a drawing in at most `COLOURS` colours of its own, without dithering."""
    return drawing.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def _scene(tone: Tone, kind: Kind, **options: Any) -> Scene:
    return Scene(tone, kind, **{"wild": 0.05, **options})


#: For each class three scenes with their seeds, chosen by eye: nothing distracts from the class.
CLASS_SCENES: dict[str, Sequence[tuple[Scene, int]]] = {
    "background": (
        (_scene("I-II", "erythematous", cloth=True), 10),
        (_scene("III-IV", "pigmented", cloth=True), 11),
        (_scene("V-VI", "ulcerated", cloth=True), 15),
    ),
    "lesion": (
        (_scene("I-II", "pigmented", radius=0.2), 4),
        (_scene("III-IV", "scaly", radius=0.2), 2),
        (_scene("V-VI", "erythematous", radius=0.2), 5),
    ),
    "marker": (
        (_scene("I-II", "pigmented", marker=True, radius=0.14), 12),
        (_scene("III-IV", "erythematous", marker=True, radius=0.14), 14),
        (_scene("V-VI", "scaly", marker=True, radius=0.14), 14),
    ),
    "ruler": (
        (_scene("I-II", "scaly", ruler=True), 0),
        (_scene("III-IV", "pigmented", ruler=True), 2),
        (_scene("V-VI", "pearly", ruler=True), 5),
    ),
    "skin": (
        (_scene("I-II", "pigmented", cloth=True), 3),
        (_scene("III-IV", "pigmented", ruler=True), 4),
        (_scene("V-VI", "scaly", marker=True, cloth=True), 1),
    ),
}

#: For each skip reason that has a picture three scenes with their seeds.
SKIP_SCENES: dict[str, Sequence[tuple[Scene, int]]] = {
    "occluded": (
        (_scene("I-II", "erythematous", plaster=True, radius=0.16), 2),
        (_scene("III-IV", "pigmented", plaster=True, radius=0.16), 4),
        (_scene("V-VI", "ulcerated", plaster=True, radius=0.16), 4),
    ),
    "blurry": (
        (_scene("I-II", "pigmented", blur=0.04), 4),
        (_scene("III-IV", "erythematous", blur=0.04), 4),
        (_scene("V-VI", "erythematous", blur=0.04), 12),
    ),
    "partial": (
        (_scene("I-II", "erythematous", centre=(0.02, 0.45), radius=0.26), 4),
        (_scene("III-IV", "pigmented", centre=(0.5, 0.99), radius=0.26), 4),
        (_scene("V-VI", "ulcerated", centre=(0.98, 0.5), radius=0.26), 4),
    ),
    "ambiguous": (
        (_scene("I-II", "erythematous", lesions=3, radius=0.12), 12),
        (_scene("III-IV", "pigmented", lesions=3, radius=0.12), 16),
        (_scene("V-VI", "scaly", lesions=3, radius=0.12), 14),
    ),
    "scalp": (
        (_scene("I-II", "erythematous", hair=3.0, radius=0.17), 5),
        (_scene("III-IV", "pigmented", hair=3.0, radius=0.17), 3),
        (_scene("V-VI", "scaly", hair=3.0, radius=0.17), 17),
    ),
}

#: Scenes, seeds and captions of what is hard about a lesion's surface and about its rim.
EDGE_SCENES: dict[str, Sequence[tuple[Scene, int, str]]] = {
    "surface": (
        (_scene("I-II", "erythematous", hair=0.4, radius=0.2), 13, "hair across the lesion"),
        (_scene("III-IV", "scaly", radius=0.2), 4, "scale and crust"),
        (_scene("V-VI", "pearly", radius=0.2), 1, "glare on the lesion"),
    ),
    "rim": (
        (_scene("I-II", "ulcerated", radius=0.15), 11, "redness that fades out"),
        (_scene("III-IV", "pigmented", radius=0.17), 2, "satellites at the rim"),
        (_scene("V-VI", "scaly", marker=True, radius=0.14), 9, "pen across the rim"),
    ),
}

OVERVIEW_SCENES: Sequence[tuple[Scene, int]] = (
    (_scene("I-II", "pigmented", marker=True, ruler=True, cloth=True, radius=0.14), 2),
    (_scene("III-IV", "erythematous", marker=True, ruler=True, cloth=True, radius=0.14), 3),
    (_scene("V-VI", "scaly", marker=True, ruler=True, cloth=True, radius=0.14), 3),
)


def _phantom(scene: Scene, seed: int) -> Phantom:
    phantom = render(scene, np.random.default_rng(seed), TILE)
    return replace(phantom, image=_without_grain(phantom.image))


def _without_grain(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `image` less its faintest detail, which says nothing and doubles the file."""
    picture = Image.fromarray(image)
    smooth = np.asarray(picture.filter(ImageFilter.GaussianBlur(2)), np.float32)
    detail = image - smooth
    kept = np.sign(detail) * np.maximum(np.abs(detail) - 10, 0)
    return np.asarray(np.clip(smooth + kept + 0.5, 0, 255), np.uint8)


def _shrunk(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `region` less its rim of one pixel; the picture's border is no rim."""
    padded = np.pad(region, 1, mode="edge")
    inner = region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(inner, np.bool_)


def _grown(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `region` and one pixel around it."""
    return ~_shrunk(~region)


def _tile_rows(rows: Sequence[Sequence[tuple[NDArray[np.uint8], str]]]) -> Image.Image:
    """Draw rows of (tile, caption) on white, the caption above its tile."""
    step_x, step_y = TILE + _GAP, TILE + _CAPTION + _GAP
    size = (max(map(len, rows)) * step_x - _GAP, len(rows) * step_y - _GAP)
    picture = Image.new("RGB", size, _WHITE)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=15)
    for row, tiles in enumerate(rows):
        for column, (tile, caption) in enumerate(tiles):
            left, top = column * step_x, row * step_y
            pen.text((left + 2, top + 3), caption, fill=_INK, font=font)
            picture.paste(Image.fromarray(tile), (left, top + _CAPTION))
    return picture


def _with_legend(picture: Image.Image, protocol: Protocol) -> Image.Image:
    extended = Image.new("RGB", (picture.width, picture.height + 36), _WHITE)
    extended.paste(picture, (0, 0))
    pen, font = ImageDraw.Draw(extended), ImageFont.load_default(size=16)
    captions = [f"{c.name} ({c.hotkey})" for c in protocol.classes]
    spare = picture.width - sum(36 + pen.textlength(caption, font=font) for caption in captions)
    left, top = 0.0, picture.height + 10
    for label_class, caption in zip(protocol.classes, captions, strict=True):
        pen.rectangle((left, top, left + 28, top + 20), label_class.rgb, _INK)
        pen.text((left + 36, top + 1), caption, fill=_INK, font=font)
        left += 36 + pen.textlength(caption, font=font) + spare / (len(captions) - 1)
    return extended


if __name__ == "__main__":
    main()
