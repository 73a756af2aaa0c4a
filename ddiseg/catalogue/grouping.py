"""What decides which images belong together: their ids, and what those ids are unique within."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Repository, named
from ddiseg.catalogue.tables import Dataset, Event, Image


class GroupingRow(NamedTuple):
    """The columns of an image that its group depends on."""

    id: int
    dataset_id: int
    content_hash: str
    perceptual_hash: str
    near_group: int | None
    patient: str | None
    lesion: str | None


@dataclass(frozen=True)
class IdScope:
    """What the ids of a dataset are unique within."""

    patients: str  #: datasets of one scope share their patients; by default the dataset's own name
    lesions_per_patient: bool = False  #: lesions are numbered anew for each patient


class Grouping(Repository):
    """The ids of a catalogue's images and their scopes."""

    def rows(self) -> Sequence[GroupingRow]:
        """Return the ids of all images: plain rows, since there may be many."""
        columns = Image.__table__.c
        query = select(*(columns[field] for field in GroupingRow._fields)).order_by(columns.id)
        with self._database.read() as session:
            return list(map(GroupingRow._make, session.connection().execute(query)))

    def scopes(self) -> dict[int, IdScope]:
        """Return the scope of each dataset's ids, by dataset id."""
        return {
            row.id: IdScope(row.patient_scope or row.name, row.lesions_per_patient)
            for row in self._all(select(Dataset).order_by(Dataset.id))
        }

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
            detail = {"dataset": name, "same_patients_as": other}
            session.add(Event(kind="dataset", actor=actor, detail=detail))
            return True


def connect(count: int, links: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    """Return the number of each image's group, (count,), by the links between positions."""
    from scipy.sparse import coo_array  # not at the start of every command
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.empty(0, np.intp)
    rows, columns = np.array(links, np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(count, count))
    numbers: NDArray[np.intp] = connected_components(graph, directed=False)[1]
    return numbers


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
