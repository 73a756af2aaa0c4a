"""Open work: which images annotators and reviewers have, as of the last pull."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.annotation_versions import unread_edits
from ddiseg.catalogue.database import in_parts
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.tables import (
    Annotation,
    Arm,
    Image,
    Project,
    Purpose,
    Review,
    Submission,
    Task,
)


@dataclass(frozen=True)
class OpenWork:
    """Ids of images, by who has to work on them."""

    given: set[int]  #: images with an annotation task on the server
    with_annotators: set[int]  #: of them, those that an annotator has to work on
    shown: dict[int, int | None]  #: the mask that is shown, of those that nobody has started
    with_reviewers: set[int]  #: submitted, with a reviewer
    left_out: set[int]  #: submitted, and left out by a spot check
    to_review: set[int]  #: submitted, not given to a reviewer yet


def read_open_work(session: Session, server: str) -> OpenWork:
    """Return the open work on a server, see `Tasks.open_work`."""
    submitted = {i: mask for i, mask in session.execute(_SUBMITTED)}
    unread = unread_edits(session, submitted.values())
    to_fix = {image_id for image_id, mask_id in submitted.items() if mask_id in unread}
    given, with_annotators, shown = set(), set(), {}
    answers = _answers(session)
    for task, state in _tasks(session, server, Purpose.ANNOTATION):
        if task.remote_id is None:
            continue
        given.add(task.image_id)
        answered = answers.get(task.id, 0)
        if _is_open(state, answered, task.readers) or task.image_id in to_fix:
            with_annotators.add(task.image_id)
        if state == State.IN_LABELLING and not answered and task.arm != Arm.CONTROL:
            shown[task.image_id] = task.mask_id
    with_reviewers, left_out = set(), set()
    verdicts = _last_verdicts(session, submitted.values())
    for task, _ in _tasks(session, server, Purpose.REVIEW):
        mask_id = submitted.get(task.image_id)
        # A mask gets a new task each time that it waits for review.
        if (
            mask_id is None
            or mask_id != task.mask_id
            or task.created_at < verdicts.get(mask_id, "")
        ):
            continue
        if task.arm == Arm.UNSAMPLED:
            left_out.add(task.image_id)
        elif (
            task.remote_id is not None and task.comment is None
        ):  # one with a comment is not offered
            with_reviewers.add(task.image_id)
    return OpenWork(
        given=given,
        with_annotators=with_annotators,
        shown=shown,
        with_reviewers=with_reviewers - to_fix,
        left_out=left_out - with_reviewers - to_fix,
        to_review=submitted.keys() - with_reviewers - left_out - to_fix,
    )


_SUBMITTED = select(Submission.image_id, Submission.mask_id)


def _is_open(state: str, answered: int, readers: int) -> bool:
    """Return whether an annotator has to work on a task."""
    if state in (State.SUBMITTED, State.ACCEPTED):
        return 0 < answered < readers  # it needs another reader
    return state != State.SKIPPED


def _tasks(session: Session, server: str, purpose: Purpose) -> Iterator[tuple[Task, str]]:
    """Yield the tasks of a purpose on a server, or to be sent to it, with their images' states."""
    query = (
        select(Task, Image.state)
        .join(Image, Image.id == Task.image_id)
        .join(Project, Project.id == Task.project_id)
        .where(
            Project.server == server,
            Project.purpose == purpose.value,
            Project.remote_id.is_not(None),
            Task.deleted_at.is_(None),
        )
    )
    yield from ((task, state) for task, state in session.execute(query))


def _answers(session: Session) -> dict[int, int]:
    """Count annotations that exist on the server, by task."""
    query = select(Annotation.task_id, func.count(Annotation.remote_id.distinct()))
    rows = session.execute(
        query.where(Annotation.deleted_at.is_(None)).group_by(Annotation.task_id)
    )
    return {task_id: n for task_id, n in rows}


def _last_verdicts(session: Session, mask_ids: Collection[int]) -> dict[int, str]:
    """Return when each mask was last reviewed."""
    query = select(Review.mask_id, func.max(Review.created_at)).group_by(Review.mask_id)
    return {
        mask_id: at
        for part in in_parts(mask_ids)
        for mask_id, at in session.execute(query.where(Review.mask_id.in_(part)))
    }
