"""Open work: how many images annotators and reviewers have, as of the last pull.

Everything is counted by the database: a catalogue may hold millions of images, and most of them are
nobody's work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, exists, func, or_, select, union
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from ddiseg.catalogue.annotation_versions import unread_edits
from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.tables import (
    Acceptance,
    Annotation,
    Arm,
    Batch,
    BatchMember,
    EvaluatedImage,
    Image,
    Mask,
    Project,
    Purpose,
    Review,
    Submission,
    Subset,
    SubsetMember,
    Task,
)

#: States in which an image can be given to annotators.
OPEN = (State.NEW, State.QUEUED, State.PRELABELLED, State.IN_LABELLING, State.REWORK)


@dataclass(frozen=True)
class OpenWork:
    """Numbers of images, by who has to work on them."""

    given: bool  #: whether any image has an annotation task on the server
    with_annotators: int  #: images that an annotator has to work on
    with_reviewers: int  #: submitted, with a reviewer
    left_out: int  #: submitted, and left out by a spot check
    to_review: int  #: submitted, not given to a reviewer yet
    free: int  #: open images without an annotation task
    free_of_batches: dict[str, int]  #: of them, those of each open batch, by its name
    free_elsewhere: int  #: of them, those of no open batch


@dataclass(frozen=True)
class InHand:
    """Numbers of the open images in people's hands: with an annotation task, or of an open batch."""

    images: int
    predicted: int  #: of them, those with a prediction by the model version that was asked for


class WorkOnServer(Repository):
    """The work that people have on a labelling server: a team's URL, or "embedded"."""

    def count(self, server: str) -> OpenWork:
        """Return how many images annotators and reviewers have, and how many nobody has."""
        with self._database.read() as session:
            return _Reader(session, server).count()

    def given(self, server: str) -> bool:
        """Return whether any image has an annotation task on the server."""
        with self._database.read() as session:
            return _Reader(session, server).any_given()

    def in_hand(self, server: str, model_version_id: int | None = None) -> InHand:
        """Count the open images that have an annotation task, sent or planned, or are in an open batch."""
        with self._database.read() as session:
            hand = _Reader(session, server).in_hand().subquery()
            by_version = and_(
                Mask.image_id == hand.c.image_id, Mask.model_version_id == model_version_id
            )
            query = select(func.count(hand.c.image_id), func.count(Mask.id)).join_from(
                hand, Mask, by_version, isouter=True
            )
            return InHand(*session.execute(query).one())

    def count_planned(self, server: str) -> int:
        """Count the open images that have an annotation task, sent or planned."""
        with self._database.read() as session:
            tasks = _Reader(session, server).planned().distinct().subquery()
            return session.scalar(select(func.count()).select_from(tasks)) or 0

    def unplanned_of_batches(self, server: str) -> list[tuple[str, str, int]]:
        """Return name, origin and number of images without an annotation task of each open batch.

        Only open images are counted, and only batches with some are returned, the oldest first.
        """
        with self._database.read() as session:
            members = _Reader(session, server).unplanned_members().subquery()
            query = (
                select(Batch.name, Batch.origin, func.count())
                .join_from(members, Batch, Batch.id == members.c.batch_id)
                .group_by(Batch.id, Batch.name, Batch.origin)
                .order_by(Batch.id)
            )
            return [(name, origin, n) for name, origin, n in session.execute(query)]

    def free_test_images(self, server: str) -> int:
        """Count free images of no open batch that were compared with a true mask."""
        member = exists().where(_of_open_batch(), BatchMember.image_id == EvaluatedImage.image_id)
        with self._database.read() as session:
            free = _Reader(session, server).free(EvaluatedImage.image_id)
            query = select(func.count(EvaluatedImage.image_id.distinct())).where(*free, ~member)
            return session.scalar(query) or 0

    def free_of_subsets(self, server: str) -> dict[str, int]:
        """Count the free images of no open batch in each subset, by its name."""
        member = exists().where(_of_open_batch(), BatchMember.image_id == SubsetMember.image_id)
        query = (
            select(Subset.name, func.count(SubsetMember.image_id))
            .join(SubsetMember, SubsetMember.subset_id == Subset.id)
            .group_by(Subset.name)
        )
        with self._database.read() as session:
            free = _Reader(session, server).free(SubsetMember.image_id)
            found = {name: n for name, n in session.execute(query.where(*free, ~member))}
            return {name: found.get(name, 0) for name in session.scalars(_SUBSETS)}

    def shown(self, server: str) -> dict[int, int | None]:
        """Return the mask that is shown, by image id, of images that annotators have not started."""
        answered = exists().where(Annotation.task_id == Task.id, Annotation.deleted_at.is_(None))
        query = (
            select(Task.image_id, Task.mask_id)
            .join(Image, Image.id == Task.image_id)
            .where(Image.state == State.IN_LABELLING.value, Task.arm != Arm.CONTROL.value)
        )
        with self._database.read() as session:
            given = _Reader(session, server).given()
            rows = session.execute(query.where(given, ~answered).order_by(Task.id))
            return {image_id: mask_id for image_id, mask_id in rows}


