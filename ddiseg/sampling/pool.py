"""Pool of a batch: the images to choose from, with their uncertainties and embeddings.

Arrays: R images of the catalogue, whatever their state; a position is an index into them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.ranking import seeded_rank
from ddiseg.catalogue import Catalogue, State
from ddiseg.catalogue.batches import DRAWABLE, Pool, PoolRow
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.sampling.groups import Groups
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
_STARTED = frozenset(
    state.value for state in (State.IN_LABELLING, State.SUBMITTED, State.ACCEPTED, State.REWORK)
)

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

    rows: Sequence[PoolRow]  #: (R,)
    groups: Sequence[int]  #: (R,), number of the group that each image stays together with
    candidates: dict[str, NDArray[np.intp]]  #: positions by tone, in the order of seeded ranks
    labelled: NDArray[np.intp]  #: positions of images with a mask, or about to get one
    uncertainties: NDArray[np.float64]  #: (R,), by the current model; NaN without a prediction
    embeddings: NDArray[np.float32]  #: (R, D), by the current model; NaN where not stored
    sampled: dict[str, int]  #: images of each tone to draw that are or were in a batch
    at_random: dict[str, int]  #: of them, those sampled at random
    notes: list[str]  #: what was left out and why
    in_open_batch: frozenset[int]  #: image ids

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
        groups = Groups.read(catalogue)
        pool = catalogue.batches.pool(version.id if version else None)
        counts = count_tones(Counter((row.tone, row.state) for row in pool.rows))
        tones = tones_to_draw(counts, wanted)
        candidates = _candidates(pool, tones, seed, frozenset())
        pushed: frozenset[int] = frozenset()
        if sum(map(len, candidates.values())) < size:
            pushed = pool.not_started - pool.in_open_batch
            candidates = _candidates(pool, tones, seed, pushed)
        labelled = [
            position
            for position, row in enumerate(pool.rows)
            if (row.state in _STARTED and row.id not in pushed) or row.id in pool.in_open_batch
        ]
        reused = sum(pool.rows[p].id in pushed for of in candidates.values() for p in of)
        return cls(
            rows=pool.rows,
            groups=[groups.number(row.id) for row in pool.rows],
            candidates=candidates,
            labelled=np.array(labelled, np.intp),
            uncertainties=np.array([pool.uncertainties.get(row.id, np.nan) for row in pool.rows]),
            embeddings=_embeddings(catalogue, version if with_embeddings else None, pool.rows),
            sampled={tone: pool.sampled.get(tone, 0) for tone in tones},
            at_random={tone: pool.at_random.get(tone, 0) for tone in tones},
            notes=[
                *([] if wanted else tone_notes(counts)),
                *_left_out(pool, tones),
                *([f"{reused} {_PUSHED}"] if reused else []),
            ],
            in_open_batch=pool.in_open_batch,
        )

    def why_empty(self) -> str:
        """Return why no image may be drawn, and what to do about it."""
        if not any(row.tone in self.candidates for row in self.rows):
            return no_image_of(list(self.candidates), Counter(row.tone for row in self.rows))
        places = Counter(map(self._place, self.rows))
        where = ", ".join(f"{n} {place}" for place, n in places.items())
        ways = [way for place, way in _WAYS.items() if places[place]]
        return f"{where}; {ways_out(ways)}"

    def labelled_of(self, tone: str) -> list[int]:
        """Return the positions of the labelled images of a tone."""
        return [position for position in self.labelled if self.rows[position].tone == tone]

    def _place(self, row: PoolRow) -> str:
        if row.tone not in self.candidates:
            return "of other tones"
        return "in open batches" if row.id in self.in_open_batch else _PLACES[State(row.state)]


def _candidates(
    pool: Pool, tones: Sequence[str], seed: int, pushed: Collection[int]
) -> dict[str, NDArray[np.intp]]:
    """Return the positions by tone of the images that may be drawn, including those in `pushed`."""
    by_tone: dict[str, list[int]] = {tone: [] for tone in tones}
    drawable = {state.value for state in DRAWABLE}
    for position, row in enumerate(pool.rows):
        may_be = row.state in drawable or row.id in pushed
        if may_be and row.tone in by_tone and row.id not in pool.in_open_batch:
            by_tone[row.tone].append(position)
    return {
        tone: np.array(
            sorted(
                positions, key=lambda position: seeded_rank(seed, pool.rows[position].content_hash)
            ),
            np.intp,
        )
        for tone, positions in by_tone.items()
    }


def _left_out(pool: Pool, tones: Sequence[str]) -> list[str]:
    """Return notes on the images that no draw will choose."""
    skipped = State.SKIPPED.value
    left_out = Counter(
        "skipped" if row.state == skipped else "tone unknown"
        for row in pool.rows
        if row.state == skipped or (row.tone == UNKNOWN and UNKNOWN not in tones)
    )
    return [f"{n} left out: {why}" for why, n in sorted(left_out.items())]


def _embeddings(
    catalogue: Catalogue, version: ModelVersion | None, rows: Sequence[PoolRow]
) -> NDArray[np.float32]:
    if version is None:
        return np.full((len(rows), 1), np.nan, np.float32)
    space = embedding_space(version.backbone_hash, version.settings)
    ids, vectors = catalogue.embeddings.of(space)
    found = np.full((len(rows), max(1, vectors.shape[1])), np.nan, np.float32)
    # Both are in the order of image ids, and an image with an embedding has a row.
    found[np.searchsorted([row.id for row in rows], ids), : vectors.shape[1]] = vectors
    return found
