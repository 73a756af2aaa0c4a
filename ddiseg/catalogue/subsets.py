"""Named parts of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import Event, Image, Subset, SubsetMember
from ddiseg.errors import InputError, NotFoundError


class Subsets:
    """The subsets of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def store(
        self, members: Mapping[str, Sequence[int]], drawn_by: dict[str, Any], actor: str
    ) -> list[str]:
        """Store subsets by name, all or none; returns the names that are new.

        The same members under the same name are unchanged. Raises InputError where a name stands
        for other images: a subset never changes once figures may rest on it.
        """
        added = []
        with self._database.write() as session:
            for name, image_ids in members.items():
                subset = session.scalars(select(Subset).where(Subset.name == name)).first()
                if subset is not None:
                    there = set(
                        session.scalars(
                            select(SubsetMember.image_id).where(SubsetMember.subset_id == subset.id)
                        )
                    )
                    if there != set(image_ids):
                        raise InputError(
                            f"subset '{name}' exists with {len(there)} other images and never changes: "
                            "draw under another name"
                        )
                    continue
                subset = Subset(name=name, drawn_by=drawn_by)
                session.add(subset)
                session.flush()
                session.add_all(SubsetMember(subset_id=subset.id, image_id=i) for i in image_ids)
                session.add(
                    Event(
                        kind="subset",
                        actor=actor,
                        detail={"name": name, "n": len(image_ids), **drawn_by},
                    )
                )
                added.append(name)
        return added

    def members(self, name: str) -> set[int]:
        """Image ids of a subset; raises NotFoundError, naming the subsets that there are."""
        with self._database.read() as session:
            subset = named_subset(session, name)
            return set(
                session.scalars(
                    select(SubsetMember.image_id).where(SubsetMember.subset_id == subset.id)
                )
            )

    def get(self, name: str) -> Subset:
        """A subset and what drew it; raises NotFoundError like `members`."""
        with self._database.read() as session:
            return named_subset(session, name)

    def names(self) -> list[str]:
        with self._database.read() as session:
            return list(session.scalars(select(Subset.name).order_by(Subset.name)))

    def sizes(self) -> dict[str, dict[str, int]]:
        """Number of images by subset and tone."""
        query = (
            select(Subset.name, Image.tone, func.count())
            .join(SubsetMember, SubsetMember.subset_id == Subset.id)
            .join(Image, Image.id == SubsetMember.image_id)
            .group_by(Subset.name, Image.tone)
            .order_by(Subset.name)
        )
        found: dict[str, dict[str, int]] = {}
        with self._database.read() as session:
            for name, tone, n in session.execute(query):
                found.setdefault(name, {})[tone] = n
        return found


def named_subset(session: Session, name: str) -> Subset:
    """The subset called `name`; raises NotFoundError, naming the subsets that there are."""
    subset = session.scalars(select(Subset).where(Subset.name == name)).first()
    if subset is None:
        known = ", ".join(session.scalars(select(Subset.name).order_by(Subset.name))) or "none yet"
        raise NotFoundError(
            f"no subset called '{name}' (there are: {known}); draw it with 'ddiseg subset draw'"
        )
    return subset
