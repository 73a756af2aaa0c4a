"""What was given to people on a labelling server, and what came back from it.

Everything that a page of the server says is stored in one transaction, watermark included, so a
stopped pull begins again at a page's border and a second one finds nothing to add.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session, aliased

from ddiseg.catalogue.annotation_versions import is_newest, unread_edits
from ddiseg.catalogue.annotations import AnnotationPage, ingest_page, is_basis_of
from ddiseg.catalogue.database import Database, in_parts
from ddiseg.catalogue.events import step
from ddiseg.catalogue.lifecycle import TRANSITIONS, Action, State
from ddiseg.catalogue.open_work import OpenWork, read_open_work
from ddiseg.catalogue.tables import (
    Acceptance,
    AllocationCarry,
    Annotation,
    Arm,
    Event,
    Image,
    Mask,
    Project,
    Purpose,
    Review,
    Task,
    now,
)
from ddiseg.outcomes import FileOutcome, Outcome


@dataclass(frozen=True)
class NewTask:
    """A task that is about to be sent."""

    key: str  #: found again on the server by it
    image_id: int
    mask_id: int | None  #: painted, or withheld from a control task
    arm: Arm
    width: int  #: of the copy that is sent, pixels
    height: int
    readers: int = 1


@dataclass(frozen=True)
class AnnotationOutcome:
    """How an accepted mask came about on a labelling server."""

    image: Image
    arm: Arm
    prediction: Mask | None  #: painted, or withheld where the arm is control
    drawn: Mask  #: by the annotator
    accepted: Mask  #: the same, or the reviewer's fix of it
    seconds: float | None  #: the annotator's, as the server counted them


class Tasks:
    """Projects, tasks and annotations. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def project(self, server: str, purpose: Purpose) -> Project:
        """The project of that purpose on that server; made here, under a key, before it is there."""
        with self._database.write() as session:
            row = session.scalars(
                select(Project).where(Project.server == server, Project.purpose == purpose)
            ).first()
            if row is None:
                row = Project(server=server, purpose=purpose.value, key=uuid.uuid4().hex)
                session.add(row)
                session.flush()
            return row

    def projects(self, server: str) -> Sequence[Project]:
        """The projects of this workspace that a server has, that for annotators first."""
        query = select(Project).where(Project.server == server, Project.remote_id.is_not(None))
        with self._database.read() as session:
            return session.scalars(query.order_by(Project.purpose)).all()

    def place(self, project_id: int, remote_id: int | None) -> None:
        """The server knows the project under `remote_id`; None once it is gone there."""
        with self._database.write() as session:
            session.get_one(Project, project_id).remote_id = remote_id

    def tasks(self, project_id: int, *, deleted: bool = False) -> Sequence[Task]:
        """The tasks of a project in the order in which they were planned."""
        query = select(Task).where(Task.project_id == project_id).order_by(Task.id)
        if not deleted:
            query = query.where(Task.deleted_at.is_(None))
        with self._database.read() as session:
            return session.scalars(query).all()

    def pending(self, project_id: int) -> Sequence[Task]:
        """Tasks that are to be on the server, and as far as is known are not."""
        query = select(Task).where(
            Task.project_id == project_id,
            Task.deleted_at.is_(None),
            Task.remote_id.is_(None),
            Task.arm != Arm.UNSAMPLED.value,
        )
        with self._database.read() as session:
            return session.scalars(query.order_by(Task.id)).all()

    def numbered(self, project_id: int, remote_ids: Collection[int]) -> dict[int, Task]:
        """Tasks by the server's numbers of them, deleted ones included.

        A server that was set up anew gives numbers again: the task that is there now is meant.
        """
        query = select(Task).where(Task.project_id == project_id)
        query = query.order_by(Task.deleted_at.is_(None), Task.id)  # the last one stays
        with self._database.read() as session:
            return {
                task.remote_id: task
                for part in in_parts(remote_ids)
                for task in session.scalars(query.where(Task.remote_id.in_(part)))
                if task.remote_id is not None
            }

    def numbers(self, project_id: int) -> dict[int, int]:
        """Our number of each task that is on the server, by the server's."""
        query = select(Task.remote_id, Task.id).where(
            Task.project_id == project_id, Task.deleted_at.is_(None)
        )
        with self._database.read() as session:
            return {theirs: ours for theirs, ours in session.execute(query) if theirs is not None}

    def commented(self, project_id: int) -> list[tuple[Task, Image, bool]]:
        """Tasks on the server that show a comment or may have to, with their images.

        True for an open image whose task somebody has answered: it was reopened, and the server,
        for which it is done, offers it to nobody.
        """
        reviewed = select(Mask.image_id).join(Review, Review.mask_id == Mask.id)
        answered = and_(
            Image.state.in_((State.QUEUED, State.PRELABELLED, State.IN_LABELLING)),
            select(Annotation.id)
            .where(
                Annotation.task_id == Task.id,
                Annotation.deleted_at.is_(None),
                Annotation.outcome != "refused",
            )
            .exists(),
        )
        query = (
            select(Task, Image, answered)
            .join(Image, Image.id == Task.image_id)
            .where(
                Task.project_id == project_id,
                Task.deleted_at.is_(None),
                Task.remote_id.is_not(None),
                or_(
                    Task.comment.is_not(None),
                    Image.state == State.REWORK.value,
                    answered,
                    and_(Image.state == State.IN_LABELLING.value, Image.id.in_(reviewed)),
                ),
            )
            .order_by(Task.id)
        )
        with self._database.read() as session:
            return [(task, image, bool(done)) for task, image, done in session.execute(query)]

    def carry(self) -> dict[str, dict[str, float]]:
        """Return what the newest push left to the next one, by allocation and tone."""
        found: dict[str, dict[str, float]] = {}
        with self._database.read() as session:
            for row in session.scalars(select(AllocationCarry)):
                found.setdefault(row.allocation, {})[row.tone] = row.carry
        return found

    def plan(
        self,
        project_id: int,
        batch: Sequence[NewTask],
        actor: str,
        detail: dict[str, Any],
        carry: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Store tasks before they are sent; one that the server lost is planned anew.

        A task that is there already stays as it was planned first.

        Args:
            detail: how the push was asked for, for the event log.
            carry: what this push leaves to the next one, by allocation and tone; None: no change.
        """
        with self._database.write() as session:
            rows = session.scalars(select(Task).where(Task.project_id == project_id))
            there = {row.key: row for row in rows}
            for new in batch:
                row = there.get(new.key)
                if row is None:
                    row = Task(project_id=project_id, key=new.key, image_id=new.image_id)
                elif row.deleted_at is None and row.arm != Arm.UNSAMPLED:
                    continue
                row.mask_id, row.arm, row.readers = new.mask_id, new.arm.value, new.readers
                row.width, row.height = new.width, new.height
                row.remote_id = row.media = row.comment = row.deleted_at = None
                session.add(row)
            session.add(Event(kind="push", actor=actor, detail={"n": len(batch), **detail}))
            if carry is not None:
                session.execute(delete(AllocationCarry))
                session.add_all(
                    AllocationCarry(allocation=allocation, tone=tone, carry=value)
                    for allocation, by_tone in carry.items()
                    for tone, value in by_tone.items()
                )

    def sent(self, remote_ids: Mapping[int, int], actor: str, *, start: bool) -> None:
        """The server has these tasks (its number by ours); with `start` their images are at work."""
        with self._database.write() as session:
            query = select(Task, Image).join(Image, Image.id == Task.image_id).order_by(Task.id)
            rows = session.execute(query.where(Task.id.in_(remote_ids))).all()
            for task, image in rows:
                task.remote_id = remote_id = remote_ids[task.id]
                if start and (State(image.state), Action.START) in TRANSITIONS:
                    detail = {"task": remote_id, "arm": task.arm, "mask": task.mask_id}
                    step(session, image, Action.START, actor, detail)

    def update_task(self, task_id: int, **columns: Any) -> None:
        """What the server now shows: media, comment, or mask_id and arm."""
        with self._database.write() as session:
            task = session.get_one(Task, task_id)
            for name, value in columns.items():
                setattr(task, name, value)

    def show(self, masks: Mapping[int, int]) -> None:
        """Tasks that from now on show a mask, its id by the task's; they are in the painted arm."""
        with self._database.write() as session:
            for task in session.scalars(select(Task).where(Task.id.in_(masks))):
                task.mask_id, task.arm = masks[task.id], Arm.PREDICTED.value

    def receive(self, project_id: int, page: AnnotationPage) -> list[FileOutcome]:
        """Store a page of annotations, all of it or nothing; what is there already is unchanged."""
        with self._database.write() as session:
            # Where writers run side by side, this makes two pulls of a project wait for each other.
            project = session.get_one(Project, project_id, with_for_update=True)
            outcomes = ingest_page(session, Purpose(project.purpose), page)
            if page.watermark is not None and page.watermark > (project.watermark or ""):
                project.watermark = page.watermark
            return outcomes

    def missed(self, task_ids: Sequence[int], actor: str) -> list[FileOutcome]:
        """Tasks that are gone from the server; their images can be pushed again."""
        outcomes = []
        with self._database.write() as session:
            for task_id in task_ids:
                task = session.get_one(Task, task_id)
                if task.deleted_at is not None:
                    continue
                task.deleted_at = now()
                image = session.get_one(Image, task.image_id)
                purpose = session.get_one(Project, task.project_id).purpose
                annotating = purpose == Purpose.ANNOTATION
                if annotating and image.state == State.IN_LABELLING:
                    step(session, image, Action.RECALL, actor, {"task": task.remote_id})
                outcomes.append(
                    FileOutcome(
                        image.name,
                        Outcome.REPAIRED,
                        "its task was deleted on the server; nothing that came back is lost, "
                        f"and 'ddiseg {'label' if annotating else 'review'} push' sends it again",
                    )
                )
        return outcomes

    def open_work(self, server: str) -> OpenWork:
        """Return what people have in hand on a server: a team's URL, or "embedded"."""
        with self._database.read() as session:
            return read_open_work(session, server)

    def newest_version(self) -> int:
        """The number of the newest version of an annotation that is stored; 0 where there is none."""
        with self._database.read() as session:
            return session.scalar(select(func.max(Annotation.id))) or 0

    def count_versions(self, purpose: Purpose, after: int, through: int) -> int:
        """Count the versions of annotations that were stored and understood, by their numbers."""
        query = (
            select(func.count(Annotation.id))
            .join(Task, Task.id == Annotation.task_id)
            .join(Project, Project.id == Task.project_id)
            .where(Project.purpose == purpose.value, Annotation.outcome != "refused")
            .where(Annotation.id > after, Annotation.id <= through)
        )
        with self._database.read() as session:
            return session.scalar(query) or 0

    def problems(self, project_id: int) -> Sequence[tuple[Task, Annotation]]:
        """Annotations that were refused and still stand as they were.

        Of settled images only those that the image stands on an earlier version of.
        """
        query = (
            select(Task, Annotation, Image)
            .join(Annotation, Annotation.task_id == Task.id)
            .join(Image, Image.id == Task.image_id)
            .where(
                Task.project_id == project_id,
                Task.deleted_at.is_(None),
                Annotation.outcome == "refused",
                Annotation.deleted_at.is_(None),
                is_newest(),
            )
            .order_by(Annotation.id)
        )
        with self._database.read() as session:
            return [
                (task, annotation)
                for task, annotation, image in session.execute(query)
                if image.state not in (State.ACCEPTED, State.SKIPPED)
                or is_basis_of(session, image, _versions(session, annotation))
            ]

    def unread_edits(self, mask_ids: Collection[int]) -> dict[int, str]:
        """Why masks must not be reviewed, of those whose annotator has changed them unreadably."""
        with self._database.read() as session:
            return unread_edits(session, mask_ids)

    def seen(self, task_ids: Sequence[int]) -> dict[tuple[int, int, str], str]:
        """Outcome by (task, annotation number, updated_at) of the versions that are stored."""
        query = select(
            Annotation.task_id, Annotation.remote_id, Annotation.updated_at, Annotation.outcome
        )
        with self._database.read() as session:
            rows = session.execute(query.where(Annotation.task_id.in_(task_ids)))
            return {(task, number, at): outcome for task, number, at, outcome in rows}

    def readings(self) -> dict[int, list[Mask]]:
        """What each person drew of an image by themselves, where two or more did.

        Of each annotation the last version before another person changed it, and before the image
        was reviewed: what comes later may owe to the reviewer. An annotation that was begun after
        that counts as long as the image has not been sent back, for only then people are told.
        """
        query = (
            select(Annotation, Mask, Task.image_id)
            .join(Task, Task.id == Annotation.task_id)
            .join(Project, Project.id == Task.project_id)
            .join(Mask, Mask.id == Annotation.mask_id, isouter=True)
            .where(
                Project.purpose == Purpose.ANNOTATION.value,
                Annotation.deleted_at.is_(None),
                Annotation.outcome != "refused",
            )
            .order_by(Annotation.id)
        )
        versions: dict[tuple[int, int, int], list[tuple[Annotation, Mask | None]]] = {}
        with self._database.read() as session:
            reviewed, sent_back = _first_reviews(session), _first_sent_back(session)
            for annotation, mask, image_id in session.execute(query):
                key = (image_id, annotation.task_id, annotation.remote_id)
                versions.setdefault(key, []).append((annotation, mask))
        found: dict[int, dict[str | None, Mask]] = {}
        for (image_id, _, _), of_one in versions.items():
            until = reviewed.get(image_id, _NEVER)
            if of_one[0][0].created_at > until:
                until = sent_back.get(image_id, _NEVER)
            drawn = _read_alone(of_one, until)
            if drawn is not None:  # one person may have annotated twice: that is one reading
                found.setdefault(image_id, {})[drawn.annotator] = drawn
        return {i: list(of.values()) for i, of in found.items() if len(of) > 1}

    def work(self) -> list[AnnotationOutcome]:
        """How each accepted mask came about that was drawn on a labelling server, by image."""
        predicted = aliased(Mask)
        query = (
            select(Image, Task, Annotation, Mask, predicted)
            .join(Acceptance, Acceptance.image_id == Image.id)
            .join(Mask, Mask.id == Acceptance.mask_id)
            .join(Task, Task.image_id == Image.id)
            .join(Project, Project.id == Task.project_id)
            .join(Annotation, Annotation.task_id == Task.id)
            .join(predicted, predicted.id == Task.mask_id, isouter=True)
            .where(
                Project.purpose == Purpose.ANNOTATION.value,
                or_(Annotation.mask_id == Mask.id, Annotation.mask_id == Mask.parent_id),
            )
            .order_by(Image.id, Annotation.id)
        )
        found: dict[int, AnnotationOutcome] = {}
        with self._database.read() as session:
            for image, task, annotation, accepted, prediction in session.execute(query):
                drawn = session.get_one(Mask, annotation.mask_id)
                by_model = prediction is not None and prediction.annotator is None
                found[image.id] = AnnotationOutcome(
                    image,
                    Arm(task.arm),
                    prediction if by_model else None,
                    drawn,
                    accepted,
                    annotation.lead_time,
                )
        return list(found.values())


#: Later than any time.
_NEVER = "~"


def _versions(session: Session, annotation: Annotation) -> Sequence[Annotation]:
    """All versions of an annotation."""
    query = select(Annotation).where(
        Annotation.task_id == annotation.task_id, Annotation.remote_id == annotation.remote_id
    )
    return session.scalars(query).all()


def _first_reviews(session: Session) -> dict[int, str]:
    """When each image was reviewed first."""
    query = select(Mask.image_id, func.min(Review.created_at)).group_by(Mask.image_id)
    rows = session.execute(query.join(Review, Review.mask_id == Mask.id))
    return {image_id: at for image_id, at in rows}


def _first_sent_back(session: Session) -> dict[int, str]:
    """When each image first went back to its annotator, rejected or reopened."""
    query = select(Event.image_id, func.min(Event.at)).where(
        Event.image_id.is_not(None), Event.state_after == State.REWORK.value
    )
    rows = session.execute(query.group_by(Event.image_id))
    return {image_id: at for image_id, at in rows if image_id is not None}


def _read_alone(versions: Sequence[tuple[Annotation, Mask | None]], until: str) -> Mask | None:
    """The last mask that one person drew up to a time, before anybody else changed it.

    None where there is none, or where it became a skip.
    """
    mask = None
    for annotation, drawn in versions:
        if len(annotation.people) > 1 or annotation.created_at > until:
            break
        mask = drawn
    return mask
