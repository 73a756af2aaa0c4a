"""Sampling strategies: choose images of one tone at random, by expected quality, by diversity, or both.

Pure functions on arrays; `ddiseg/sampling/batches.py` reads them from the catalogue.

Arrays: N candidates in the order of their seeded rank, D numbers in an embedding, L labelled images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: MIXED looks for the farthest among so many times the slots: few enough that all are doubtful,
#: enough to leave a choice (as in Zhdanov 2019, "Diverse mini-batch active learning").
BREADTH = 5

RANDOM_REASON = "next by seed"

#: Called with a candidate before it is taken; returns False where it may not be taken.
TryTake: TypeAlias = Callable[[int], bool]

#: With more candidates than this, distances are those of a random projection to so many numbers,
#: mostly within a tenth of the exact ones (Johnson and Lindenstrauss 1984): five times as fast.
_EXACT, _PROJECTED = 10_000, 64

#: Centres compared with all candidates at a time, which bounds the memory.
_CENTRES = 256


class Rows(Protocol):
    """Embeddings (N, D) that are read where they are asked for."""

    known: NDArray[np.bool_]  #: (N,)

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, positions: NDArray[np.intp], /) -> NDArray[np.float32]: ...


class Strategy(StrEnum):
    """How images are chosen within a tone."""

    RANDOM = "random"  #: in the order of their seeded rank
    QUALITY = "quality"  #: lowest expected IoU first
    UNCERTAINTY = "uncertainty"  #: where the model's members disagree most
    DIVERSITY = "diversity"  #: farthest from all that is labelled or chosen: greedy k-centre
    MIXED = "mixed"  #: farthest among those with the lowest expected IoU


@dataclass(frozen=True)
class Candidates:
    """The images of one tone that may be chosen.

    Raises:
        ValueError: the shapes of the arrays do not match.
    """

    uncertainties: NDArray[np.float64]  #: (N,), nats a pixel; NaN without a prediction
    quality: NDArray[np.float64]  #: (N,), expected IoU; NaN where the model tells none
    embeddings: NDArray[np.float32] | Rows  #: (N, D), pooled activations; rows of NaN where unknown
    labelled: NDArray[np.float32]  #: (L, D), embeddings of images that are labelled, or about to be

    def __post_init__(self) -> None:
        n, d = len(self.uncertainties), self.embeddings.shape[-1]
        shapes = {"quality": (n,), "embeddings": (n, d), "labelled": (len(self.labelled), d)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")

    @property
    def predicted(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.uncertainties) | np.isfinite(self.quality))

    @property
    def embedded(self) -> NDArray[np.bool_]:
        if not isinstance(self.embeddings, np.ndarray):
            return self.embeddings.known
        # An embedding is known as a whole or not at all.
        return np.asarray(np.isfinite(self.embeddings[:, :1]).any(axis=1))


@dataclass(frozen=True)
class Pick:
    """A candidate that was chosen."""

    index: int
    reason: str
    random: bool  #: out of all candidates, by rank alone: an unbiased sample of its tone


def pick(strategy: Strategy, candidates: Candidates, slots: int, try_take: TryTake) -> list[Pick]:
    """Return at most `slots` candidates, in the order in which they were chosen.

    Takes O(slots N D + L N D); with more than 10,000 candidates, D is 64. Candidates without what the
    strategy needs come last, by rank; where that is all of them, the choice is random.
    """
    used = effective_strategy(strategy, candidates.predicted, candidates.embedded)
    choose, known = _chooser(used, candidates)
    picks = choose(candidates, np.flatnonzero(known), slots, try_take)
    at_random = not known.any()
    reason = RANDOM_REASON if at_random else "no prediction or embedding yet: by rank"
    for index in np.flatnonzero(~known).tolist():
        if len(picks) >= slots:
            break
        if try_take(index):
            picks.append(Pick(index, reason, at_random))
    return picks


def effective_strategy(
    strategy: Strategy, predicted: NDArray[np.bool_], embedded: NDArray[np.bool_]
) -> Strategy:
    """Return the strategy that MIXED falls back to where arrays, (N,) each, lack values."""
    if strategy is not Strategy.MIXED:
        return strategy
    if (predicted & embedded).any():
        return Strategy.MIXED
    if predicted.any():
        return Strategy.QUALITY
    return Strategy.DIVERSITY if embedded.any() else Strategy.RANDOM


#: Chooses among the candidates at these positions, ascending.
_Choose: TypeAlias = Callable[[Candidates, NDArray[np.intp], int, TryTake], list[Pick]]


def _chooser(strategy: Strategy, candidates: Candidates) -> tuple[_Choose, NDArray[np.bool_]]:
    """Return the function of a strategy, and the candidates that have what it needs, (N,)."""
    predicted, embedded = candidates.predicted, candidates.embedded
    return {
        Strategy.RANDOM: (_none, np.zeros_like(predicted)),
        Strategy.QUALITY: (_doubtful, predicted),
        Strategy.UNCERTAINTY: (_uncertain, np.isfinite(candidates.uncertainties)),
        Strategy.DIVERSITY: (_diverse, embedded),
        Strategy.MIXED: (_mixed, predicted & embedded),
    }[strategy]


def _none(
    candidates: Candidates, known: NDArray[np.intp], slots: int, try_take: TryTake
) -> list[Pick]:
    return []


def _doubtful(
    candidates: Candidates, known: NDArray[np.intp], slots: int, try_take: TryTake
) -> list[Pick]:
    return _in_order(candidates, _by_doubt(candidates, known), slots, try_take)


def _uncertain(
    candidates: Candidates, known: NDArray[np.intp], slots: int, try_take: TryTake
) -> list[Pick]:
    without = replace(candidates, quality=np.full_like(candidates.quality, np.nan))
    return _in_order(without, _by_doubt(without, known), slots, try_take)


def _in_order(
    candidates: Candidates, order: NDArray[np.intp], slots: int, try_take: TryTake
) -> list[Pick]:
    picks: list[Pick] = []
    for place, index in enumerate(order.tolist(), start=1):
        if len(picks) >= slots:
            break
        if try_take(index):
            quality = candidates.quality[index]
            number = f"expected IoU {quality:.2f}"
            if np.isnan(quality):
                number = f"uncertainty {candidates.uncertainties[index]:.3g}"
            picks.append(Pick(index, f"{number}, rank {place} of {len(order)}", False))
    return picks


def _diverse(
    candidates: Candidates, known: NDArray[np.intp], slots: int, try_take: TryTake
) -> list[Pick]:
    return _farthest(_Space(candidates), known, slots, try_take, "")


def _mixed(
    candidates: Candidates, known: NDArray[np.intp], slots: int, try_take: TryTake
) -> list[Pick]:
    space = _Space(candidates)
    order = _by_doubt(candidates, known)
    rated = int(np.isfinite(candidates.quality[order]).sum())
    width = BREADTH * slots
    picks: list[Pick] = []
    # The next most doubtful follow where too few of the first may be taken.
    for start in range(0, len(order), max(1, width)):
        if len(picks) >= slots:
            break
        among = np.sort(order[start : start + width])
        end = min(start + width, len(order))
        how = "with the lowest expected IoU" if end <= rated else "most uncertain"
        prefix = f"among the {end} {how} of {len(order)}, "
        picks += _farthest(space, among, slots - len(picks), try_take, prefix)
    return picks


def _by_doubt(candidates: Candidates, known: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the candidates `known`: the lowest expected IoU first, then those without, the most
    uncertain first; equals by rank."""
    quality, uncertainty = candidates.quality[known], candidates.uncertainties[known]
    order: NDArray[np.intp] = np.lexsort((-uncertainty, quality))  # which sorts NaN last
    return known[order]


