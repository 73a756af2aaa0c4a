"""Pool of a batch: the images to choose from, with their expected quality and embeddings.

Arrays: R images, the candidates of each tone and those that are labelled; a position is an index into them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import Catalogue, State
from ddiseg.catalogue.batches import DRAWABLE, Pool
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.sampling.candidates import RankedCandidates, rank
from ddiseg.sampling.subsets import (
    OTHER_TONE,
    TAKE_BACK,
    UNKNOWN,
    count_tones,
    no_image_of,
    tone_notes,
    tones_to_draw,
    ways_out,
)

#: States of images that have a mask by a person, or are about to get one.
_STARTED = (State.IN_LABELLING, State.SUBMITTED, State.ACCEPTED, State.REWORK)

#: What a message says of images in each state that may not be drawn.
_PLACES = {
    State.NEW: "free",
    State.QUEUED: "free",
    State.PRELABELLED: "free",
    State.IN_LABELLING: "begun by annotators",
    State.REWORK: "returned to annotators",
    State.SUBMITTED: "waiting for review",
    State.ACCEPTED: "accepted",
    State.SKIPPED: "skipped",
}

#: What makes images available again, by where they are.
_WAYS = {
    "in open batches": "close a batch that is done with ('ddiseg batch close NAME')",
    "skipped": TAKE_BACK,
    "of other tones": OTHER_TONE,
}

#: Note on images that may be drawn though they are in Label Studio.
_PUSHED = (
    "of those that may be drawn are in Label Studio already, where nobody has begun them as far as "
    "the last 'ddiseg label pull' knows"
)


@dataclass(frozen=True)
class BatchPool:
    """The images of a catalogue at one moment."""

    ids: NDArray[np.int64]  #: (R,), of images
    groups: NDArray[np.int64]  #: (R,), number of the group that each image stays together with
    candidates: dict[str, NDArray[np.intp]]  #: positions by tone, in the order of seeded ranks
    labelled: dict[str, NDArray[np.intp]]  #: by tone, of images with a mask, or about to get one
    uncertainties: NDArray[np.float64]  #: (R,), by the current model; NaN without a prediction
    quality: NDArray[
        np.float64
    ]  #: (R,), expected IoU by the current model; NaN where it tells none
    embeddings: Vectors  #: (R, D), by the current model; NaN where not stored
    sampled: dict[str, int]  #: images of each tone to draw that are or were in a batch
    at_random: dict[str, int]  #: of them, those sampled at random
    notes: list[str]  #: what was left out and why
    catalogue: Catalogue

    @classmethod
    def read(
        cls,
        catalogue: Catalogue,
        version: ModelVersion | None,
        wanted: Sequence[str],
        size: int,
        seed: int,
        *,
        with_embeddings: bool,
    ) -> BatchPool:
        """Return the pool for a batch of `size` images of the tones `wanted`, or of all tones.

        Images in Label Studio that nobody has begun are candidates only where the others are fewer
        than `size`.
        """
        pool, by_state = catalogue.batches.pool(), catalogue.candidates.counts()
        counts = count_tones(by_state)
        tones = tones_to_draw(counts, wanted)
        ranked = _candidates(catalogue, pool, tones, seed, frozenset())
        pushed: frozenset[int] = frozenset()
        if sum(map(len, ranked.values())) < size:
            pushed = pool.not_started - pool.in_open_batch
            ranked = _candidates(catalogue, pool, tones, seed, pushed)
        started = catalogue.batches.started(_STARTED, pool.in_open_batch)
        started = started.where(~_among(started.ids, pushed))
        ends = np.cumsum([0, *map(len, ranked.values())])
        candidates = {
            tone: np.arange(first, end)
            for tone, first, end in zip(ranked, ends, ends[1:], strict=False)
        }
        every = np.concatenate([*(of.ids for of in ranked.values()), started.ids])
        uncertainties, quality = _doubts(catalogue, version, every)
        return cls(
            ids=every,
            groups=np.concatenate([*(of.groups for of in ranked.values()), started.groups]),
            candidates=candidates,
            labelled={
                tone: ends[-1] + np.flatnonzero(started.tones == tone)
                for tone in sorted(set(started.tones))
            },
            uncertainties=uncertainties,
            quality=quality,
            embeddings=_embeddings(catalogue, version if with_embeddings else None, every),
            sampled={tone: pool.sampled.get(tone, 0) for tone in tones},
            at_random={tone: pool.at_random.get(tone, 0) for tone in tones},
            notes=[
                *([] if wanted else tone_notes(counts)),
                *_left_out(by_state, tones),
                *_reused(ranked, pushed),
            ],
            catalogue=catalogue,
        )

    def why_empty(self) -> str:
        """Return why no image may be drawn, and what to do about it."""
        found = self.catalogue.batches.places()
        if not any(tone in self.candidates for tone, *_ in found):
            counts: Counter[str] = Counter()
            for tone, _, _, n in found:
                counts[tone] += n
            return no_image_of(list(self.candidates), counts)
        places: Counter[str] = Counter()
        for tone, state, opened, n in found:
            places[self._place(tone, state, opened)] += n
        where = ", ".join(f"{n} {place}" for place, n in places.items())
        ways = [way for place, way in _WAYS.items() if places[place]]
        return f"{where}; {ways_out(ways)}"

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Return whether the current model tells anything of each image, (R,)."""
        return np.asarray(np.isfinite(self.uncertainties) | np.isfinite(self.quality))

    def labelled_of(self, tone: str) -> NDArray[np.intp]:
        """Return the positions of the labelled images of a tone."""
        return self.labelled.get(tone, np.empty(0, np.intp))

    def _place(self, tone: str, state: str, opened: bool) -> str:
        if tone not in self.candidates:
            return "of other tones"
        return "in open batches" if opened else _PLACES[State(state)]


