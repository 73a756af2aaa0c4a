"""What lies on the skin in a phantom: pen strokes, cloth, plasters and rulers.

Each function draws on a picture and returns it with the pixels that it covers, so that the mask stays
exact. Positions and lengths are shares of the side.

Arrays: pictures are (S, S, 3) float32 in 0 to 1, covered pixels (S, S) bool.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from annotation_protocol.phantoms import appearance
from annotation_protocol.phantoms.canvas import Canvas, Floats, sigmoid


class Place(Protocol):
    """Where the lesion is that a pen or a plaster belongs to; a `Scene` says so."""

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the middle."""
        ...

    @property
    def radius(self) -> float: ...


def pen(canvas: Canvas, place: Place, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    rng, size = canvas.rng, canvas.size
    row, column = place.centre
    scale = 3
    sheet = Image.new("L", (size * scale, size * scale), 0)
    draw = ImageDraw.Draw(sheet)
    width = max(2, round(scale * size * rng.uniform(0.010, 0.024)))
    t = np.linspace(0, 2 * np.pi * rng.uniform(0.75, 1.02), 60) + rng.uniform(0, 6)
    style = rng.random()
    if style < 0.55:  # a ring around the lesion
        reach = place.radius * rng.uniform(1.35, 1.9) + 0.02
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
        reach = place.radius * rng.uniform(1.3, 1.7) + 0.02
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
        near, far = place.radius * 1.4 + 0.02, place.radius * 1.4 + rng.uniform(0.1, 0.25)
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


def cloth(canvas: Canvas, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    rng = canvas.rng
    angle = rng.uniform(0, 2 * np.pi)
    along = (canvas.x - 0.5) * np.cos(angle) + (canvas.y - 0.5) * np.sin(angle)
    edge = rng.uniform(0.3, 0.45) + 0.02 * canvas.smooth(3)
    bend = (
        rng.uniform(0, 0.5)
        * ((canvas.x - 0.5) * np.sin(angle) - (canvas.y - 0.5) * np.cos(angle)) ** 2
    )
    off_skin = along + bend > edge
    texture = appearance.cloth(canvas)
    shadow = 1 - 0.35 * sigmoid((along + bend - edge + 0.02) / np.float32(0.01)) * (~off_skin)
    rgb = rgb * shadow[..., None]
    return np.where(off_skin[..., None], texture, rgb).astype(np.float32), off_skin


def plaster(canvas: Canvas, place: Place, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    rng = canvas.rng
    row, column = place.centre
    angle = rng.uniform(0, np.pi)
    u = (canvas.x - column) * np.cos(angle) + (canvas.y - row) * np.sin(angle)
    v = -(canvas.x - column) * np.sin(angle) + (canvas.y - row) * np.cos(angle)
    cover = (np.abs(u + 0.3 * place.radius) < 2.2 * place.radius) & (
        np.abs(v) < 0.75 * place.radius
    )
    paper = np.array([0.93, 0.88, 0.8], np.float32) * (1 + 0.03 * canvas.streaks(120, 1))[..., None]
    return np.where(cover[..., None], paper, rgb).astype(np.float32), cover


def ruler(canvas: Canvas, rgb: Floats) -> tuple[Floats, NDArray[np.bool_]]:
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
