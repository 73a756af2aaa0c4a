"""Candidates of a draw in the order of their seeded ranks, as columns: a million of them fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.ranking import seeded_rank
from ddiseg.catalogue.candidates import CandidateRow


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
    rows: Iterable[Sequence[CandidateRow]], seed: int, tones: Sequence[str]
) -> dict[str, RankedCandidates]:
    """Return the candidates of each tone, in the order of their seeded ranks.

    Args:
        rows: parts of the candidates, in any order; one part is in memory at a time.
    """
    parts: dict[str, list[NDArray[np.int64]]] = {tone: [] for tone in tones}
    number = {tone: n for n, tone in enumerate(tones)}
    for part in rows:
        of_tone = np.array([number[row.tone] for row in part], np.int64)
        columns = np.empty((len(part), 5), np.int64)
        columns[:, 0] = [_first_bits(seed, row.content_hash) for row in part]
        columns[:, 1] = [row.id for row in part]
        columns[:, 2] = [row.group_id for row in part]
        columns[:, 3] = [-1 if row.near_group is None else row.near_group for row in part]
        columns[:, 4] = [-1 if row.malignant is None else row.malignant for row in part]
        for tone, n in number.items():
            parts[tone].append(columns[of_tone == n])
    found = {}
    for tone in tones:
        every: NDArray[np.int64] = np.concatenate([np.empty((0, 5), np.int64), *parts.pop(tone)])
        order = np.argsort(every[:, 0], kind="stable")
        found[tone] = RankedCandidates(*(every[order, column] for column in range(1, 5)))
    return found


def _first_bits(seed: int, content_hash: str) -> int:
    """Return the first 60 bits of a seeded rank: of a million, two are alike once in a million draws."""
    return int(seeded_rank(seed, content_hash)[:15], 16)