_SUBSETS = select(Subset.name).order_by(Subset.name)


class _Reader:
    """What is asked of a server's two projects, in one transaction."""

    def __init__(self, session: Session, server: str) -> None:
        self._session = session
        query = select(Project.purpose, Project.id).where(
            Project.server == server, Project.remote_id.is_not(None)
        )
        projects = {purpose: number for purpose, number in session.execute(query)}
        self._annotation = projects.get(Purpose.ANNOTATION, _NO_PROJECT)
        self._review = projects.get(Purpose.REVIEW, _NO_PROJECT)

    def count(self) -> OpenWork:
        submitted = {i: mask for i, mask in self._session.execute(_SUBMITTED)}
        unread = unread_edits(self._session, submitted.values())
        to_fix = {image_id for image_id, mask_id in submitted.items() if mask_id in unread}
        with_reviewers, left_out = self._in_review()
        started = self._count_open()
        free, members = self._count_images() - started, self._free_members()
        return OpenWork(
            given=self.any_given(),
            with_annotators=started + len(self._need_readers() | self._given_of(to_fix)),
            with_reviewers=len(with_reviewers - to_fix),
            left_out=len(left_out - with_reviewers - to_fix),
            to_review=len(submitted.keys() - with_reviewers - left_out - to_fix),
            free=free,
            free_of_batches={name: len(ids) for name, ids in members.items()},
            free_elsewhere=free - len(set().union(*members.values())),
        )

    def any_given(self) -> bool:
        return self._session.scalar(select(Task.id).where(self.given()).limit(1)) is not None

    def given(self, task: type[Task] = Task) -> ColumnElement[bool]:
        """Return the condition that an annotation task is on the server."""
        return and_(
            task.project_id == self._annotation,
            task.remote_id.is_not(None),
            task.deleted_at.is_(None),
        )

    def free(self, image_id: InstrumentedAttribute[int]) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions that an image is open and has no annotation task on the server."""
        task, image = aliased(Task), aliased(Image)
        return (
            ~exists().where(task.image_id == image_id, self.given(task)),
            exists().where(image.id == image_id, image.state.in_(OPEN)),
        )

    def _count_images(self) -> int:
        """Count the open images."""
        query = select(func.count(Image.id)).where(Image.state.in_(OPEN))
        return self._session.scalar(query) or 0

    def _count_open(self) -> int:
        """Count the open images that have an annotation task."""
        query = select(func.count(Task.image_id.distinct()))
        return self._session.scalar(query.where(self.given(), *_open(Task.image_id))) or 0

    def planned(self) -> Select[int]:
        """Return the query for the ids of open images with an annotation task, sent or planned."""
        return select(Task.image_id).where(self._is_planned(Task), *_open(Task.image_id))

    def unplanned_members(self) -> Select[int, int]:
        """Return the query for batch and image id of the open images of open batches without a task."""
        task = aliased(Task)
        return (
            select(BatchMember.batch_id, BatchMember.image_id)
            .join(Batch, _of_open_batch())
            .where(
                ~exists().where(task.image_id == BatchMember.image_id, self._is_planned(task)),
                *_open(BatchMember.image_id),
            )
        )

    def in_hand(self) -> CompoundSelect[int]:
        """Return the query for the ids of the images in people's hands, each once."""
        members = self.unplanned_members().with_only_columns(BatchMember.image_id)
        return union(self.planned(), members)

    def _is_planned(self, task: type[Task]) -> ColumnElement[bool]:
        return and_(task.project_id == self._annotation, task.deleted_at.is_(None))

    def _need_readers(self) -> set[int]:
        """Return the ids of submitted and accepted images with answers of some but not all readers."""
        answers = (
            select(func.count(Annotation.remote_id.distinct()))
            .where(Annotation.task_id == Task.id, Annotation.deleted_at.is_(None))
            .scalar_subquery()
        )
        query = select(Task.image_id).where(
            self.given(),
            Task.readers > 1,
            or_(
                exists().where(Acceptance.image_id == Task.image_id),
                exists().where(Submission.image_id == Task.image_id),
            ),
            answers.between(1, Task.readers - 1),
        )
        return set(self._session.scalars(query))

    def _given_of(self, image_ids: Iterable[int]) -> set[int]:
        """Return those of a few images that have an annotation task."""
        query = select(Task.image_id).where(self.given(), Task.image_id.in_([*image_ids]))
        return set(self._session.scalars(query))

    def _in_review(self) -> tuple[set[int], set[int]]:
        """Return the submitted images that a reviewer has, and those that a spot check left out.

        A mask gets a new task each time that it waits for review; one with a comment is not offered.
        """
        reviewed = (
            select(func.max(Review.created_at))
            .where(Review.mask_id == Submission.mask_id)
            .scalar_subquery()
        )
        task = and_(
            Task.image_id == Submission.image_id,
            Task.mask_id == Submission.mask_id,
            Task.project_id == self._review,
            Task.deleted_at.is_(None),
            Task.created_at >= func.coalesce(reviewed, ""),
        )
        # An outer join: a database that begins with the tasks looks at all that were ever reviewed.
        query = select(Submission.image_id, Task.arm, Task.remote_id, Task.comment).join(
            Task, task, isouter=True
        )
        with_reviewers, left_out = set(), set()
        for image_id, arm, remote_id, comment in self._session.execute(query):
            if arm == Arm.UNSAMPLED:
                left_out.add(image_id)
            elif remote_id is not None and comment is None:
                with_reviewers.add(image_id)
        return with_reviewers, left_out

    def _free_members(self) -> dict[str, set[int]]:
        """Return the ids of the free images of each open batch, by its name."""
        open_batches = select(Batch.id, Batch.name).where(Batch.closed_at.is_(None))
        names = {
            number: name for number, name in self._session.execute(open_batches.order_by(Batch.id))
        }
        query = select(BatchMember.batch_id, BatchMember.image_id).where(
            BatchMember.batch_id.in_(names), *self.free(BatchMember.image_id)
        )
        found: dict[str, set[int]] = {name: set() for name in names.values()}
        for batch_id, image_id in self._session.execute(query):
            found[names[batch_id]].add(image_id)
        return found


#: No project has this number.
_NO_PROJECT = -1

_SUBMITTED: Select[int, int] = select(Submission.image_id, Submission.mask_id)


def _open(image_id: InstrumentedAttribute[int]) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that an image is open.

    An image that is not open has a row among the acceptances or submissions, or is skipped: small
    tables, while the rows of images are large.
    """
    image = aliased(Image)
    return (
        ~exists().where(Acceptance.image_id == image_id),
        ~exists().where(Submission.image_id == image_id),
        ~exists().where(image.id == image_id, image.state == State.SKIPPED.value),
    )


def _of_open_batch() -> ColumnElement[bool]:
    return and_(BatchMember.batch_id == Batch.id, Batch.closed_at.is_(None))
