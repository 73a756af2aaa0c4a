"""Tasks on a labelling server, and the annotations that come back from it.

A page of the server is stored in one transaction, watermark included: a stopped pull continues with
the next page, and a second pull finds nothing to add.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, delete, func, or_, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.accepted_work import images_read_twice
from ddiseg.catalogue.annotation_versions import is_newest, unread_edits
from ddiseg.catalogue.annotations import AnnotationPage, ingest_page, is_basis_of
from ddiseg.catalogue.database import Repository, in_parts
from ddiseg.catalogue.events import step
from ddiseg.catalogue.lifecycle import TRANSITIONS, Action, State
from ddiseg.catalogue.tables import (
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

    key: str  #: identifies it on the server
    image_id: int
    mask_id: int | None  #: shown, or withheld from a control task
    arm: Arm
    width: int  #: of the copy that is sent, pixels
    height: int
    readers: int = 1


class Tasks(Repository):
    """Projects, tasks and annotations."""

    def project(self, server: str, purpose: Purpose) -> Project:
        """Return the project of a purpose on a server; stored under a key before the server has it."""
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
        """Return the projects of this workspace on a server, the annotators' first."""
        query = select(Project).where(Project.server == server, Project.remote_id.is_not(None))
        return self._all(query.order_by(Project.purpose))

    def set_remote_id(self, project_id: int, remote_id: int | None) -> None:
        """Store the server's number of a project; None once the server no longer has it."""
        with self._database.write() as session:
            session.get_one(Project, project_id).remote_id = remote_id

    def tasks(
        self, project_id: int, image_ids: Iterable[int] | None = None, *, deleted: bool = False
    ) -> Sequence[Task]:
        """Return the tasks of a project, of some images or of all, in the order in which they were planned."""
        query = select(Task).where(Task.project_id == project_id).order_by(Task.id)
        if not deleted:
            query = query.where(Task.deleted_at.is_(None))
        if image_ids is None:
            return self._all(query)
        return sorted(self._all_in(query, Task.image_id, image_ids), key=lambda task: task.id)

    def on_server(self, project_id: int) -> set[int]:
        """Return the ids of the images of a project's tasks."""
        query = select(Task.image_id).where(Task.project_id == project_id)
        return set(self._all(query.where(Task.deleted_at.is_(None))))

    def has_tasks(self, project_id: int) -> bool:
        """Return whether a project has tasks."""
        query = select(Task.id).where(Task.project_id == project_id, Task.deleted_at.is_(None))
        return self._first(query.limit(1)) is not None

    def without_comment(self, project_id: int) -> Sequence[Task]:
        """Return the tasks of a project on the server that show no comment."""
        query = select(Task).where(
            *(Task.project_id == project_id, Task.deleted_at.is_(None)),
            *(Task.remote_id.is_not(None), Task.comment.is_(None)),
        )
        return self._all(query.order_by(Task.id))

    def pending(self, project_id: int) -> Sequence[Task]:
        """Return tasks to be sent, which as far as is known the server does not have."""
        query = select(Task).where(
            Task.project_id == project_id,
            Task.deleted_at.is_(None),
            Task.remote_id.is_(None),
            Task.arm != Arm.UNSAMPLED.value,
        )
        return self._all(query.order_by(Task.id))

    def numbered(self, project_id: int, remote_ids: Collection[int]) -> dict[int, Task]:
        """Return tasks by the server's numbers, deleted tasks included.

        A server that was set up anew reuses numbers: then the task that exists now is returned.
        """
        query = select(Task).where(Task.project_id == project_id)
        query = query.order_by(Task.deleted_at.is_(None), Task.id)  # the last one is kept
        tasks = self._all_in(query, Task.remote_id, remote_ids)
        return {task.remote_id: task for task in tasks if task.remote_id is not None}

    def numbers(self, project_id: int) -> dict[int, int]:
        """Return the id of each task on the server, by the server's number."""
        query = select(Task.remote_id, Task.id).where(
            Task.project_id == project_id, Task.deleted_at.is_(None)
        )
        return {theirs: ours for theirs, ours in self._rows(query) if theirs is not None}

    def commented(self, project_id: int) -> list[tuple[Task, Image, bool]]:
        """Return tasks on the server that show a comment or may have to, with their images.

        The last value is True for an open image with an answered task: it was reopened, but the
        server counts the task as done and offers it to nobody.
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
        return [(task, image, bool(done)) for task, image, done in self._rows(query)]

    def carry(self) -> dict[str, dict[str, float]]:
        """Return what the newest push left to the next one, by allocation and tone."""
        found: dict[str, dict[str, float]] = {}
        for row in self._all(select(AllocationCarry)):
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
            stored = {row.key: row for row in rows}
            for new in batch:
                row = stored.get(new.key)
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
        """Store the server's numbers of tasks, by id; with `start` labelling of their images starts."""
        with self._database.write(_images_of(remote_ids)) as session:
            query = select(Task, Image).join(Image, Image.id == Task.image_id).order_by(Task.id)
            rows = session.execute(query.where(Task.id.in_(remote_ids))).all()
            for task, image in rows:
                task.remote_id = remote_id = remote_ids[task.id]
                if start and (State(image.state), Action.START) in TRANSITIONS:
                    detail = {"task": remote_id, "arm": task.arm, "mask": task.mask_id}
                    step(session, image, Action.START, actor, detail)

    def update_task(self, task_id: int, **columns: Any) -> None:
        """Store what the server now shows: media, comment, or mask_id and arm."""
        with self._database.write(_images_of([task_id])) as session:
            task = session.get_one(Task, task_id)
            for name, value in columns.items():
                setattr(task, name, value)

    def show(self, masks: Mapping[int, int]) -> None:
        """Store which mask tasks show from now on, by task id; their arm becomes PREDICTED."""
        with self._database.write(_images_of(masks)) as session:
            for task in session.scalars(select(Task).where(Task.id.in_(masks))):
                task.mask_id, task.arm = masks[task.id], Arm.PREDICTED.value

    def receive(self, project_id: int, page: AnnotationPage) -> list[FileOutcome]:
        """Store a page of annotations, all or nothing; stored versions are unchanged."""
        with self._database.write(_images_of(page.existing)) as session:
            # Two pulls of a project wait for each other, so that the watermark never goes back.
            project = session.get_one(Project, project_id, with_for_update=True)
            outcomes = ingest_page(session, Purpose(project.purpose), page)
            if page.watermark is not None and page.watermark > (project.watermark or ""):
                project.watermark = page.watermark
            return outcomes

    def mark_deleted(self, task_ids: Sequence[int], actor: str) -> list[FileOutcome]:
        """Mark tasks as deleted that the server no longer has; their images can be pushed again."""
        outcomes = []
        with self._database.write(_images_of(task_ids)) as session:
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

    def newest_version(self) -> int:
        """Return the id of the newest stored version of an annotation; 0 without any."""
        return self._first(select(func.max(Annotation.id))) or 0

    def count_versions(self, purpose: Purpose, after: int, through: int) -> int:
        """Count the readable versions of annotations with ids above `after`, up to `through`."""
        query = (
            select(func.count(Annotation.id))
            .join(Task, Task.id == Annotation.task_id)
            .join(Project, Project.id == Task.project_id)
            .where(Project.purpose == purpose.value, Annotation.outcome != "refused")
            .where(Annotation.id > after, Annotation.id <= through)
        )
        return self._first(query) or 0

    def problems(self, project_id: int) -> Sequence[tuple[Task, Annotation]]:
        """Return annotations that were refused and have not changed since.

        Of a settled image only one whose earlier version the image is based on.
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
        """Return why masks can't be reviewed, by id: their annotation changed and can't be read now."""
        with self._database.read() as session:
            return unread_edits(session, mask_ids)

    def seen(self, task_ids: Sequence[int]) -> dict[tuple[int, int, str], str]:
        """Return the outcomes of stored versions, by (task, annotation number, updated_at)."""
        query = select(
            Annotation.task_id, Annotation.remote_id, Annotation.updated_at, Annotation.outcome
        )
        rows = self._rows(query.where(Annotation.task_id.in_(task_ids)))
        return {(task, number, at): outcome for task, number, at, outcome in rows}

    def readings(self) -> dict[int, list[Mask]]:
        """Return the independent masks of each image that two or more people annotated.

        Those of a labelling server, and those of a file that says so (`Mask.independent`).
        """
        found = self.reading_ids()
        ids = [mask_id for of_image in found.values() for mask_id in of_image]
        masks = {mask.id: mask for mask in self._all_in(select(Mask), Mask.id, ids)}
        return {i: [masks[mask_id] for mask_id in of_image] for i, of_image in found.items()}

    def reading_ids(self) -> dict[int, list[int]]:
        """Return the ids of `readings`.

        Of each annotation that is the last version before another person changed it, and before the
        image was reviewed: a later one may depend on the reviewer. An annotation that was started
        after the review counts until the image is sent back: only then do people see the verdict.
        """
        query = (
            select(
                Task.image_id,
                Task.id,
                Annotation.remote_id,
                Annotation.created_at,
                Annotation.people,
                Mask.id,
                Mask.annotator,
            )
            .join_from(Annotation, Task, Task.id == Annotation.task_id)
            .join(Project, Project.id == Task.project_id)
            .join(Mask, Mask.id == Annotation.mask_id, isouter=True)
            .where(
                Project.purpose == Purpose.ANNOTATION.value,
                Annotation.deleted_at.is_(None),
                Annotation.outcome != "refused",
            )
            .order_by(Annotation.id)
        )
        independent = (
            select(Mask.image_id, Mask.annotator, Mask.id)
            .where(Mask.independent.is_(True))
            .order_by(Mask.id)
        )
        versions: dict[tuple[int, int, int], list[_Version]] = {}
        imported: list[tuple[int, str | None, int]] = []
        reviewed: dict[int, str] = {}
        sent_back: dict[int, str] = {}
        with self._database.read() as session:
            for part in in_parts(images_read_twice(session)):
                reviewed |= _first_reviews(session, part)
                sent_back |= _first_sent_back(session, part)
                for image_id, task_id, remote_id, *version in session.execute(
                    query.where(Task.image_id.in_(part))
                ):
                    key = image_id, task_id, remote_id
                    versions.setdefault(key, []).append(_Version(*version))
                rows = session.execute(independent.where(Mask.image_id.in_(part)))
                imported += [
                    (image_id, annotator, mask_id) for image_id, annotator, mask_id in rows
                ]
        found: dict[int, dict[str | None, int]] = {}
        for (image_id, _, _), of_one in versions.items():
            until = reviewed.get(image_id, _NEVER)
            if of_one[0].created_at > until:
                until = sent_back.get(image_id, _NEVER)
            alone = _independent_version(of_one, until)
            if alone is not None and alone.mask_id is not None:
                # Two annotations by one person are one reading.
                found.setdefault(image_id, {})[alone.annotator] = alone.mask_id
        for image_id, annotator, mask_id in imported:
            found.setdefault(image_id, {}).setdefault(annotator, mask_id)
        return {i: list(of.values()) for i, of in found.items() if len(of) > 1}


class _Version(NamedTuple):
    """A version of an annotation."""

    created_at: str
    people: list[str]
    mask_id: int | None  #: None for a skip
    annotator: str | None  #: of the mask


def _images_of(task_ids: Collection[int]) -> Select[int]:
    return select(Task.image_id).where(Task.id.in_(task_ids))


#: Later than any time.
_NEVER = "~"


def _versions(session: Session, annotation: Annotation) -> Sequence[Annotation]:
    """Return all versions of an annotation."""
    query = select(Annotation).where(
        Annotation.task_id == annotation.task_id, Annotation.remote_id == annotation.remote_id
    )
    return session.scalars(query).all()


def _first_reviews(session: Session, image_ids: Sequence[int]) -> dict[int, str]:
    """Return when each of some images was first reviewed."""
    query = select(Mask.image_id, func.min(Review.created_at)).group_by(Mask.image_id)
    query = query.join(Review, Review.mask_id == Mask.id).where(Mask.image_id.in_(image_ids))
    return {image_id: at for image_id, at in session.execute(query)}


def _first_sent_back(session: Session, image_ids: Sequence[int]) -> dict[int, str]:
    """Return when each of some images was first sent back to its annotator, rejected or reopened."""
    query = select(Event.image_id, func.min(Event.at)).where(
        Event.image_id.in_(image_ids), Event.state_after == State.REWORK.value
    )
    rows = session.execute(query.group_by(Event.image_id))
    return {image_id: at for image_id, at in rows if image_id is not None}


def _independent_version(versions: Sequence[_Version], until: str) -> _Version | None:
    """Return the last version that one person made up to a time, before anybody else changed it."""
    last = None
    for version in versions:
        if len(version.people) > 1 or version.created_at > until:
            break
        last = version
    return last
