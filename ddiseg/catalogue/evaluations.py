"""Measurements of predictions: evaluations against true masks, and robustness runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

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


class Evaluations(Repository):
    """The evaluations of a catalogue."""

    def add(self, estimates: dict[str, Any], compared: Sequence[Compared], actor: str) -> None:
        """Store an evaluation, what it compared, and its event.

        Args:
            estimates: an `EvaluationRecord` as JSON.
        """
        with self._database.write() as session:
            event_id = _add(session, Evaluation, "evaluation", estimates, actor)
            if compared:
                rows = [{"event_id": event_id, **asdict(each)} for each in compared]
                session.execute(insert(EvaluatedImage), rows)

    def last(self) -> tuple[str, EvaluationRecord] | None:
        """Return the time and the estimates of the newest evaluation; None where there is none."""
        with self._database.read() as session:
            found = _last(session, Evaluation)
        return found and (found[0], EvaluationRecord.from_json(found[1]))

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


class RobustnessRuns(Repository):
    """The robustness runs of a catalogue."""

    def add(self, estimates: dict[str, Any], actor: str) -> None:
        """Store a run and its event.

        Args:
            estimates: a `RobustnessRecord` as JSON.
        """
        with self._database.write() as session:
            _add(session, RobustnessRun, "sensitivity", estimates, actor)

    def last(self) -> tuple[str, RobustnessRecord] | None:
        """Return the time and the estimates of the newest run; None where there is none."""
        with self._database.read() as session:
            found = _last(session, RobustnessRun)
        return found and (found[0], RobustnessRecord.from_json(found[1]))


#: What the event log says of a measurement.
_LOGGED = ("model", "models", "truth", "subset", "n_images")


def _add(
    session: Session,
    table: type[Evaluation | RobustnessRun],
    kind: str,
    estimates: dict[str, Any],
    actor: str,
) -> int:
    detail = {key: estimates[key] for key in _LOGGED if key in estimates}
    event = Event(kind=kind, actor=actor, detail=detail)
    session.add(event)
    session.flush()
    session.add(table(event_id=event.id, estimates=estimates))
    session.flush()
    return event.id


def _last(
    session: Session, table: type[Evaluation | RobustnessRun]
) -> tuple[str, dict[str, Any]] | None:
    query = select(Event.at, table.estimates).join(Event, Event.id == table.event_id)
    row = session.execute(query.order_by(table.event_id.desc()).limit(1)).first()
    return None if row is None else (row.at, row.estimates)
