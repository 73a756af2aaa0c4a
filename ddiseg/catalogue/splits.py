"""On which side of the gate an image stands: learned from, or held out. It never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import ImageSplit, ModelVersion, Split


@dataclass(frozen=True)
class Known:
    """What sides are decided by, as far as it grows; nothing of it is ever taken away."""

    sides: int  #: images that have a side
    versions: int  #: model versions, of every kind


class Splits:
    """The sides of a catalogue's images. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[int, Split]:
        """The side of each image that has one, by image id."""
        with self._database.read() as session:
            rows = session.execute(select(ImageSplit.image_id, ImageSplit.side))
            return {image_id: Split(side) for image_id, side in rows}

    def decide(self, sides: Mapping[int, Split], known: Known | None = None) -> bool:
        """Sides for images that have none; one that has keeps it.

        False, and nothing is stored, where there is more to know by now than was `known`.
        """
        with self._database.write() as session:
            decided = set(session.scalars(select(ImageSplit.image_id)))
            if known is not None and known != Known(len(decided), _versions(session)):
                return False
            new = [
                {"image_id": image_id, "side": side.value}
                for image_id, side in sides.items()
                if image_id not in decided
            ]
            if new:
                session.execute(insert(ImageSplit), new)
        return True


def _versions(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(ModelVersion)) or 0
