"""Subsets: named sets of images that never change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import Subquery

from ddiseg.catalogue.database import Repository, named
from ddiseg.catalogue.tables import Event, Image, Subset, SubsetMember
from ddiseg.errors import InputError

#: Key of `Subset.drawn_by`: when a subset was retired, UTC.
RETIRED = "retired"


class Subsets(Repository):
    """The subsets of a catalogue."""

    def store(
        self, members: Mapping[str, Sequence[int]], drawn_by: dict[str, Any], actor: str
    ) -> list[str]:
        """Store subsets by name, all or none; returns the new names.

        Raises:
            InputError: a name is taken by other images; a subset never changes, since results may
                depend on it.
        """
        added = []
        with self._database.write() as session:
            for name, image_ids in members.items():
                subset = session.scalars(select(Subset).where(Subset.name == name)).first()
                if subset is not None:
                    stored = _members(session, subset)
                    if stored != set(image_ids):
                        raise InputError(
                            f"subset '{name}' exists with {len(stored)} other images and never changes: "
                            "draw under another name"
                        )
                    continue
                subset = Subset(name=name, drawn_by=drawn_by)
                session.add(subset)
                session.flush()
                session.add_all(SubsetMember(subset_id=subset.id, image_id=i) for i in image_ids)
                detail = {"name": name, "n": len(image_ids), **drawn_by}
                session.add(Event(kind="subset", actor=actor, detail=detail))
                added.append(name)
        return added

    def members(self, name: str) -> set[int]:
        """Return the image ids of a subset; raises NotFoundError, which lists the subsets."""
        with self._database.read() as session:
            return _members(session, named_subset(session, name))

    def get(self, name: str) -> Subset:
        """Return a subset; raises NotFoundError like `members`."""
        with self._database.read() as session:
            return named_subset(session, name)

    def all(self) -> Sequence[Subset]:
        """Return the subsets, in the order of their names."""
        return self._all(select(Subset).order_by(Subset.name))

    def names(self) -> list[str]:
        return sorted(self._all(select(Subset.name)))  # a server may sort by a language

    def retire(self, name: str, actor: str) -> bool:
        """Retire a subset: it keeps its images, and is no longer checked against others.

        Returns:
            False where it was retired before.

        Raises:
            NotFoundError: like `members`.
        """
        with self._database.write() as session:
            subset = named_subset(session, name)
            if subset.drawn_by.get(RETIRED):
                return False
            event = Event(kind="subset retired", actor=actor, detail={"name": name})
            session.add(event)
            session.flush()
            subset.drawn_by = {**subset.drawn_by, RETIRED: event.at}
        return True

    def retired(self) -> set[str]:
        """Return the names of the subsets that were retired."""
        rows = self._rows(select(Subset.name, Subset.drawn_by))
        return {name for name, drawn_by in rows if drawn_by.get(RETIRED)}

    def sizes(self) -> dict[str, dict[str, int]]:
        """Count images by subset and tone."""
        query = (
            select(Subset.name, Image.tone, func.count())
            .join(SubsetMember, SubsetMember.subset_id == Subset.id)
            .join(Image, Image.id == SubsetMember.image_id)
            .group_by(Subset.name, Image.tone)
        )
        found: dict[str, dict[str, int]] = {}
        for name, tone, n in sorted(self._rows(query)):
            found.setdefault(name, {})[tone] = n
        return found


def named_subset(session: Session, name: str) -> Subset:
    """Return the subset called `name`; raises NotFoundError, which lists the subsets."""
    return named(session, Subset, name, "; draw it with 'ddiseg subset draw'")


def members_of(subset: Subset) -> Subquery:
    """Return the query for the images of a subset."""
    query = select(SubsetMember.image_id).where(SubsetMember.subset_id == subset.id)
    return query.subquery()


def _members(session: Session, subset: Subset) -> set[int]:
    query = select(SubsetMember.image_id).where(SubsetMember.subset_id == subset.id)
    return set(session.scalars(query))
