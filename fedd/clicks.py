"""A region grown from a person's clicks, out of what the backbone and the probes saw already.

A click says of one place that it belongs to a class, or that it does not. Places nearby that look
like it are taken along: a click moves the probe's log-odds by its strength, times the square of the
cosine similarity of the place's features to those clicked, times a Gaussian of the distance. The
strongest positive click counts at a place, less the strongest negative one. A click that the probe
strongly disagrees with is as strong as it takes to be followed.

Nothing passes through the backbone for a click: `look` keeps what there is to know of a photograph,
and `Looked.region` answers from that alone.

Arrays: H x W the photograph, D the channels of all blocks, h x w the finest block's grid, S the
backbone's image size, K the classes. Distances are shares of the photograph's sides.
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
from fedd.features import image_statistics
from fedd.segment import Photograph, Probes

#: A region is where the log-odds, moved by the clicks, are above this. This and the three numbers
#: below were chosen on 30 photographs of pad300's train90 part, with probes of 30 other masks.
THRESHOLD = 0.8

#: By how much a click moves the log-odds of its own place, at least.
STRENGTH = 2.5

#: How far beyond the threshold a click brings its own place, at least.
MARGIN = 2.0

#: Standard deviation of the Gaussian of the distance.
REACH = 0.25

#: Log-odds are kept between those of this probability and of 1 less it.
SMALLEST = 1e-4


@dataclass(frozen=True)
class Click:
    """A place in pixels of the photograph, x to the right and y down, from its upper left corner."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, eq=False)
class Looked:
    """What clicks on a photograph are answered from; see `look`.

    `features` are (D, h, w) float16, of length 1 at each position; `log_odds` are (K, S, S) float16,
    0 everywhere for a class that the probes never learned: it is judged by likeness alone.
    """

    shape: tuple[int, int]  #: (H, W)
    features: NDArray[np.float16]
    log_odds: NDArray[np.float16]

    @property
    def nbytes(self) -> int:
        """Memory in bytes: 2 D h w + 2 K S S, 2.8 MB with the shipped backbone and 5 classes."""
        return self.features.nbytes + self.log_odds.nbytes

    def region(self, clicks: Sequence[Click], class_id: int) -> NDArray[np.bool_]:
        """The connected parts (H, W) of a class that hold the positive clicks, without holes.

        Holds the pixel of every positive click, and of no negative one; a hole that was clicked away
        stays. Empty without a positive click.

        Raises ClickError for a click beside the photograph, for one pixel clicked both ways, and for
        a class that there is not.
        """
        places = self._places(clicks)
        if not 0 <= class_id < len(self.log_odds):
            raise ClickError(
                f"there is no class {class_id}: the probes know 0 to {len(self.log_odds) - 1}"
            )
        if not places[True]:
            return np.zeros(self.shape, bool)
        return _around(self._moved(places, class_id) > THRESHOLD, places[True], places[False])

    def _places(self, clicks: Sequence[Click]) -> dict[bool, list[tuple[int, int]]]:
        """Pixels (row, column) of the positive and of the negative clicks."""
        height, width = self.shape
        places: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for click in clicks:
            if not (0 <= click.x < width and 0 <= click.y < height):
                raise ClickError(
                    f"a click at x = {click.x:g}, y = {click.y:g} is beside the photograph of "
                    f"{width} x {height} pixels: click inside it"
                )
            places[click.positive].append((int(click.y), int(click.x)))
        for row, column in set(places[True]) & set(places[False]):
            raise ClickError(
                f"the pixel x = {column}, y = {row} was clicked as inside and as outside: "
                "take one of the two back"
            )
        return places

    def _moved(
        self, places: dict[bool, list[tuple[int, int]]], class_id: int
    ) -> NDArray[np.float32]:
        """The log-odds of a class after the clicks, (H, W)."""
        log_odds = torch.from_numpy(self.log_odds[class_id].astype(np.float32))
        features = torch.from_numpy(self.features.astype(np.float32))
        pushes = {
            positive: [self._push(place, positive, features, log_odds) for place in clicked]
            for positive, clicked in places.items()
        }
        moved = log_odds + torch.stack(pushes[True]).amax(0)
        if pushes[False]:
            moved = moved - torch.stack(pushes[False]).amax(0)
        return _resized(moved, self.shape).numpy()

    def _push(
        self, place: tuple[int, int], positive: bool, features: Tensor, log_odds: Tensor
    ) -> Tensor:
        """By how much one click moves the log-odds, (S, S), 0 and more."""
        row, column = _on_grid(place, self.shape, features.shape[1:])
        likeness = torch.einsum("d,dhw->hw", features[:, row, column], features).clamp_min(0)
        size = log_odds.shape
        here = float(log_odds[_on_grid(place, self.shape, size)]) - THRESHOLD
        strength = max(STRENGTH, MARGIN - here if positive else MARGIN + here)
        return strength * _resized(likeness**2, size) * _nearness(place, self.shape, size)


