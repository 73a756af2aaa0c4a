"""Changes of state and the events that record them, always in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.lifecycle import Action, State, next_state
from ddiseg.catalogue.tables import Acceptance, Event, Image, Skip, Submission, now


def step(
    session: Session,
    image: Image,
    action: Action,
    actor: str,
    detail: dict[str, Any] | None = None,
) -> None:
    """Take an image one step through its life cycle and add the event, in the caller's transaction.

    Raises:
        TransitionError: the step is not allowed; nothing is changed.
    """
    before = State(image.state)
    after = next_state(before, action, image.name)
    image.state = after.value
    if after is not before:
        _leave(session, image.id, before)
    session.add(
        Event(
            kind=action.value,
            actor=actor,
            image_id=image.id,
            state_before=before.value,
            state_after=after.value,
            detail=detail or {},
        )
    )


def close_skips(session: Session, image_id: int) -> None:
    """Close the open skips of an image, in the caller's transaction."""
    open_skips = select(Skip).where(Skip.image_id == image_id, Skip.reopened_at.is_(None))
    for skip in session.scalars(open_skips):
        skip.reopened_at = now()


def _leave(session: Session, image_id: int, state: State) -> None:
    """Delete the row that exists only while an image is in a state."""
    rows: dict[State, type[Submission] | type[Acceptance]] = {
        State.SUBMITTED: Submission,
        State.ACCEPTED: Acceptance,
    }
    if (kind := rows.get(state)) and (row := session.get(kind, image_id)):
        session.delete(row)
        session.flush()  # the image may come back to this state in the same transaction


class EventLog(Repository):
    """The event log."""

    def record(self, kind: str, actor: str, detail: dict[str, Any]) -> None:
        """Add an event that concerns no single image."""
        with self._database.write() as session:
            session.add(Event(kind=kind, actor=actor, detail=detail))

    def of_image(self, image_id: int) -> Sequence[Event]:
        return self._all(select(Event).where(Event.image_id == image_id).order_by(Event.id))

    def last(self, kind: str) -> Event | None:
        return self._first(
            select(Event).where(Event.kind == kind).order_by(Event.id.desc()).limit(1)
        )

    def count(self) -> int:
        return self._first(select(func.count(Event.id))) or 0

    def contradictions(self) -> list[str]:
        """Return a line for each image whose state contradicts its events or its other rows."""
        problems = []
        with self._database.read() as session:
            required = {
                State.ACCEPTED: (
                    "an accepted mask",
                    set(session.scalars(select(Acceptance.image_id))),
                ),
                State.SUBMITTED: (
                    "a mask in review",
                    set(session.scalars(select(Submission.image_id))),
                ),
            }
            latest: dict[int | None, str | None] = {}
            rows = session.execute(
                select(Event.image_id, Event.id, Event.state_before, Event.state_after)
                .where(Event.image_id.is_not(None), Event.state_after.is_not(None))
                .order_by(Event.id)
            )
            for image_id, event_id, before, after in rows:
                if latest.get(image_id) != before:
                    problems.append(
                        f"image #{image_id}: event {event_id} starts from {before}, "
                        f"but the event before it ended at {latest.get(image_id)}"
                    )
                latest[image_id] = after
            for image_id, name, state in session.execute(select(Image.id, Image.name, Image.state)):
                if latest.get(image_id) != state:
                    problems.append(
                        f"{name} (#{image_id}) is {state}, its events end at {latest.get(image_id)}"
                    )
                for needing, (row, image_ids) in required.items():
                    if (image_id in image_ids) != (state == needing):
                        has = row if image_id in image_ids else f"no {row.split(' ', 1)[1]}"
                        problems.append(f"{name} (#{image_id}) is {state}, but has {has}")
        return problems
