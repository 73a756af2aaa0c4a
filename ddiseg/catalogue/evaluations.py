"""Evaluations: what was compared of each image, beside the event that has the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, insert, select

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.tables import EvaluatedImage, Event, Image

#: Kind of the events that hold the figures.
EVENT = "evaluation"


@dataclass(frozen=True)
class Compared:
    """A prediction of an image and the true mask that it was scored against."""

    image_id: int
    mask_id: int  #: the prediction
    truth_hash: str  #: content hash of the truth, which is in the store at the photograph's size
    lesion_iou: float | None  #: None where neither shows a lesion, or the truth could not


class Evaluations:
    """The evaluations of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, figures: dict[str, Any], compared: Sequence[Compared], actor: str) -> None:
        """Store the event of an evaluation, and what was compared."""
        with self._database.write() as session:
            event = Event(kind=EVENT, actor=actor, detail=figures)
            session.add(event)
            session.flush()
            if compared:
                rows = [{"event_id": event.id, **asdict(each)} for each in compared]
                session.execute(insert(EvaluatedImage), rows)

    def last(self) -> dict[int, EvaluatedImage]:
        """What the newest evaluation compared, by image id; empty where that is not recorded."""
        newest = select(func.max(Event.id)).where(Event.kind == EVENT).scalar_subquery()
        query = select(EvaluatedImage).where(EvaluatedImage.event_id == newest)
        with self._database.read() as session:
            return {row.image_id: row for row in session.scalars(query)}

    def test_images(self) -> set[int]:
        """Return the ids of images that were compared with a true mask and have no accepted one."""
        query = select(EvaluatedImage.image_id).join(Image).where(Image.state != State.ACCEPTED)
        with self._database.read() as session:
            return set(session.scalars(query))

    def all(self) -> Sequence[EvaluatedImage]:
        """What all evaluations compared, the oldest first."""
        query = select(EvaluatedImage).order_by(EvaluatedImage.event_id, EvaluatedImage.image_id)
        with self._database.read() as session:
            return session.scalars(query).all()