def look(
    probes: Probes, backbone: Backbone, photograph: Photograph, cache: FeatureCache | None = None
) -> Looked:
    """Look at a photograph (H, W, 3) as `Probes.predict` does, and keep what clicks need.

    Raises WeightsError as `Probes.predict` does.
    """
    seen = probes.look(backbone, [photograph], cache)
    with torch.inference_mode():
        probabilities = _resized(seen.votes[0].mean(0), (backbone.image_size,) * 2)
        for window, close in probes.look_closer(backbone, [photograph], seen.votes).values():
            probabilities = _seen_closer(
                probabilities, window.slices(*probabilities.shape[1:]), close, probes
            )
        log_odds = torch.logit(probabilities, SMALLEST)
        log_odds[[c for c in range(len(probes.classes)) if c not in probes.trained]] = 0
        return Looked(
            (photograph.shape[0], photograph.shape[1]),
            _directions(seen.activations).half().cpu().numpy(),
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
    """`look` and `Looked.region` in one; several calls on a photograph had better share its look."""
    return look(probes, backbone, photograph, cache).region(clicks, class_id)


def _seen_closer(
    probabilities: Tensor, place: tuple[slice, slice], close: Tensor, probes: Probes
) -> Tensor:
    """Probabilities (K, S, S) where the second look's replace the first's inside its window.

    Classes that the second look never learned keep theirs, and leave the rest to the others.
    """
    known = list(probes.closer.trained) if probes.closer is not None else []
    found = probabilities.clone()
    inside = found[:, *place]
    inside[known] = inside[known].sum(0) * _resized(close, inside.shape[1:])[known]
    return found


def _directions(activations: Sequence[Tensor]) -> Tensor:
    """Features (D, h, w) of length 1: each channel of (1, C, h, w) standardised over the image."""
    size = max((a.shape[2:] for a in activations), key=lambda s: s.numel())
    parts = []
    for activation in activations:
        mean, std = image_statistics(activation)
        parts.append(_resized(((activation - mean) / std)[0], size))
    return F.normalize(torch.cat(parts), dim=0)


def _nearness(place: tuple[int, int], shape: tuple[int, int], size: Sequence[int]) -> Tensor:
    """The Gaussian of the distance to a pixel of the photograph, 1 there, on a grid of `size`."""
    down, right = (
        torch.exp(-(((torch.arange(n) + 0.5) / n - (at + 0.5) / length) ** 2) / (2 * REACH**2))
        for at, length, n in zip(place, shape, size, strict=True)
    )
    return down[:, None] * right


def _around(
    inside: NDArray[np.bool_],
    positive: Sequence[tuple[int, int]],
    negative: Sequence[tuple[int, int]],
) -> NDArray[np.bool_]:
    """The parts of `inside` (H, W) that hold the positive places, their holes filled."""
    inside = inside.copy()
    inside[tuple(zip(*positive, strict=True))] = True
    for place in negative:
        inside[place] = False
    parts, count = ndimage.label(inside)
    chosen = np.zeros(count + 1, bool)
    chosen[[parts[place] for place in positive]] = True
    outside, count = ndimage.label(~chosen[parts])
    border = (outside[0], outside[-1], outside[:, 0], outside[:, -1])
    stays = np.zeros(count + 1, bool)
    stays[np.concatenate(border)] = True
    stays[[outside[place] for place in negative]] = True
    stays[0] = False  # the label of the region itself
    filled: NDArray[np.bool_] = ~stays[outside]
    return filled


def _on_grid(
    place: tuple[int, int], shape: tuple[int, int], size: Sequence[int]
) -> tuple[int, int]:
    """The position, on a grid of `size`, of a pixel of the photograph."""
    row, column = (
        (2 * at + 1) * n // (2 * length) for at, length, n in zip(place, shape, size, strict=True)
    )
    return row, column


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(..., h, w) brought to `size` bilinearly, with any number of leading dimensions, or none."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    full = F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False)
    return full.reshape(*maps.shape[:-2], *size)
