"""Measurements of predictions: evaluations against true masks, and robustness runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.records import EvaluationRecord, RobustnessRecord
from ddiseg.catalogue.tables import EvaluatedImage, Evaluation, Event, Image, RobustnessRun


@dataclass(frozen=True)
class Compared:
    """A prediction of an image and the true mask that it was scored against."""

    image_id: int
    mask_id: int  #: the prediction
    truth_hash: str  #: content hash of the truth, stored at the photograph's size
    lesion_iou: float | None  #: None where neither has a lesion, or the truth could not


R = TypeVar("R", EvaluationRecord, RobustnessRecord)

#: What the event log says of a measurement.
_LOGGED = ("model", "models", "truth", "subset", "n_images")


class _Measurements(Repository, Generic[R]):
    """Measurements of one kind, each with its event."""

    _table: type[Evaluation | RobustnessRun]
    _record: type[R]
    _kind: str  #: of the event

    def last(self) -> tuple[str, R] | None:
        """Return the time and the estimates of the newest measurement; None where there is none."""
        query = select(Event.at, self._table.estimates).join(
            Event, Event.id == self._table.event_id
        )
        rows = self._rows(query.order_by(self._table.event_id.desc()).limit(1))
        return (rows[0].at, self._record.from_json(rows[0].estimates)) if rows else None

    def _add(self, session: Session, estimates: dict[str, Any], actor: str) -> int:
        """Store a measurement and its event; return the id of the event."""
        detail = {key: estimates[key] for key in _LOGGED if key in estimates}
        event = Event(kind=self._kind, actor=actor, detail=detail)
        session.add(event)
        session.flush()
        session.add(self._table(event_id=event.id, estimates=estimates))
        session.flush()
        return event.id


class Evaluations(_Measurements[EvaluationRecord]):
    """The evaluations of a catalogue."""

    _table, _record, _kind = Evaluation, EvaluationRecord, "evaluation"

    def add(self, estimates: dict[str, Any], compared: Sequence[Compared], actor: str) -> None:
        """Store an evaluation (an `EvaluationRecord` as JSON), what it compared, and its event."""
        with self._database.write() as session:
            event_id = self._add(session, estimates, actor)
            if compared:
                rows = [{"event_id": event_id, **asdict(each)} for each in compared]
                session.execute(insert(EvaluatedImage), rows)

    def last_compared(self) -> dict[int, EvaluatedImage]:
        """Return what the newest evaluation compared, by image id; empty where not recorded."""
        newest = select(func.max(Evaluation.event_id)).scalar_subquery()
        query = select(EvaluatedImage).where(EvaluatedImage.event_id == newest)
        return {row.image_id: row for row in self._all(query)}

    def test_images(self) -> set[int]:
        """Return the ids of images that were compared with a true mask and have no accepted one."""
        query = select(EvaluatedImage.image_id).join(Image).where(Image.state != State.ACCEPTED)
        return set(self._all(query))

    def all_compared(self) -> Sequence[EvaluatedImage]:
        """Return what all evaluations compared, the oldest first."""
        query = select(EvaluatedImage).order_by(EvaluatedImage.event_id, EvaluatedImage.image_id)
        return self._all(query)


class RobustnessRuns(_Measurements[RobustnessRecord]):
    """The robustness runs of a catalogue."""

    _table, _record, _kind = RobustnessRun, RobustnessRecord, "sensitivity"

    def add(self, estimates: dict[str, Any], actor: str) -> None:
        """Store a run (a `RobustnessRecord` as JSON) and its event."""
        with self._database.write() as session:
            self._add(session, estimates, actor)
