"""Batches: images sampled to be labelled next, with the reason for each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, exists, func, insert, or_, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Repository, in_parts, named, plain_parts, scalars_in
from ddiseg.catalogue.events import step
from ddiseg.catalogue.lifecycle import Action, State
from ddiseg.catalogue.tables import (
    Annotation,
    Batch,
    BatchMember,
    BatchOrigin,
    Event,
    Image,
    ImageGroup,
    Mask,
    Task,
    now,
)
from ddiseg.errors import InputError
from ddiseg.outcomes import counted

#: States of images that may be sampled; so may those with annotators that nobody has started.
DRAWABLE = (State.NEW, State.QUEUED, State.PRELABELLED)


@dataclass(frozen=True)
class NewMember:
    """A sampled image, in the order of sampling."""

    image_id: int
    random: bool  #: sampled at random
    reason: str


@dataclass(frozen=True)
class Member:
    """A sampled image in its present state."""

    image: Image
    random: bool
    reason: str


@dataclass(frozen=True)
class Started:
    """Images that have a mask by a person or are about to get one, or are in an open batch: (N,) each."""

    ids: NDArray[np.int64]  #: ascending
    tones: NDArray[np.object_]
    groups: NDArray[np.int64]

    def where(self, kept: NDArray[np.bool_]) -> Started:
        """Return the images at which `kept`, (N,), is true."""
        return Started(self.ids[kept], self.tones[kept], self.groups[kept])


@dataclass(frozen=True)
class Pool:
    """What sampling depends on beside the candidates."""

    in_open_batch: frozenset[int]  #: image ids
    not_started: frozenset[int]  #: ids of images with annotators that nobody has started
    sampled: dict[str, int]  #: images by tone that are or were in a batch
    at_random: dict[str, int]  #: of them, those sampled at random


class Batches(Repository):
    """The batches of a catalogue."""

    def pool(self) -> Pool:
        """Return what a batch is sampled by, beside the candidates."""
        with self._database.read() as session:
            return Pool(
                frozenset(_open_images(session)),
                frozenset(_not_started(session)),
                _members_by_tone(session),
                _members_by_tone(session, BatchMember.random.is_(True)),
            )

    def started(self, states: Sequence[State], others: Collection[int]) -> Started:
        """Return the images in these states and those with these ids, in the order of their ids."""
        image, group = Image.__table__.c, ImageGroup.__table__.c
        query = select(image.id, image.tone, func.coalesce(group.group_id, image.id)).select_from(
            Image.__table__.outerjoin(ImageGroup.__table__, group.image_id == image.id)
        )
        in_state = query.where(image.state.in_([state.value for state in states]))
        found: set[tuple[Any, ...]] = set()
        with self._database.read() as session:
            for each in (in_state, *(query.where(image.id.in_(part)) for part in in_parts(others))):
                for rows in plain_parts(session, each):
                    found.update(map(tuple, rows))
        ids, tones, groups = zip(*sorted(found), strict=True) if found else ((), (), ())
        return Started(np.array(ids, np.int64), np.array(tones, object), np.array(groups, np.int64))

    def places(self) -> list[tuple[str, str, bool, int]]:
        """Count images by (tone, state, in an open batch), in the order of the first of each."""
        opened = exists(
            select(BatchMember.image_id)
            .join(Batch, Batch.id == BatchMember.batch_id)
            .where(Batch.closed_at.is_(None), BatchMember.image_id == Image.id)
        )
        of_each = select(Image.id, Image.tone, Image.state, opened.label("opened")).subquery().c
        query = (
            select(of_each.tone, of_each.state, of_each.opened, func.count())
            .group_by(of_each.tone, of_each.state, of_each.opened)
            .order_by(func.min(of_each.id))
        )
        return [(tone, state, bool(opened), n) for tone, state, opened, n in self._rows(query)]

    def store(
        self,
        name: str,
        members: Sequence[NewMember],
        drawn_by: dict[str, Any],
        actor: str,
        origin: BatchOrigin = BatchOrigin.PERSON,
    ) -> None:
        """Store a batch and queue its images that are new.

        Raises:
            InputError: there is a batch of that name, or an image was sampled, given to people or
                settled since the pool was read.
        """
        with self._database.write() as session:
            if session.scalars(select(Batch.id).where(Batch.name == name)).first() is not None:
                raise InputError(f"batch '{name}' exists: draw under another name")
            ids = [member.image_id for member in members]
            images = scalars_in(session, select(Image), Image.id, ids)
            started = {i.id for i in images if i.state not in DRAWABLE} - _not_started(session)
            taken = started | (_open_images(session) & {image.id for image in images})
            if taken:
                raise InputError(
                    f"{len(taken)} of the {counted(len(members), 'image')} were sampled or given to people by "
                    "somebody else in this moment: run the same command again"
                )
            batch = Batch(name=name, drawn_by=drawn_by, origin=origin.value)
            session.add(batch)
            session.flush()
            rows = [
                {"batch_id": batch.id, "position": position, **vars(member)}
                for position, member in enumerate(members)
            ]
            session.execute(insert(BatchMember), rows)
            for image in images:
                if image.state == State.NEW:
                    step(session, image, Action.QUEUE, actor, {"batch": name})
            detail = {"name": name, "n": len(members), "origin": origin.value, **drawn_by}
            session.add(Event(kind="batch", actor=actor, detail=detail))

    def all(self) -> Sequence[Batch]:
        """Return the batches, oldest first."""
        return self._all(select(Batch).order_by(Batch.id))

    def get(self, name: str) -> Batch:
        """Return a batch; raises NotFoundError, which lists the batches."""
        with self._database.read() as session:
            return _named_batch(session, name)

    def members(self, name: str) -> list[Member]:
        """Return the images of a batch in the order of sampling; raises NotFoundError like `get`."""
        with self._database.read() as session:
            rows = session.execute(
                select(Image, BatchMember)
                .join(BatchMember, BatchMember.image_id == Image.id)
                .where(BatchMember.batch_id == _named_batch(session, name).id)
                .order_by(BatchMember.position)
            )
            return [Member(image, row.random, row.reason) for image, row in rows]

    def image_ids(self, name: str) -> list[int]:
        """Return the ids of `members`; raises NotFoundError like `get`."""
        with self._database.read() as session:
            batch_id = _named_batch(session, name).id
            query = select(BatchMember.image_id).where(BatchMember.batch_id == batch_id)
            return list(session.scalars(query.order_by(BatchMember.position)))

    def counts(self) -> dict[str, dict[tuple[str, str], int]]:
        """Count images by batch, then by (tone, state)."""
        query = (
            select(Batch.name, Image.tone, Image.state, func.count())
            .join(BatchMember, BatchMember.batch_id == Batch.id)
            .join(Image, Image.id == BatchMember.image_id)
            .group_by(Batch.name, Image.tone, Image.state)
        )
        found: dict[str, dict[tuple[str, str], int]] = {}
        for name, tone, state, n in self._rows(query):
            found.setdefault(name, {})[tone, state] = n
        return found

    def close(self, name: str, actor: str) -> bool:
        """Close a batch: its images that nobody has started may be sampled again.

        Returns False where it was closed already; raises NotFoundError like `get`.
        """
        with self._database.write() as session:
            batch = _named_batch(session, name)
            if batch.closed_at is not None:
                return False
            batch.closed_at = now()
            session.add(Event(kind="batch_closed", actor=actor, detail={"name": name}))
            return True

    def random_images(self) -> set[int]:
        """Return the ids of images sampled at random in any batch: a test set without selection bias."""
        return set(self._all(select(BatchMember.image_id).where(BatchMember.random)))


def _named_batch(session: Session, name: str) -> Batch:
    return named(session, Batch, name, "; draw it with 'ddiseg batch draw'")


def _open_images(session: Session) -> set[int]:
    query = (
        select(BatchMember.image_id)
        .join(Batch, Batch.id == BatchMember.batch_id)
        .where(Batch.closed_at.is_(None))
    )
    return set(session.scalars(query))


def _not_started(session: Session) -> set[int]:
    """Return the ids of images with annotators, who have not submitted, skipped or drawn anything.

    Only the labelling server knows a draft that was not submitted.
    """
    drawn = select(Mask.id).where(Mask.image_id == Image.id, Mask.annotator.is_not(None))
    answered = (
        select(Annotation.id)
        .join(Task, Task.id == Annotation.task_id)
        .where(Task.image_id == Image.id)
    )
    query = select(Image.id).where(
        Image.state == State.IN_LABELLING.value, ~or_(drawn.exists(), answered.exists())
    )
    return set(session.scalars(query))


def _members_by_tone(session: Session, *where: ColumnElement[bool]) -> dict[str, int]:
    query = (
        select(Image.tone, func.count(BatchMember.image_id.distinct()))
        .join(BatchMember, BatchMember.image_id == Image.id)
        .where(*where)
        .group_by(Image.tone)
    )
    return {tone: n for tone, n in session.execute(query)}
