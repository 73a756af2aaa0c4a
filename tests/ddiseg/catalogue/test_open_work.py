"""Who has which images, as far as the last pull knows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from ddiseg.catalogue import Arm, Purpose, State
from ddiseg.catalogue.annotation_versions import unread_edits
from ddiseg.catalogue.open_work import OPEN, OpenWork
from ddiseg.catalogue.tables import (
    Annotation,
    Batch,
    BatchMember,
    EvaluatedImage,
    Image,
    Project,
    Review,
    Submission,
    Subset,
    SubsetMember,
    Task,
)
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.catalogue.desk import ANNOTATOR, REVIEWER, URL, Desk, NewDesk

pytestmark = pytest.mark.both_databases


@pytest.fixture
def connected(new_desk: NewDesk) -> NewDesk:
    """connected(2): a desk whose projects are on the server, with two images."""

    def make(images: int) -> Desk:
        desk = new_desk(images)
        for number, project_id in enumerate((desk.project_id, desk.review_project_id), 1):
            desk.catalogue.tasks.set_remote_id(project_id, number)
        return desk

    return make


def _hands(desk: Desk) -> OpenWork:
    return desk.catalogue.open_work.count(URL)


def _shown(desk: Desk) -> dict[int, int | None]:
    return desk.catalogue.open_work.shown(URL)


def test_hands__from_annotator_to_reviewer_and_back(connected: NewDesk) -> None:
    desk = connected(2)
    hand = _hands(desk)
    assert (hand.given, hand.with_annotators, _shown(desk)) == (True, 2, {1: None, 2: None})
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    hand = _hands(desk)
    assert (hand.with_annotators, hand.to_review, hand.with_reviewers) == (1, 1, 0)
    assert _shown(desk) == {2: None}
    desk.send_to_review()
    hand = _hands(desk)
    assert (hand.to_review, hand.with_reviewers) == (0, 1)
    desk.verdict(REVIEWER, "reject", "the rim")
    desk.pull_reviews()
    hand = _hands(desk)
    assert (hand.with_annotators, hand.with_reviewers, _shown(desk)) == (2, 0, {2: None})
    desk.submit(ANNOTATOR, "b", edit=number)
    desk.pull()
    assert _hands(desk).to_review == 1


def test_hands__a_mask_that_nobody_can_read_any_more_is_its_annotators(connected: NewDesk) -> None:
    desk = connected(1)
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.spoil(ANNOTATOR, edit=number)
    desk.pull()
    hand = _hands(desk)
    assert (hand.with_annotators, hand.to_review, hand.with_reviewers) == (1, 0, 0)


def test_hands__a_skipped_image_is_nobodys(connected: NewDesk) -> None:
    desk = connected(1)
    desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    assert _hands(desk).with_annotators == 0


def test_hands__a_task_that_was_deleted_on_the_server(connected: NewDesk) -> None:
    desk = connected(1)
    desk.catalogue.tasks.mark_deleted([desk.task()], "manager")
    assert _hands(desk) == OpenWork(False, 0, 0, 0, 0, free=1, free_of_batches={}, free_elsewhere=1)


def test_hands__of_another_server_are_empty(connected: NewDesk) -> None:
    assert not connected(1).catalogue.open_work.given("http://other.example")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_count__as_one_by_one(scale_workspace: Workspace, seed: int) -> None:
    catalogue = scale_workspace.catalogue
    with catalogue._database.write() as session:
        _disturb(session, random.Random(seed))
    with catalogue._database.read() as session:
        counted, shown, tested, of_subsets = _one_by_one(session, "embedded")
    queries = catalogue.open_work
    assert queries.count("embedded") == counted
    assert queries.shown("embedded") == shown
    assert queries.free_test_images("embedded") == tested
    assert queries.free_of_subsets("embedded") == of_subsets
    assert min(counted.with_annotators, counted.with_reviewers, counted.to_review, tested) > 0
    assert min(counted.left_out, max(of_subsets.values())) > 0


def _disturb(session: Session, rng: random.Random) -> None:
    """Change what a server says of tasks, at random: some are lost, unread, unsampled or answered twice."""

    def some(query: str, share: float) -> str:
        ids = [str(row[0]) for row in session.execute(text(query))]
        return ",".join(rng.sample(ids, round(share * len(ids)))) or "0"

    changes = [
        ("UPDATE tasks SET deleted_at = '2026' WHERE id IN ({})", "SELECT id FROM tasks", 0.2),
        ("UPDATE tasks SET remote_id = NULL WHERE id IN ({})", "SELECT id FROM tasks", 0.1),
        ("UPDATE tasks SET readers = 2 WHERE id IN ({})", "SELECT id FROM tasks", 0.3),
        (
            "UPDATE annotations SET deleted_at = '2026' WHERE id IN ({})",
            "SELECT id FROM annotations",
            0.1,
        ),
        (
            "INSERT INTO annotations (task_id, remote_id, updated_at, created_at, people, outcome, problem) "
            "SELECT task_id, remote_id, '2027', '2027', people, 'refused', 'holes' FROM annotations WHERE id IN ({})",
            "SELECT a.id FROM annotations a JOIN submissions s ON s.mask_id = a.mask_id",
            0.5,
        ),
        (
            "INSERT INTO submissions (image_id, mask_id) SELECT image_id, MAX(id) FROM masks WHERE image_id IN ({}) "
            "GROUP BY image_id",
            "SELECT id FROM images WHERE state = 'prelabelled'",
            0.1,
        ),
        (
            "UPDATE images SET state = 'submitted' WHERE id IN (SELECT image_id FROM submissions) AND id NOT IN ({})",
            "SELECT 0",
            0,
        ),
        (
            "INSERT INTO tasks (project_id, image_id, key, mask_id, arm, readers, width, height, created_at, remote_id) "
            "SELECT 2, image_id, 'new' || image_id, mask_id, CASE image_id % 2 WHEN 0 THEN 'unsampled' ELSE 'painted' "
            "END, 1, 1, 1, '2027', CASE image_id % 2 WHEN 0 THEN NULL ELSE image_id END FROM submissions WHERE image_id IN ({})",
            "SELECT image_id FROM submissions",
            0.6,
        ),
        (
            "INSERT INTO evaluated_images (event_id, image_id, mask_id, truth_hash) SELECT 1, image_id, MAX(id), '' "
            "FROM masks WHERE image_id IN ({}) GROUP BY image_id",
            "SELECT id FROM images WHERE state = 'prelabelled'",
            0.2,
        ),
        (
            "INSERT INTO batch_members (batch_id, image_id, position, random, reason) SELECT (SELECT MAX(id) FROM batches), "
            "id, 0, false, '' FROM images WHERE id IN ({}) AND id NOT IN (SELECT image_id FROM batch_members)",
            "SELECT id FROM images",
            0.3,
        ),
        (
            "INSERT INTO subset_members (subset_id, image_id) SELECT 1, id FROM images WHERE id IN ({}) "
            "AND id NOT IN (SELECT image_id FROM subset_members)",
            "SELECT id FROM images",
            0.2,
        ),
    ]
    for change, among, share in changes:
        session.execute(text(change.format(some(among, share))))


def _one_by_one(
    session: Session, server: str
) -> tuple[OpenWork, dict[int, int | None], int, dict[str, int]]:
    """Count as `WorkOnServer` does, by loading every row."""
    submitted = {r.image_id: r.mask_id for r in session.scalars(select(Submission))}
    unread = unread_edits(session, submitted.values())
    to_fix = {image_id for image_id, mask_id in submitted.items() if mask_id in unread}
    images = {image.id: image for image in session.scalars(select(Image))}
    given, with_annotators = set(), set()
    shown: dict[int, int | None] = {}
    query = select(Annotation.task_id, func.count(Annotation.remote_id.distinct()))
    rows = session.execute(
        query.where(Annotation.deleted_at.is_(None)).group_by(Annotation.task_id)
    )
    answers = {task_id: n for task_id, n in rows}
    for task in _tasks(session, server, Purpose.ANNOTATION):
        if task.remote_id is None:
            continue
        given.add(task.image_id)
        answered, state = answers.get(task.id, 0), images[task.image_id].state
        is_open = state != State.SKIPPED
        if state in (State.SUBMITTED, State.ACCEPTED):
            is_open = 0 < answered < task.readers
        if is_open or task.image_id in to_fix:
            with_annotators.add(task.image_id)
        if state == State.IN_LABELLING and not answered and task.arm != Arm.CONTROL:
            shown[task.image_id] = task.mask_id
    with_reviewers, left_out = set(), set()
    verdicts: dict[int, str] = {}
    for review in session.scalars(select(Review)):
        verdicts[review.mask_id] = max(review.created_at, verdicts.get(review.mask_id, ""))
    for task in _tasks(session, server, Purpose.REVIEW):
        mask_id = submitted.get(task.image_id)
        if mask_id is None or mask_id != task.mask_id:
            continue
        if task.created_at < verdicts.get(mask_id, ""):
            continue
        if task.arm == Arm.UNSAMPLED:
            left_out.add(task.image_id)
        elif task.remote_id is not None and task.comment is None:
            with_reviewers.add(task.image_id)
    free = {i.id for i in images.values() if i.state in OPEN and i.id not in given}
    members: dict[str, set[int]] = {}
    for batch in session.scalars(select(Batch).where(Batch.closed_at.is_(None)).order_by(Batch.id)):
        of_batch = select(BatchMember.image_id).where(BatchMember.batch_id == batch.id)
        members[batch.name] = free & set(session.scalars(of_batch))
    rest = free - set().union(*members.values())
    counted = OpenWork(
        given=bool(given),
        with_annotators=len(with_annotators),
        with_reviewers=len(with_reviewers - to_fix),
        left_out=len(left_out - with_reviewers - to_fix),
        to_review=len(submitted.keys() - with_reviewers - left_out - to_fix),
        free=len(free),
        free_of_batches={name: len(ids) for name, ids in members.items()},
        free_elsewhere=len(rest),
    )
    of_subsets = {
        subset.name: len(
            rest
            & set(
                session.scalars(
                    select(SubsetMember.image_id).where(SubsetMember.subset_id == subset.id)
                )
            )
        )
        for subset in session.scalars(select(Subset))
    }
    tested = rest & set(session.scalars(select(EvaluatedImage.image_id)))
    return counted, shown, len(tested), of_subsets


def _tasks(session: Session, server: str, purpose: Purpose) -> Iterator[Task]:
    query = select(Task).join(Project, Project.id == Task.project_id)
    on_server = Project.server == server, Project.purpose == purpose.value
    yield from session.scalars(query.where(*on_server, Task.deleted_at.is_(None)).order_by(Task.id))
