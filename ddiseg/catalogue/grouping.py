"""What decides which images belong together: their ids, and what those ids are unique within."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import Subquery

from ddiseg.catalogue.database import Repository, id_columns, in_parts, named
from ddiseg.catalogue.groups import groups_of, rebuild_groups, sharing
from ddiseg.catalogue.identifiers import fold_id, normalise_id
from ddiseg.catalogue.linking import IdScope, id_scopes
from ddiseg.catalogue.spelling import spelled_like
from ddiseg.catalogue.tables import Dataset, Event, Image, ImageGroup

#: Ids from which on all rows are read: the database would compare each row with all of them.
MANY_IDS = 10_000


class GroupingRow(NamedTuple):
    """The columns of an image that its group depends on."""

    id: int
    dataset_id: int
    content_hash: str
    perceptual_hash: str
    near_group: int | None
    patient: str | None
    lesion: str | None


class Grouping(Repository):
    """The ids of a catalogue's images and their scopes."""

    def rows(self) -> Sequence[GroupingRow]:
        """Return the ids of all images: plain rows, since there may be many."""
        columns = Image.__table__.c
        query = select(*(columns[field] for field in GroupingRow._fields)).order_by(columns.id)
        with self._database.read() as session:
            return list(map(GroupingRow._make, session.connection().execute(query)))

    def rows_spelled_like(
        self, patients: Collection[str], lesions: Collection[str]
    ) -> Iterator[GroupingRow]:
        """Yield the ids of images with one of these patients or lesions, or one that differs in spelling.

        Args:
            patients, lesions: normalised ids; see `identifiers.fold_id` for what makes two alike.
        """
        columns = Image.__table__.c
        query = select(*(columns[field] for field in GroupingRow._fields)).order_by(columns.id)
        if len(patients) + len(lesions) <= MANY_IDS:
            either = spelled_like(columns.patient, patients), spelled_like(columns.lesion, lesions)
            query = query.where(or_(*either))
        wanted = [set(map(fold_id, ids)) for ids in (patients, lesions)]
        with self._database.read() as session:
            found = session.connection().execute(query.execution_options(yield_per=1000))
            for row in map(GroupingRow._make, found):
                ids = map(normalise_id, (row.patient, row.lesion))
                if any(i and fold_id(i) in of for i, of in zip(ids, wanted, strict=True)):
                    yield row

    def scopes(self) -> dict[int, IdScope]:
        """Return the scope of each dataset's ids, by dataset id."""
        with self._database.read() as session:
            return id_scopes(session)

    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids of all images, ascending, and the group of each, (N,) each."""
        columns = ImageGroup.__table__.c
        query = select(columns.image_id, columns.group_id).order_by(columns.image_id)
        with self._database.read() as session:
            return id_columns(session, query)

    def groups_of(self, image_ids: Iterable[int]) -> dict[int, int]:
        """Return the group of each image, by id."""
        with self._database.read() as session:
            return groups_of(session, image_ids)

    def members(self, groups: Iterable[int]) -> dict[int, int]:
        """Return the images of these groups, by id, with their group."""
        with self._database.read() as session:
            query = select(ImageGroup.image_id, ImageGroup.group_id)
            parts = (query.where(ImageGroup.group_id.in_(part)) for part in in_parts(groups))
            return {i: group for part in parts for i, group in session.execute(part)}

    def rows_of(self, image_ids: Iterable[int]) -> list[GroupingRow]:
        """Return the ids of these images: plain rows, in the order of their ids."""
        columns = Image.__table__.c
        query = select(*(columns[field] for field in GroupingRow._fields)).order_by(columns.id)
        with self._database.read() as session:
            parts = (query.where(columns.id.in_(part)) for part in in_parts(image_ids))
            rows = (row for part in parts for row in session.connection().execute(part))
            return list(map(GroupingRow._make, rows))

    def sharing(self, image_ids: Collection[int], others: Collection[int]) -> set[int]:
        """Return those of `image_ids` whose group has an image in `others`."""
        if not image_ids or not others:
            return set()
        with self._database.read() as session:
            groups = groups_of(session, {*image_ids, *others})
        wanted = {groups[image_id] for image_id in others}
        return {image_id for image_id in image_ids if groups[image_id] in wanted}

    def leaking(self, images: Subquery, others: Subquery) -> tuple[set[int], int]:
        """Return the ids of those images whose group has one of `others`, and the number of images.

        Args:
            images, others: queries for image ids, in a column `image_id`.
        """
        with self._database.read() as session:
            leaked = set(session.scalars(select(sharing(images, others).c.image_id)))
            if not leaked:
                return leaked, 0
            count = select(func.count(images.c.image_id.distinct()))
            return leaked, session.scalar(count) or 0

    def rebuild(self) -> None:
        """Compute the groups of all images anew, from their ids and near-duplicates."""
        with self._database.write() as session:
            rebuild_groups(session)

    def share_patients(self, name: str, other: str, actor: str) -> bool:
        """Let two datasets share their patients; with itself, a dataset has its own again.

        Whatever shared patients with the one then shares them with the other, too.

        Returns:
            False where nothing changed; a change is an event.

        Raises:
            NotFoundError: there is no such dataset.
        """
        with self._database.write() as session:
            row, wanted = named(session, Dataset, name), named(session, Dataset, other)
            together = _sharing(session, row)
            if row is wanted:
                changed = len(together) > 1
                _separate(row, [each for each in together if each is not row])
            else:
                changed = wanted not in together
                for each in together if changed else ():
                    each.patient_scope = wanted.patient_scope or wanted.name
            if not changed:
                return False
            rebuild_groups(session)
            detail = {"dataset": name, "same_patients_as": other}
            session.add(Event(kind="dataset", actor=actor, detail=detail))
            return True


def _sharing(session: Session, dataset: Dataset) -> list[Dataset]:
    """Return the datasets that share patients with one, itself included, the oldest first."""
    scope = dataset.patient_scope or dataset.name
    rows = session.scalars(select(Dataset).order_by(Dataset.id))
    return [row for row in rows if (row.patient_scope or row.name) == scope]


def _separate(dataset: Dataset, others: Sequence[Dataset]) -> None:
    """Give a dataset patients of its own; the others go on sharing theirs."""
    dataset.patient_scope = None
    for each in others:  # their scope may have had the name of the one that leaves it
        each.patient_scope = others[0].name
