"""What people have in hand on a labelling server, as far as the last pull knows."""

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
    """Ids of images, by who has them."""

    given: set[int]  #: images with an annotation task on the server
    with_annotators: set[int]  #: those of them that an annotator has yet to do something with
    shown: dict[int, int | None]  #: the mask that is shown of those that nobody has begun
    with_reviewers: set[int]  #: submitted, and a reviewer has yet to give a verdict
    left_out: set[int]  #: submitted, and left out by a spot check
    to_review: set[int]  #: submitted, and given to no reviewer yet


def read_open_work(session: Session, server: str) -> OpenWork:
    """Return what people have in hand on a server, see `Tasks.open_work`."""
    submitted = {i: mask for i, mask in session.execute(_SUBMITTED)}
    unread = unread_edits(session, submitted.values())
    to_mend = {image_id for image_id, mask_id in submitted.items() if mask_id in unread}
    given, with_annotators, shown = set(), set(), {}
    answers = _answers(session)
    for task, state in _tasks(session, server, Purpose.ANNOTATION):
        if task.remote_id is None:
            continue
        given.add(task.image_id)
        answered = answers.get(task.id, 0)
        if _is_open(state, answered, task.readers) or task.image_id in to_mend:
            with_annotators.add(task.image_id)
        if state == State.IN_LABELLING and not answered and task.arm != Arm.CONTROL:
            shown[task.image_id] = task.mask_id
    with_reviewers, left_out = set(), set()
    verdicts = _last_verdicts(session, submitted.values())
    for task, _ in _tasks(session, server, Purpose.REVIEW):
        mask_id = submitted.get(task.image_id)
        # Each time that a mask waits for review it gets a task of its own.
        if (
            mask_id is None
            or mask_id != task.mask_id
            or task.created_at < verdicts.get(mask_id, "")
        ):
            continue
        if task.arm == Arm.UNSAMPLED:
            left_out.add(task.image_id)
        elif task.remote_id is not None and task.comment is None:  # with one, nobody is shown it
            with_reviewers.add(task.image_id)
    return OpenWork(
        given=given,
        with_annotators=with_annotators,
        shown=shown,
        with_reviewers=with_reviewers - to_mend,
        left_out=left_out - with_reviewers - to_mend,
        to_review=submitted.keys() - with_reviewers - left_out - to_mend,
    )


_SUBMITTED = select(Submission.image_id, Submission.mask_id)


def _is_open(state: str, answered: int, readers: int) -> bool:
    """Whether an annotator has yet to do something with a task."""
    if state in (State.SUBMITTED, State.ACCEPTED):
        return 0 < answered < readers  # another reader is asked for
    return state != State.SKIPPED


def _tasks(session: Session, server: str, purpose: Purpose) -> Iterator[tuple[Task, str]]:
    """The tasks of one purpose that are, or are to be, on a server, with their images' states."""
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
    """Number of annotations that stand, by task."""
    query = select(Annotation.task_id, func.count(Annotation.remote_id.distinct()))
    rows = session.execute(
        query.where(Annotation.deleted_at.is_(None)).group_by(Annotation.task_id)
    )
    return {task_id: n for task_id, n in rows}


def _last_verdicts(session: Session, mask_ids: Collection[int]) -> dict[int, str]:
    """When each mask was reviewed last, where it ever was."""
    query = select(Review.mask_id, func.max(Review.created_at)).group_by(Review.mask_id)
    return {
        mask_id: at
        for part in in_parts(mask_ids)
        for mask_id, at in session.execute(query.where(Review.mask_id.in_(part)))
    }
