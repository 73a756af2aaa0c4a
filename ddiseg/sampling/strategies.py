"""Which images of one tone are worth labelling next: at random, uncertain, unlike, or both.

Pure functions on arrays: the catalogue's part is in `ddiseg/sampling/batches.py`.

Arrays: N candidates in the order of their seeded rank, D numbers a descriptor, L labelled images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

#: MIXED looks for the farthest among so many times the slots: few enough that all are uncertain,
#: enough to leave a choice (Zhdanov 2019, "Diverse mini-batch active learning", filters so too).
BREADTH = 5

RANDOM_REASON = "next by seed"

#: Asked for a candidate before it is taken; False where it is taken already or may not be.
Take: TypeAlias = Callable[[int], bool]

#: With more candidates than this, distances are those of a random projection to so many numbers,
#: a tenth off or less for most pairs (Johnson and Lindenstrauss 1984): five times as fast.
_EXACT, _PROJECTED = 10_000, 64

#: Centres compared with all candidates at a time, which bounds the memory.
_CENTRES = 256


class Strategy(StrEnum):
    """How images are chosen within a tone."""

    RANDOM = "random"  #: in the order of their seeded rank
    UNCERTAINTY = "uncertainty"  #: where the model's members disagree most
    DIVERSITY = "diversity"  #: farthest from all that is labelled or chosen: greedy k-centre
    MIXED = "mixed"  #: farthest among the most uncertain


@dataclass(frozen=True)
class Candidates:
    """The images of one tone that may be chosen.

    Raises ValueError where the arrays do not go together.
    """

    uncertainties: NDArray[np.float64]  #: (N,), nats a pixel; NaN where nothing is painted
    descriptors: NDArray[np.float32]  #: (N, D), pooled activations; rows of NaN where unknown
    labelled: NDArray[np.float32]  #: (L, D), of what is labelled, or about to be

    def __post_init__(self) -> None:
        n, d = len(self.uncertainties), self.descriptors.shape[-1]
        shapes = {"descriptors": (n, d), "labelled": (len(self.labelled), d)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")

    @property
    def painted(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.uncertainties))

    @property
    def described(self) -> NDArray[np.bool_]:
        # A vector is known whole or not at all.
        return np.asarray(np.isfinite(self.descriptors[:, :1]).any(axis=1))


@dataclass(frozen=True)
class Pick:
    """A candidate that was chosen."""

    index: int
    reason: str
    random: bool  #: out of all candidates, by rank alone: an unbiased sample of its tone


def pick(strategy: Strategy, candidates: Candidates, slots: int, take: Take) -> list[Pick]:
    """At most `slots` candidates, in the order in which they were chosen.

    O(slots N D + L N D); of more than 10,000 candidates, D is 64. Candidates that the strategy knows nothing of come after all others, by
    rank; where it knows nothing of any, that is a random draw.
    """
    used = in_effect(strategy, candidates.painted, candidates.described)
    choose, known = _chooser(used, candidates)
    picks = choose(candidates, np.flatnonzero(known), slots, take)
    at_random = not known.any()
    reason = RANDOM_REASON if at_random else "nothing is known of it yet: by rank"
    for index in np.flatnonzero(~known).tolist():
        if len(picks) >= slots:
            break
        if take(index):
            picks.append(Pick(index, reason, at_random))
    return picks


def in_effect(
    strategy: Strategy, painted: NDArray[np.bool_], described: NDArray[np.bool_]
) -> Strategy:
    """What MIXED comes down to where uncertainties, descriptors or both are missing; (N,) each."""
    if strategy is not Strategy.MIXED:
        return strategy
    if (painted & described).any():
        return Strategy.MIXED
    if painted.any():
        return Strategy.UNCERTAINTY
    return Strategy.DIVERSITY if described.any() else Strategy.RANDOM


#: Chooses among the candidates at these positions, ascending.
_Choose: TypeAlias = Callable[[Candidates, NDArray[np.intp], int, Take], list[Pick]]


def _chooser(strategy: Strategy, candidates: Candidates) -> tuple[_Choose, NDArray[np.bool_]]:
    """How a strategy chooses, and the candidates that it knows enough of, (N,)."""
    painted, described = candidates.painted, candidates.described
    return {
        Strategy.RANDOM: (_none, np.zeros_like(painted)),
        Strategy.UNCERTAINTY: (_uncertain, painted),
        Strategy.DIVERSITY: (_diverse, described),
        Strategy.MIXED: (_mixed, painted & described),
    }[strategy]


def _none(candidates: Candidates, known: NDArray[np.intp], slots: int, take: Take) -> list[Pick]:
    return []


def _uncertain(
    candidates: Candidates, known: NDArray[np.intp], slots: int, take: Take
) -> list[Pick]:
    picks: list[Pick] = []
    for place, index in enumerate(_by_uncertainty(candidates, known).tolist(), start=1):
        if len(picks) >= slots:
            break
        if take(index):
            uncertainty = candidates.uncertainties[index]
            reason = f"uncertainty {uncertainty:.3g}, rank {place} of {len(known)}"
            picks.append(Pick(index, reason, False))
    return picks


def _diverse(candidates: Candidates, known: NDArray[np.intp], slots: int, take: Take) -> list[Pick]:
    space = _Space(candidates)
    return _farthest(space, known, slots, take, "")


def _mixed(candidates: Candidates, known: NDArray[np.intp], slots: int, take: Take) -> list[Pick]:
    space = _Space(candidates)
    order = _by_uncertainty(candidates, known)
    width = BREADTH * slots
    picks: list[Pick] = []
    # The next most uncertain follow where too few of the first may be taken.
    for start in range(0, len(order), max(1, width)):
        if len(picks) >= slots:
            break
        among = np.sort(order[start : start + width])
        said = f"among the {min(start + width, len(order))} most uncertain of {len(order)}, "
        picks += _farthest(space, among, slots - len(picks), take, said)
    return picks


def _by_uncertainty(candidates: Candidates, known: NDArray[np.intp]) -> NDArray[np.intp]:
    """The most uncertain first; of equals, the first by rank."""
    return known[np.argsort(-candidates.uncertainties[known], kind="stable")]


class _Space:
    """Standardised descriptors, and the centres that candidates should be far from.

    Distances are root mean squares over the D numbers, in standard deviations.
    """

    def __init__(self, candidates: Candidates) -> None:
        described = np.flatnonzero(candidates.described)
        # The first by rank are a random sample, from which the scale is read as well.
        sample = candidates.descriptors[described[:_EXACT]]
        known = np.concatenate([sample, candidates.labelled])
        self._mean, std = known.mean(axis=0), known.std(axis=0)
        std[std == 0] = 1
        self._scale = std * np.float32(np.sqrt(known.shape[1]))  # a squared distance is a mean
        self._projection: NDArray[np.float32] | None = None
        if len(described) > _EXACT and known.shape[1] > _PROJECTED:
            shape = known.shape[1], _PROJECTED
            normal = np.random.default_rng(0).standard_normal(shape, np.float32)
            self._projection = normal / np.float32(np.sqrt(_PROJECTED))
        self._descriptors = candidates.descriptors
        self._centres = [self._standardised(candidates.labelled)]

    def points(self, indices: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, D)."""
        return self._standardised(self._descriptors[indices])

    def nearest_centre(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squared distance to the nearest centre, (n,); infinite where there is none yet."""
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

    def _standardised(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        standardised: NDArray[np.float32] = descriptors - self._mean
        standardised /= self._scale
        return standardised if self._projection is None else standardised @ self._projection


def _squared_norms(points: NDArray[np.float32]) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.einsum("nd,nd->n", points, points)
    return norms


def _farthest(
    space: _Space, indices: NDArray[np.intp], slots: int, take: Take, said: str
) -> list[Pick]:
    """Greedy k-centre: Sener and Savarese (2018), algorithm 1. `said` begins each reason."""
    picks: list[Pick] = []
    points = space.points(indices)
    norms = _squared_norms(points)
    away = space.nearest_centre(points)
    while len(picks) < slots and away.size:
        best = int(away.argmax())
        if away[best] < 0:
            break
        index, distance = int(indices[best]), float(np.sqrt(away[best]))
        if take(index):
            reason = f"farthest from what is labelled: distance {distance:.2f}"
            if np.isinf(distance):
                reason = "the first: nothing is labelled that it could be far from"
            picks.append(Pick(index, said + reason, False))
            space.add_centre(points[best])
            from_it = norms + norms[best] - 2 * (points @ points[best])
            np.minimum(away, np.maximum(from_it, 0), out=away)
        away[best] = -1  # asked for once
    return picks
