"""Candidates: the columns of images that a draw depends on, read in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import func, select

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.linking import connect, look_alike
from ddiseg.catalogue.subsets import named_subset
from ddiseg.catalogue.tables import Image, ImageGroup, SubsetMember

#: Rows in memory at a time.
_ROWS = 20_000


class CandidateRow(NamedTuple):
    """The columns of an image that a draw depends on."""

    id: int
    tone: str
    content_hash: str
    near_group: int | None
    malignant: bool | None
    group_id: int


class Candidates(Repository):
    """The images of a catalogue that subsets are drawn from."""

    def counts(self, subset: str | None = None) -> dict[tuple[str, str], int]:
        """Count images by (tone, state), of a subset or all; raises NotFoundError for an unknown one."""
        query = select(Image.tone, Image.state, func.count()).group_by(Image.tone, Image.state)
        with self._database.read() as session:
            if subset is not None:
                query = query.join(SubsetMember, SubsetMember.image_id == Image.id)
                query = query.where(SubsetMember.subset_id == named_subset(session, subset).id)
            return {(tone, state): n for tone, state, n in session.execute(query)}

    def of_tones(
        self,
        tones: Sequence[str],
        subset: str | None = None,
        states: Sequence[State] | None = None,
    ) -> Iterator[Sequence[CandidateRow]]:
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
                image.near_group,
                image.malignant,
                func.coalesce(group.group_id, image.id),
            )
            .select_from(
                Image.__table__.outerjoin(ImageGroup.__table__, group.image_id == image.id)
            )
            .where(image.tone.in_(tones))
        )
        if states is None:
            query = query.where(image.state != State.SKIPPED.value)
        else:
            query = query.where(image.state.in_([state.value for state in states]))
        with self._database.read() as session:
            if subset is not None:
                wanted = named_subset(session, subset).id
                query = query.join(SubsetMember, SubsetMember.image_id == image.id)
                query = query.where(SubsetMember.subset_id == wanted)
            rows = session.connection().execute(query.execution_options(yield_per=_ROWS))
            for part in rows.partitions():
                yield list(map(CandidateRow._make, part))

    def near_groups_of_pending(self) -> dict[int, int]:
        """Return by id a number below -1 of images that were not compared yet: alike where they look alike."""
        query = select(Image.id, Image.perceptual_hash, Image.patient)
        query = query.where(Image.near_group.is_(None)).order_by(Image.id)
        rows = [(row[0], row[1], row[2]) for row in self._rows(query)]
        place = {row[0]: n for n, row in enumerate(rows)}
        pairs = [(place[a], place[b]) for a, b in look_alike(rows)]
        numbers = connect(len(rows), pairs).tolist()
        return {row[0]: -2 - number for row, number in zip(rows, numbers, strict=True)}
