"""A region grown from a person's clicks, from the backbone's features and the probes' prediction.

A click says that its position belongs to a class, or does not. Similar positions nearby follow: a
click shifts the probes' log-odds by its strength, times the squared cosine similarity of the
position's features to the clicked one's, times a Gaussian of the distance. At each position the
strongest positive click counts, minus the strongest negative one. A click that contradicts the probes
gets the strength it needs to prevail.

A click runs no network: `prepare_clicks` runs it once, and `ClickSegmenter.region` answers from that.

Arrays: H x W the photograph, D the channels of all blocks, h x w the finest block's grid, S the
backbone's image size, K the classes. Distances are shares of the photograph's height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.errors import ClickError
from fedd.features import image_statistics, prepare
from fedd.network.devices import within_memory
from fedd.probes.decision import Ensemble
from fedd.probes.prediction import decided_map, first_pass, refine
from fedd.segment import Photograph, Probes

#: A region is where the shifted log-odds exceed this. This and the three numbers below were chosen on
#: 30 photographs of pad300's train90 part, with probes of 30 other masks.
THRESHOLD = 0.8

#: Smallest shift of the log-odds at a click's own position.
STRENGTH = 2.5

#: Smallest distance from the threshold at a click's own position.
MARGIN = 2.0

#: Standard deviation of the Gaussian of the distance.
REACH = 0.25

#: Log-odds are clamped to those of this probability and of 1 minus it.
SMALLEST = 1e-4


@dataclass(frozen=True)
class Click:
    """A position in pixels of the photograph, x to the right and y down from the upper left corner."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, eq=False)
class ClickSegmenter:
    """A photograph prepared for clicks; see `prepare_clicks`.

    `features` are (D, h, w) float16, of length 1 at each position; `log_odds` are (K, S, S) float16,
    0 everywhere for a class without training pixels: only similarity counts for it.
    """

    shape: tuple[int, int]  #: (H, W)
    features: NDArray[np.float16]
    log_odds: NDArray[np.float16]

    @property
    def nbytes(self) -> int:
        """Memory in bytes: 2 D h w + 2 K S S, 2.8 MB with the shipped backbone and 5 classes."""
        return self.features.nbytes + self.log_odds.nbytes

    def region(self, clicks: Sequence[Click], class_id: int) -> NDArray[np.bool_]:
        """Return the connected parts (H, W) of a class with the positive clicks, holes filled.

        Contains the pixel of every positive click and of no negative one; a hole with a negative click
        stays. Empty without a positive click. Raises ClickError for a click outside the photograph, a
        pixel clicked both ways, and an unknown class.
        """
        positions = self._positions(clicks)
        if not 0 <= class_id < len(self.log_odds):
            raise ClickError(
                f"there is no class {class_id}: the probes know 0 to {len(self.log_odds) - 1}"
            )
        if not positions[True]:
            return np.zeros(self.shape, bool)
        return _connected(self._shifted(positions, class_id) > THRESHOLD, *positions.values())

    def _positions(self, clicks: Sequence[Click]) -> dict[bool, list[tuple[int, int]]]:
        """Return the pixels (row, column) of the positive and of the negative clicks."""
        height, width = self.shape
        positions: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for click in clicks:
            if not (0 <= click.x < width and 0 <= click.y < height):
                raise ClickError(
                    f"a click at x = {click.x:g}, y = {click.y:g} is outside the photograph of "
                    f"{width} x {height} pixels: click inside it"
                )
            positions[click.positive].append((int(click.y), int(click.x)))
        for row, column in set(positions[True]) & set(positions[False]):
            raise ClickError(
                f"the pixel x = {column}, y = {row} was clicked as inside and as outside: "
                "undo one of the two"
            )
        return positions

    def _shifted(
        self, positions: dict[bool, list[tuple[int, int]]], class_id: int
    ) -> NDArray[np.float32]:
        """Return the log-odds of a class after the clicks, (H, W)."""
        log_odds = torch.from_numpy(self.log_odds[class_id].astype(np.float32))
        features = torch.from_numpy(self.features.astype(np.float32))
        shifts = {
            positive: [self._shift(position, positive, features, log_odds) for position in clicked]
            for positive, clicked in positions.items()
        }
        shifted = log_odds + torch.stack(shifts[True]).amax(0)
        if shifts[False]:
            shifted = shifted - torch.stack(shifts[False]).amax(0)
        return _resized(shifted, self.shape).numpy()

    def _shift(
        self, position: tuple[int, int], positive: bool, features: Tensor, log_odds: Tensor
    ) -> Tensor:
        """Return the shift of the log-odds by one click, (S, S), at least 0."""
        row, column = _on_grid(position, self.shape, features.shape[1:])
        similarity = torch.einsum("d,dhw->hw", features[:, row, column], features).clamp_min(0)
        size = log_odds.shape
        here = float(log_odds[_on_grid(position, self.shape, size)]) - THRESHOLD
        strength = max(STRENGTH, MARGIN - here if positive else MARGIN + here)
        return strength * _resized(similarity**2, size) * _nearness(position, self.shape, size)


