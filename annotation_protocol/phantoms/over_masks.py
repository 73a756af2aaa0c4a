"""Rendered photographs over masks that people drew: real geometry, rendered appearance.

Where the masks of a data set are public and its photographs are not, such a phantom has the true
shapes, sizes and places of lesions, pen, rulers and clothes. What they look like is made up, so a
figure measured on it says nothing about patients and is never to be quoted without saying so.

Arrays: masks are (S, S) uint8 class ids of the protocol, images (S, S, 3) uint8 RGB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.phantoms import appearance
from annotation_protocol.phantoms.appearance import Tone
from annotation_protocol.phantoms.canvas import Canvas, Floats, mix
from annotation_protocol.phantoms.phantoms import BACKGROUND, DIAGNOSES, LESION, MARKER, RULER, SKIN

#: Standard deviation in pixels of the rims that pen, cloth and paper have in a photograph.
RIM = 0.7

#: Regions of a class smaller than this share of the image are rendered as one with the others.
_SMALL = 0.01


def render_over(
    mask: NDArray[np.uint8], tone: Tone, rng: np.random.Generator, *, wild: float = 0.35
) -> NDArray[np.uint8]:
    """A photograph (S, S, 3) uint8 whose true mask is `mask`; same mask, tone and seed, same bytes.

    `wild` is from 0 (studio light) to 1 (an old phone in a dim room). Raises ValueError where the
    mask is not square or holds what is no class.
    """
    side = len(mask)
    if mask.shape != (side, side) or not set(np.unique(mask)) <= set(range(SKIN + 1)):
        raise ValueError(
            f"a mask of shape {mask.shape} with values {np.unique(mask)[:8].tolist()}: expected "
            f"a square one of class ids 0 to {SKIN}"
        )
    canvas = Canvas(rng, side)
    rgb, skin_colour = appearance.skin(canvas, tone, wild)
    if (mask == LESION).any():
        rgb = _lesion(canvas, rgb, skin_colour, mask == LESION, wild)
    rgb = appearance.hairs(canvas, rgb, float(max(0.0, rng.normal(0.0, 0.12 + 0.15 * wild))))
    rgb = appearance.light(canvas, rgb, wild)
    rgb = appearance.ink(canvas, rgb, _soft(mask == MARKER))
    for region in _regions(mask == BACKGROUND):
        rgb = mix(rgb, appearance.cloth(canvas), _soft(region))
    for region in _regions(mask == RULER):
        rgb = mix(rgb, _paper_with_ticks(canvas, region), _soft(region))
    return appearance.camera(canvas, rgb, wild, blur=0.0)


def _lesion(
    canvas: Canvas, rgb: Floats, skin_colour: Floats, region: NDArray[np.bool_], wild: float
) -> Floats:
    rng = canvas.rng
    kinds = tuple(DIAGNOSES)
    radius = float(np.sqrt(region.sum() / np.pi))
    return appearance.lesion(
        canvas,
        rgb,
        skin_colour,
        np.asarray(_signed_distance(region) / radius, np.float32),
        kind=kinds[rng.integers(len(kinds))],
        radius=radius / canvas.size,
        softness=rng.uniform(0.03, 0.15),
        contrast=rng.uniform(1.0 - 0.6 * wild, 1.0),
    )


def _paper_with_ticks(canvas: Canvas, region: NDArray[np.bool_]) -> Floats:
    """Paper with ticks from one long side of `region`, longer at every fifth and tenth."""
    rows, columns = np.nonzero(region)
    points = np.stack([canvas.x[rows, columns], canvas.y[rows, columns]])
    centre = points.mean(axis=1)
    _, axes = np.linalg.eigh(np.cov(points - centre[:, None]) if len(rows) > 1 else np.eye(2))
    (across_x, across_y), (along_x, along_y) = axes.T  # eigh sorts them: the long axis is the last
    along = (canvas.x - centre[0]) * along_x + (canvas.y - centre[1]) * along_y
    across = (canvas.x - centre[0]) * across_x + (canvas.y - centre[1]) * across_y
    width = float(np.ptp(across[region])) + 1 / canvas.size
    away = across - across[region].min()
    spacing = canvas.rng.uniform(0.02, 0.03)
    index = np.floor(along / spacing)
    length = np.where(index % 10 == 0, 0.62, np.where(index % 5 == 0, 0.45, 0.3)) * width
    tick = (along - index * spacing < max(0.18 * spacing, 0.7 / canvas.size)) & (away < length)
    return mix(
        appearance.paper(canvas), np.full((canvas.size, canvas.size, 3), 0.12, np.float32), tick
    )


def _regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The connected regions of a class, each apart; the small ones count as one region."""
    from scipy.ndimage import label

    labels, count = label(mask)
    apart = [labels == number for number in range(1, count + 1)]
    large = [region for region in apart if region.mean() >= _SMALL]
    small = [region for region in apart if region.mean() < _SMALL]
    return [*large, np.logical_or.reduce(small)] if small else large


def _soft(region: NDArray[np.bool_]) -> Floats:
    """Cover of a region, 0 to 1, with a rim about as wide as a lens gives."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(region.astype(np.float32), RIM), np.float32)


def _signed_distance(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixels to the region's rim, > 0 inside; half a pixel on either side of it is 0."""
    from scipy.ndimage import distance_transform_edt

    inside, outside = distance_transform_edt(region), distance_transform_edt(~region)
    return np.where(region, inside - 0.5, 0.5 - outside)
