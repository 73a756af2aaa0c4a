"""Splits: which images with an accepted mask are learned from, and which are the hold-out set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import Subquery

from ddiseg.catalogue.database import Repository, scalars_in
from ddiseg.catalogue.tables import Acceptance, Event, ImageSplit, ModelVersion, Split


@dataclass(frozen=True)
class Known:
    """How much there was to decide splits by; both numbers only ever grow."""

    images: int  #: with a split
    versions: int  #: model versions, of every kind


class Splits(Repository):
    """The splits of a catalogue's images."""

    def all(self) -> dict[int, Split]:
        """Return the split of each image that has one, by image id."""
        rows = self._rows(select(ImageSplit.image_id, ImageSplit.split))
        return {image_id: Split(split) for image_id, split in rows}

    def of(self, image_ids: Iterable[int]) -> dict[int, Split]:
        """Return the split of each of these images that has one, by image id."""
        rows = self._all_in(select(ImageSplit), ImageSplit.image_id, image_ids)
        return {row.image_id: Split(row.split) for row in rows}

    def of_accepted(self) -> dict[int, Split]:
        """Return the split of each image with an accepted mask that has one, by image id, ascending."""
        query = select(ImageSplit.image_id, ImageSplit.split).join(
            Acceptance, Acceptance.image_id == ImageSplit.image_id
        )
        rows = self._rows(query.order_by(ImageSplit.image_id))
        return {image_id: Split(split) for image_id, split in rows}

    def missing(self) -> tuple[list[int], Known]:
        """Return the ids of images with an accepted mask and no split, and how much is known."""
        decided = select(ImageSplit.image_id).where(ImageSplit.image_id == Acceptance.image_id)
        query = select(Acceptance.image_id).where(~exists(decided)).order_by(Acceptance.image_id)
        with self._database.read() as session:
            return list(session.scalars(query)), _known(session)

    def holdout_at(self, time: str) -> set[int]:
        """Return the ids of the images that were in the hold-out set at a time, UTC."""
        in_holdout = ImageSplit.split == Split.HOLDOUT.value
        query = select(ImageSplit.image_id).where(in_holdout, ImageSplit.created_at <= time)
        return set(self._all(query))

    def decide(self, splits: Mapping[int, Split], known: Known | None = None) -> bool:
        """Store the splits of images that have none; one that has keeps it.

        Returns:
            False, and nothing is stored, where there is more to decide by now than was `known`.
        """
        with self._database.write() as session:
            if known is not None and known != _known(session):
                return False
            decided = set(scalars_in(session, _DECIDED, ImageSplit.image_id, splits))
            new = [
                {"image_id": image_id, "split": split.value}
                for image_id, split in splits.items()
                if image_id not in decided
            ]
            if new:
                session.execute(insert(ImageSplit), new)
        return True

    def exclude(self, image_ids: Collection[int], reason: str, actor: str) -> set[int]:
        """Move images from the hold-out set to EXCLUDED, each with an event; returns their ids.

        Images that are not in the hold-out set by now stay where they are.
        """
        with self._database.write() as session:
            in_holdout = _DECIDED.where(ImageSplit.split == Split.HOLDOUT.value)
            moved = set(scalars_in(session, in_holdout, ImageSplit.image_id, image_ids))
            for image_id in sorted(moved):
                session.execute(
                    update(ImageSplit)
                    .where(ImageSplit.image_id == image_id)
                    .values(split=Split.EXCLUDED.value)
                )
                detail = {"from": Split.HOLDOUT.value, "to": Split.EXCLUDED.value, "reason": reason}
                session.add(Event(kind="split", actor=actor, image_id=image_id, detail=detail))
        return moved


def images_in(split: Split) -> Subquery:
    """Return the query for the images of a split."""
    return select(ImageSplit.image_id).where(ImageSplit.split == split.value).subquery()


_DECIDED = select(ImageSplit.image_id)


def _known(session: Session) -> Known:
    images = session.scalar(select(func.count()).select_from(ImageSplit)) or 0
    versions = session.scalar(select(func.count()).select_from(ModelVersion)) or 0
    return Known(images, versions)