def prepare_clicks(
    probes: Probes, backbone: Backbone, photograph: Photograph, cache: FeatureCache | None = None
) -> ClickSegmenter:
    """Predict a photograph (H, W, 3) as `Probes.predict` does, and keep what clicks need.

    The probabilities are the means of the members' softmaxes, also where the settings let them vote:
    clicks shift log-odds, and a vote has none. Raises as `Probes.predict` does.
    """
    probes.check_backbone(backbone)
    with torch.inference_mode(), within_memory("predicting one photograph"):
        images = prepare(photograph, backbone.image_size)[None]
        found = first_pass(probes, backbone, images, cache, Ensemble.MEAN)
        found.check()
        refined = refine(probes, backbone, [photograph], found.probabilities, None, Ensemble.MEAN)
        size = backbone.image_size
        probabilities = decided_map(probes, found.probabilities[0], refined.get(0), size)
        log_odds = torch.logit(probabilities, SMALLEST)
        log_odds[[c for c in range(len(probes.classes)) if c not in probes.trained]] = 0
        return ClickSegmenter(
            (photograph.shape[0], photograph.shape[1]),
            _directions(found.activations).half().cpu().numpy(),
            log_odds.half().cpu().numpy(),
        )


def region(
    probes: Probes,
    backbone: Backbone,
    photograph: Photograph,
    clicks: Sequence[Click],
    class_id: int,
    cache: FeatureCache | None = None,
) -> NDArray[np.bool_]:
    """Return the region of clicks on a photograph; for several calls use `prepare_clicks` once."""
    return prepare_clicks(probes, backbone, photograph, cache).region(clicks, class_id)


def _directions(activations: Sequence[Tensor]) -> Tensor:
    """Return features (D, h, w) of length 1: channels of (1, C, h, w) standardised over the image."""
    size = max((a.shape[2:] for a in activations), key=lambda s: s.numel())
    parts = []
    for activation in activations:
        mean, std = image_statistics(activation)
        parts.append(_resized(((activation - mean) / std)[0], size))
    return F.normalize(torch.cat(parts), dim=0)


def _nearness(position: tuple[int, int], shape: tuple[int, int], size: Sequence[int]) -> Tensor:
    """Return the Gaussian of the distance to a pixel of the photograph, on a grid of `size`."""
    down, right = (
        torch.exp(-(((torch.arange(n) + 0.5) / n - (at + 0.5) / length) ** 2) / (2 * REACH**2))
        for at, length, n in zip(position, shape, size, strict=True)
    )
    return down[:, None] * right


def _connected(
    inside: NDArray[np.bool_],
    positive: Sequence[tuple[int, int]],
    negative: Sequence[tuple[int, int]],
) -> NDArray[np.bool_]:
    """Return the parts of `inside` (H, W) with a positive position, their holes filled."""
    inside = inside.copy()
    inside[tuple(zip(*positive, strict=True))] = True
    for position in negative:
        inside[position] = False
    parts, count = ndimage.label(inside)
    chosen = np.zeros(count + 1, bool)
    chosen[[parts[position] for position in positive]] = True
    outside, count = ndimage.label(~chosen[parts])
    border = (outside[0], outside[-1], outside[:, 0], outside[:, -1])
    stays = np.zeros(count + 1, bool)
    stays[np.concatenate(border)] = True
    stays[[outside[position] for position in negative]] = True
    stays[0] = False  # the label of the region itself
    filled: NDArray[np.bool_] = ~stays[outside]
    return filled


def _on_grid(
    position: tuple[int, int], shape: tuple[int, int], size: Sequence[int]
) -> tuple[int, int]:
    """Return the position of a pixel of the photograph on a grid of `size`."""
    row, column = (
        (2 * at + 1) * n // (2 * length)
        for at, length, n in zip(position, shape, size, strict=True)
    )
    return row, column


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (..., h, w) to `size` bilinearly, with any number of leading dimensions."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    full = F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False)
    return full.reshape(*maps.shape[:-2], *size)
