"""Candidates: the columns of images that a draw depends on, read in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import case, func, select

from ddiseg.catalogue.database import Repository, plain_parts
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.linking import connect, look_alike
from ddiseg.catalogue.subsets import named_subset
from ddiseg.catalogue.tables import Image, ImageGroup, SubsetMember


@dataclass(frozen=True)
class CandidateColumns:
    """The columns of images that a draw depends on: (N,) each."""

    ids: NDArray[np.int64]
    tones: Sequence[str]
    content_hashes: Sequence[str]
    near_groups: NDArray[np.int64]  #: of near-duplicates alone; -1: not compared yet
    malignant: NDArray[np.int64]  #: 1, 0; -1: not known
    groups: NDArray[np.int64]  #: number of the group that each stays together with

    def where(self, kept: NDArray[np.bool_]) -> CandidateColumns:
        """Return the images at which `kept`, (N,), is true."""
        return CandidateColumns(
            self.ids[kept],
            list(compress(self.tones, kept)),
            list(compress(self.content_hashes, kept)),
            self.near_groups[kept],
            self.malignant[kept],
            self.groups[kept],
        )


class Candidates(Repository):
    """The images of a catalogue that subsets are drawn from."""

    def counts(self, subset: str | None = None) -> dict[tuple[str, str], int]:
        """Count images by (tone, state), of a subset or all; raises NotFoundError for an unknown one."""
        # By dataset as well, since there is an index of these three columns.
        columns = Image.dataset_id, Image.tone, Image.state
        query = select(*columns[1:], func.count()).group_by(*columns)
        found: dict[tuple[str, str], int] = {}
        with self._database.read() as session:
            if subset is not None:
                query = query.join(SubsetMember, SubsetMember.image_id == Image.id)
                query = query.where(SubsetMember.subset_id == named_subset(session, subset).id)
            for tone, state, n in session.execute(query):
                found[tone, state] = found.get((tone, state), 0) + n
        return dict(sorted(found.items()))

    def of_tones(
        self,
        tones: Sequence[str],
        subset: str | None = None,
        states: Sequence[State] | None = None,
    ) -> Iterator[CandidateColumns]:
        """Yield the images of these tones, in parts, of a subset or all.

        Args:
            states: of these states; without it, of all but the skipped.
        """
        image, group = Image.__table__.c, ImageGroup.__table__.c
        query = (
            select(
                image.id,
                image.tone,
                image.content_hash,
                func.coalesce(image.near_group, -1),
                case((image.malignant.is_(True), 1), (image.malignant.is_(False), 0), else_=-1),
                func.coalesce(group.group_id, image.id),
            )
            .select_from(
                Image.__table__.outerjoin(ImageGroup.__table__, group.image_id == image.id)
            )
            # By no index: most rows are wanted, and are read faster in the order of the table.
            .where(image.tone.concat("").in_(tones))
        )
        if states is None:
            query = query.where(image.state != State.SKIPPED.value)
        else:
            state = image.state if len(states) == 1 else image.state.concat("")
            query = query.where(state.in_([each.value for each in states]))
        with self._database.read() as session:
            if subset is not None:
                wanted = named_subset(session, subset).id
                query = query.join(SubsetMember, SubsetMember.image_id == image.id)
                query = query.where(SubsetMember.subset_id == wanted)
            for part in plain_parts(session, query):
                ids, near_groups, malignant, groups = (
                    np.fromiter(map(itemgetter(column), part), np.int64, len(part))
                    for column in (0, 3, 4, 5)
                )
                tones, hashes = [row[1] for row in part], [row[2] for row in part]
                yield CandidateColumns(ids, tones, hashes, near_groups, malignant, groups)

    def near_groups_of_pending(self) -> dict[int, int]:
        """Return by id a number below -1 of images that were not compared yet: alike where they look alike."""
        query = select(Image.id, Image.perceptual_hash, Image.patient)
        query = query.where(Image.near_group.is_(None)).order_by(Image.id)
        rows = [(row[0], row[1], row[2]) for row in self._rows(query)]
        place = {row[0]: n for n, row in enumerate(rows)}
        pairs = [(place[a], place[b]) for a, b in look_alike(rows)]
        numbers = connect(len(rows), pairs).tolist()
        return {row[0]: -2 - number for row, number in zip(rows, numbers, strict=True)}
