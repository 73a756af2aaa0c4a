"""Candidates of a draw in the order of their seeded ranks, as columns: a million of them fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.ranking import first_bits
from ddiseg.catalogue.candidates import CandidateColumns


@dataclass(frozen=True)
class RankedCandidates:
    """Candidates, the first by rank first: (N,) each."""

    ids: NDArray[np.int64]
    groups: NDArray[np.int64]  #: number of the group that each stays together with
    near_groups: NDArray[np.int64]  #: of near-duplicates alone; -1: not compared yet
    malignant: NDArray[np.int64]  #: 1, 0; -1: not known

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, kept: NDArray[np.bool_]) -> RankedCandidates:
        """Return the candidates at which `kept`, (N,), is true."""
        columns = (self.ids, self.groups, self.near_groups, self.malignant)
        return RankedCandidates(*(column[kept] for column in columns))


def rank(
    candidates: Iterable[CandidateColumns], seed: int, tones: Sequence[str]
) -> dict[str, RankedCandidates]:
    """Return the candidates of each tone, in the order of their seeded ranks.

    Args:
        candidates: in parts, in any order; one part is in memory at a time.
    """
    parts: dict[str, list[NDArray[np.int64]]] = {tone: [] for tone in tones}
    number = {tone: n for n, tone in enumerate(tones)}
    for part in candidates:
        # Of a million, two begin with the same 60 bits once in a million draws.
        ranks = first_bits(seed, part.content_hashes)
        columns = np.stack([ranks, part.ids, part.groups, part.near_groups, part.malignant], axis=1)
        of_tone = np.array([number[tone] for tone in part.tones], np.int64)
        for tone, n in number.items():
            parts[tone].append(columns[of_tone == n])
    found = {}
    for tone in tones:
        every: NDArray[np.int64] = np.concatenate([np.empty((0, 5), np.int64), *parts.pop(tone)])
        order = np.argsort(every[:, 0], kind="stable")
        found[tone] = RankedCandidates(*(every[order, column] for column in range(1, 5)))
    return found
