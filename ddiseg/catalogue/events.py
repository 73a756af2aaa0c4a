"""Changes of state and the events that record them, always in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, exists, func, or_, select
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
        with self._database.write([]) as session:
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
        with self._database.read() as session:
            broken = [
                f"image #{image_id}: event {event_id} starts from {before}, but the event before it ended "
                f"at {ended}"
                for image_id, event_id, before, ended in session.execute(_broken_chains())
            ]
            contradicting = [
                line for row in session.execute(_contradicting()) for line in _contradictions(*row)
            ]
        return broken + contradicting


def _broken_chains() -> Select[Any]:
    """Return the query for events that don't start from the state in which the one before ended."""
    ended = func.lag(Event.state_after).over(partition_by=Event.image_id, order_by=Event.id)
    steps = (
        select(Event.image_id, Event.id, Event.state_before, ended.label("ended"))
        .where(Event.image_id.is_not(None), Event.state_after.is_not(None))
        .subquery()
    )
    differ = steps.c.state_before.is_distinct_from(steps.c.ended)
    return select(*steps.c).where(differ).order_by(steps.c.id)


def _contradicting() -> Select[Any]:
    """Return the query for images with another state than their last event, acceptance or submission."""
    last = (
        select(Event.state_after)
        .where(Event.image_id == Image.id, Event.state_after.is_not(None))
        .order_by(Event.id.desc())
        .limit(1)
        .correlate(Image)
        .scalar_subquery()
    )
    accepted = exists().where(Acceptance.image_id == Image.id)
    submitted = exists().where(Submission.image_id == Image.id)
    found = select(
        *(Image.id, Image.name, Image.state),
        *(last.label("last"), accepted.label("accepted"), submitted.label("submitted")),
    ).subquery()
    state = found.c.state
    wrong = or_(
        state.is_distinct_from(found.c.last),
        found.c.accepted != (state == State.ACCEPTED.value),
        found.c.submitted != (state == State.SUBMITTED.value),
    )
    return select(*found.c).where(wrong).order_by(found.c.id)


def _contradictions(
    image_id: int, name: str, state: str, last: str | None, accepted: bool, submitted: bool
) -> Iterator[str]:
    """Yield what is wrong with the state of an image."""
    if last != state:
        yield f"{name} (#{image_id}) is {state}, its events end at {last}"
    for needing, row, has_it in (
        (State.ACCEPTED, "accepted mask", bool(accepted)),
        (State.SUBMITTED, "mask in review", bool(submitted)),
    ):
        if has_it != (state == needing):
            article = ("an" if needing is State.ACCEPTED else "a") if has_it else "no"
            yield f"{name} (#{image_id}) is {state}, but has {article} {row}"