class _Space:
    """Standardised embeddings, and the centres that candidates should be far from.

    Distances are root mean squares over the D numbers, in standard deviations.
    """

    def __init__(self, candidates: Candidates) -> None:
        embedded = np.flatnonzero(candidates.embedded)
        # The first by rank are a random sample: enough to estimate the scale.
        sample = candidates.embeddings[embedded[:_EXACT]]
        known = np.concatenate([sample, candidates.labelled])
        self._mean, std = known.mean(axis=0), known.std(axis=0)
        std[std == 0] = 1
        self._scale = std * np.float32(np.sqrt(known.shape[1]))  # a squared distance is a mean
        self._projection: NDArray[np.float32] | None = None
        if len(embedded) > _EXACT and known.shape[1] > _PROJECTED:
            shape = known.shape[1], _PROJECTED
            normal = np.random.default_rng(0).standard_normal(shape, np.float32)
            self._projection = normal / np.float32(np.sqrt(_PROJECTED))
        self._embeddings = candidates.embeddings
        self._centres = [self._standardised(candidates.labelled)]

    def points(self, indices: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the standardised embeddings of candidates, (n, D)."""
        parts = [
            self._standardised(self._embeddings[indices[start : start + _EXACT]])
            for start in range(0, len(indices), _EXACT)
        ]
        return np.concatenate(parts) if parts else self._standardised(self._embeddings[indices])

    def nearest_centre(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the squared distance to the nearest centre, (n,); infinite without any centre."""
        nearest: NDArray[np.float32] = np.full(len(points), np.inf, np.float32)
        every = np.concatenate(self._centres)
        for start in range(0, len(every), _CENTRES):
            centres = every[start : start + _CENTRES]
            away = _squared_norms(centres) - 2 * (points @ centres.T)
            np.minimum(nearest, away.min(axis=1), out=nearest)
        nearest += _squared_norms(points)
        return nearest.clip(0)

    def add_centre(self, point: NDArray[np.float32]) -> None:
        self._centres.append(point[None])

    def _standardised(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        standardised: NDArray[np.float32] = embeddings - self._mean
        standardised /= self._scale
        return standardised if self._projection is None else standardised @ self._projection


def _squared_norms(points: NDArray[np.float32]) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.einsum("nd,nd->n", points, points)
    return norms


def _farthest(
    space: _Space, indices: NDArray[np.intp], slots: int, try_take: TryTake, prefix: str
) -> list[Pick]:
    """Choose by greedy k-centre: Sener and Savarese (2018), algorithm 1. `prefix` begins each reason."""
    picks: list[Pick] = []
    points = space.points(indices)
    norms = _squared_norms(points)
    away = space.nearest_centre(points)
    while len(picks) < slots and away.size:
        best = int(away.argmax())
        if away[best] < 0:
            break
        index, distance = int(indices[best]), float(np.sqrt(away[best]))
        if try_take(index):
            reason = f"farthest from the labelled images: distance {distance:.2f}"
            if np.isinf(distance):
                reason = "the first: no image is labelled yet"
            picks.append(Pick(index, prefix + reason, False))
            space.add_centre(points[best])
            from_it = norms + norms[best] - 2 * (points @ points[best])
            np.minimum(away, np.maximum(from_it, 0), out=away)
        away[best] = -1  # never again
    return picks