class Vectors:
    """Embeddings of images (R, D), read from the catalogue where they are asked for; NaN where not stored."""

    def __init__(
        self,
        read: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        known: NDArray[np.bool_],
        ids: NDArray[np.int64],
        width: int | None = None,
    ) -> None:
        self._read, self._ids = read, ids
        self.known = known  #: (R,), whether it is stored
        first = ids[known][:1]
        self._width = width or (read(first).shape[1] if len(first) else 1)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._ids), self._width

    def at(self, positions: NDArray[np.intp]) -> Vectors:
        """Return those of some images, not read yet."""
        return Vectors(self._read, self.known[positions], self._ids[positions], self._width)

    def __getitem__(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the vectors of images at positions, (n, D)."""
        known = self.known[positions]
        found = np.full((len(positions), self._width), np.nan, np.float32)
        if known.any():
            found[known] = self._read(self._ids[positions][known])
        return found


def _candidates(
    catalogue: Catalogue, pool: Pool, tones: Sequence[str], seed: int, pushed: Collection[int]
) -> dict[str, RankedCandidates]:
    """Return the images by tone that may be drawn, including those in `pushed`, first by rank first."""
    drawable = catalogue.candidates.of_tones(tones, states=DRAWABLE)
    parts = (part.where(~_among(part.ids, pool.in_open_batch)) for part in drawable)
    if not pushed:
        return rank(parts, seed, tones)
    in_labelling = catalogue.candidates.of_tones(tones, states=(State.IN_LABELLING,))
    also = (part.where(_among(part.ids, pushed)) for part in in_labelling)
    return rank(itertools.chain(parts, also), seed, tones)


def _reused(ranked: Mapping[str, RankedCandidates], pushed: Collection[int]) -> list[str]:
    reused = sum(int(_among(of.ids, pushed).sum()) for of in ranked.values())
    return [f"{reused} {_PUSHED}"] if reused else []


def _among(ids: NDArray[np.int64], some: Collection[int]) -> NDArray[np.bool_]:
    """Return which of the `ids`, (N,), are among some."""
    if not some:
        return np.zeros(len(ids), bool)
    return np.fromiter(map(some.__contains__, ids.tolist()), bool, len(ids))


def _left_out(by_state: Mapping[tuple[str, str], int], tones: Sequence[str]) -> list[str]:
    """Return notes on the images that no draw will choose."""
    left_out: Counter[str] = Counter()
    for (tone, state), n in by_state.items():
        if state == State.SKIPPED:
            left_out["skipped"] += n
        elif tone == UNKNOWN and UNKNOWN not in tones:
            left_out["tone unknown"] += n
    return [f"{n} left out: {why}" for why, n in sorted(left_out.items())]


def _doubts(
    catalogue: Catalogue, version: ModelVersion | None, ids: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the uncertainties and the expected IoU of images, (R,) each."""
    if version is None:
        return np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    known, *values = catalogue.masks.doubts(version.id)
    by_id = np.full((2, max(known.max(initial=0), ids.max(initial=0)) + 1), np.nan)
    by_id[:, known] = values
    uncertainties, quality = by_id[:, ids]
    return uncertainties, quality


def _embeddings(
    catalogue: Catalogue, version: ModelVersion | None, ids: NDArray[np.int64]
) -> Vectors:
    if version is None:
        return Vectors(lambda _: np.empty((0, 1), np.float32), np.zeros(len(ids), bool), ids)
    space = embedding_space(version.backbone_hash, version.settings)
    known = np.isin(ids, catalogue.embeddings.known(space))
    return Vectors(partial(catalogue.embeddings.vectors, space), known, ids)
