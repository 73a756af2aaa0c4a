"""Projects and tasks of a labelling server, and what is told of the work that came of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import (
    AnnotationPage,
    Arm,
    Catalogue,
    NewModelVersion,
    NewTask,
    Purpose,
)
from ddiseg.catalogue.masks import ACCEPT, FIXED, REJECT
from ddiseg.catalogue.tables import Mask
from ddiseg.outcomes import Outcome
from tests.ddiseg.catalogue.desk import ANNOTATOR, REVIEWER, SECOND, URL, Desk, NewDesk, drawn_by
from tests.ddiseg.rows import new_image

pytestmark = pytest.mark.both_databases


@pytest.fixture
def project(catalogue: Catalogue) -> int:
    """The id of an annotation project, beside the images #1 to #3."""
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in (1, 2, 3)], "tester")
    return catalogue.tasks.project(URL, Purpose.ANNOTATION).id


def _new(image: int, key: str | None = None, mask_id: int | None = None) -> NewTask:
    return NewTask(key or f"image {image}", image, mask_id, Arm.BARE, 8, 6)


def _state(catalogue: Catalogue, image: int = 1) -> str:
    assert catalogue.events.contradictions() == []
    return catalogue.images.find(f"#{image}").state


# Projects


def test_project__one_a_server_and_purpose(catalogue: Catalogue) -> None:
    labelling = catalogue.tasks
    first = labelling.project(URL, Purpose.ANNOTATION)
    assert labelling.project(URL, Purpose.ANNOTATION).key == first.key
    review = labelling.project(URL, Purpose.REVIEW)
    elsewhere = labelling.project("http://other.example", Purpose.ANNOTATION)
    assert len({first.id, review.id, elsewhere.id}) == 3
    assert len({first.key, review.key, elsewhere.key}) == 3


def test_set_remote_id__of_a_project(catalogue: Catalogue) -> None:
    labelling = catalogue.tasks
    project = labelling.project(URL, Purpose.ANNOTATION)
    assert project.remote_id is None
    labelling.set_remote_id(project.id, 12)
    assert labelling.project(URL, Purpose.ANNOTATION).remote_id == 12
    labelling.set_remote_id(project.id, None)
    assert labelling.project(URL, Purpose.ANNOTATION).remote_id is None


# Tasks


def test_plan__writes_tasks_and_one_event(catalogue: Catalogue, project: int) -> None:
    batch = [replace(_new(1), readers=2), replace(_new(2), arm=Arm.CONTROL)]
    catalogue.tasks.plan(project, batch, "manager", {"seed": 7})
    assert [
        (t.image_id, t.key, t.arm, t.readers, t.width, t.height, t.remote_id)
        for t in catalogue.tasks.tasks(project)
    ] == [(1, "image 1", "bare", 2, 8, 6, None), (2, "image 2", "control", 1, 8, 6, None)]
    event = catalogue.events.last("push")
    assert event is not None
    assert (event.actor, event.detail) == ("manager", {"n": 2, "seed": 7})
    assert _state(catalogue) == "new"  # nobody has it yet


def test_plan__what_is_there_stays_as_it_was_planned_first(
    catalogue: Catalogue, project: int
) -> None:
    catalogue.tasks.plan(project, [_new(1)], "manager", {})
    catalogue.tasks.sent({1: 101}, "manager", start=True)
    catalogue.tasks.plan(project, [replace(_new(1), arm=Arm.CONTROL)], "manager", {})
    [task] = catalogue.tasks.tasks(project)
    assert (task.arm, task.remote_id) == ("bare", 101)


def test_plan__what_a_spot_check_left_out_may_be_sampled_later(
    catalogue: Catalogue, project: int
) -> None:
    catalogue.masks.submit([drawn_by(ANNOTATOR, "a")])
    left_out = replace(_new(1, mask_id=1), arm=Arm.UNSAMPLED)
    catalogue.tasks.plan(project, [left_out], "manager", {})
    catalogue.tasks.plan(project, [replace(left_out, arm=Arm.PREDICTED)], "manager", {})
    [task] = catalogue.tasks.tasks(project)
    assert (task.arm, task.mask_id) == ("painted", 1)


def test_plan__the_same_key_in_another_project_is_another_task(
    catalogue: Catalogue, project: int
) -> None:
    other = catalogue.tasks.project(URL, Purpose.REVIEW).id
    for id_ in (project, other):
        catalogue.tasks.plan(id_, [_new(1)], "manager", {})
    assert [len(catalogue.tasks.tasks(id_)) for id_ in (project, other)] == [1, 1]


def test_sent__starts_the_images(catalogue: Catalogue, project: int) -> None:
    catalogue.tasks.plan(project, [_new(1), _new(2), _new(3)], "manager", {})
    catalogue.masks.submit([drawn_by(ANNOTATOR, "a", 2)])
    catalogue.tasks.sent({1: 101, 2: 102}, "manager", start=True)
    catalogue.tasks.sent({3: 103}, "manager", start=False)
    assert [t.remote_id for t in catalogue.tasks.tasks(project)] == [101, 102, 103]
    assert [_state(catalogue, n) for n in (1, 2, 3)] == ["in_labelling", "submitted", "new"]
    assert catalogue.events.of_image(1)[-1].detail == {"task": 101, "arm": "bare", "mask": None}


def test_sent__again_changes_nothing(catalogue: Catalogue, project: int) -> None:
    catalogue.tasks.plan(project, [_new(1)], "manager", {})
    for _ in range(2):
        catalogue.tasks.sent({1: 101}, "manager", start=True)
    assert [e.kind for e in catalogue.events.of_image(1)] == ["import", "start"]


def test_pending_and_numbers__by_what_the_server_is_known_to_have(
    catalogue: Catalogue, project: int
) -> None:
    labelling = catalogue.tasks
    catalogue.masks.submit([drawn_by(ANNOTATOR, "a", 3)])
    left_out = replace(_new(3, mask_id=1), arm=Arm.UNSAMPLED)
    labelling.plan(project, [_new(1), _new(2), left_out], "manager", {})
    other = labelling.project(URL, Purpose.REVIEW).id
    labelling.plan(other, [_new(1)], "manager", {})
    labelling.sent({1: 101, 4: 102}, "manager", start=False)
    assert [t.id for t in labelling.pending(project)] == [2]
    assert labelling.numbers(project) == {101: 1}
    assert {n: t.id for n, t in labelling.numbered(project, [101, 102, 999]).items()} == {101: 1}

    labelling.mark_deleted([1, 2], "manager")
    assert labelling.pending(project) == []
    assert labelling.numbers(project) == {}
    assert labelling.numbered(project, [101])[101].deleted_at is not None


def test_commented__from_the_rejection_until_the_comment_is_taken_away(desk: Desk) -> None:
    def commented() -> list[tuple[int, int]]:
        return [(t.id, i.id) for t, i, _ in desk.catalogue.tasks.commented(desk.project_id)]

    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    assert commented() == []
    desk.review(REVIEWER, REJECT, "rim too wide")
    assert commented() == [(desk.task(), 1)]  # it may have to show one
    desk.catalogue.tasks.update_task(desk.task(), comment="rim too wide")
    desk.submit(ANNOTATOR, "b", edit=number)
    desk.pull()
    assert commented() == [(desk.task(), 1)]  # it shows one
    desk.catalogue.tasks.update_task(desk.task(), comment=None)
    assert commented() == []
    desk.delete(number)
    desk.pull()
    assert desk.stands().state == "in_labelling"
    assert commented() == [(desk.task(), 1)]


def test_commented__reopened_until_the_skip_is_gone_from_the_server(desk: Desk) -> None:
    def commented() -> list[bool]:
        return [answered for _, _, answered in desk.catalogue.tasks.commented(desk.project_id)]

    number = desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    assert commented() == []
    desk.catalogue.images.reopen(1, "manager")
    assert commented() == [True]
    desk.catalogue.tasks.update_task(desk.task(), comment="please look at it again")
    painted = desk.submit(SECOND, "b")
    desk.pull()
    assert commented() == [False]  # it shows a comment that is to be taken away
    desk.delete(painted)
    desk.pull()
    assert commented() == [True]
    desk.delete(number)
    desk.pull()
    assert commented() == [False]


def test_numbered__after_a_server_was_set_up_anew_the_task_that_is_there(
    catalogue: Catalogue, project: int
) -> None:
    labelling = catalogue.tasks
    labelling.plan(project, [_new(1), _new(2)], "manager", {})
    labelling.sent({2: 101}, "manager", start=True)
    labelling.mark_deleted([2], "manager")
    labelling.sent({1: 101}, "manager", start=True)
    assert labelling.numbered(project, [101])[101].id == 1


def test_update_task(catalogue: Catalogue, project: int) -> None:
    catalogue.tasks.plan(project, [_new(1)], "manager", {})
    catalogue.tasks.update_task(1, comment="rim too wide", media="x.png")
    [task] = catalogue.tasks.tasks(project)
    assert (task.comment, task.media) == ("rim too wide", "x.png")


def test_mark_deleted__the_image_is_queued_and_its_task_planned_anew(
    catalogue: Catalogue, project: int
) -> None:
    labelling = catalogue.tasks
    labelling.plan(project, [_new(1), _new(2)], "manager", {})
    labelling.sent({1: 101, 2: 102}, "manager", start=True)
    labelling.update_task(1, comment="rim too wide", media="x.png")
    [outcome] = labelling.mark_deleted([1], "manager")
    assert (outcome.name, outcome.outcome) == ("000001.png", Outcome.REPAIRED)
    assert "'ddiseg label push' sends it again" in (outcome.note or "")
    assert labelling.mark_deleted([1], "manager") == []
    assert [t.id for t in labelling.tasks(project)] == [2]
    assert [t.id for t in labelling.tasks(project, deleted=True)] == [1, 2]
    assert [_state(catalogue, n) for n in (1, 2)] == ["queued", "in_labelling"]

    labelling.plan(project, [replace(_new(1), arm=Arm.CONTROL)], "manager", {})
    task = labelling.tasks(project)[0]
    assert (task.id, task.arm, task.remote_id, task.media, task.comment) == (
        1,
        "control",
        None,
        None,
        None,
    )
    labelling.sent({1: 201}, "manager", start=True)
    assert _state(catalogue) == "in_labelling"


@pytest.mark.parametrize("state", ["submitted", "accepted", "rework", "skipped"])
def test_mark_deleted__what_came_back_stands(desk: Desk, state: str) -> None:
    if state == "skipped":
        desk.skip(ANNOTATOR, "blurry")
    else:
        desk.submit(ANNOTATOR, "a")
    desk.pull()
    if state in ("accepted", "rework"):
        desk.review(REVIEWER, ACCEPT if state == "accepted" else REJECT)
    before = desk.stands()
    assert before.state == state
    desk.catalogue.tasks.mark_deleted([desk.task()], "manager")
    assert desk.stands() == before


def test_mark_deleted__a_review_task_leaves_the_annotators_alone(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.send_to_review()
    desk.delete(number)
    desk.pull()
    [task] = desk.catalogue.tasks.tasks(desk.review_project_id)
    [outcome] = desk.catalogue.tasks.mark_deleted([task.id], "manager")
    assert "'ddiseg review push' sends it again" in (outcome.note or "")
    assert desk.stands().state == "in_labelling"


def test_mark_deleted__refused_annotations_of_the_task_are_no_longer_listed(desk: Desk) -> None:
    desk.spoil(ANNOTATOR)
    desk.pull()
    assert len(desk.catalogue.tasks.problems(desk.project_id)) == 1
    desk.catalogue.tasks.mark_deleted([desk.task()], "manager")
    assert desk.catalogue.tasks.problems(desk.project_id) == []


@pytest.mark.slow
def test_receive__for_a_task_that_was_planned_anew(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.review(REVIEWER, REJECT)
    desk.catalogue.tasks.mark_deleted([desk.task()], "manager")
    desk.catalogue.tasks.plan(desk.project_id, [_new(1)], "manager", {})
    desk.catalogue.tasks.sent({desk.task(): 900}, "manager", start=True)
    desk.delete(number)
    desk.submit(ANNOTATOR, "b")
    desk.pull()
    assert desk.stands().state == "submitted"
    assert desk.stands().in_review == "annotator-1 b"
    assert desk.stands().masks == ["annotator-1 a", "annotator-1 b"]


# What is told of the work


def test_problems__only_where_the_newest_version_is_refused(desk: Desk) -> None:
    first = desk.submit(ANNOTATOR, "a")
    second = desk.spoil(SECOND)
    desk.pull()
    desk.spoil(ANNOTATOR, edit=first)
    desk.submit(SECOND, "b", edit=second)
    desk.pull()
    assert [a.remote_id for _, a in desk.catalogue.tasks.problems(desk.project_id)] == [first]
    assert desk.catalogue.tasks.problems(desk.review_project_id) == []
    desk.delete(first)
    desk.pull()
    assert desk.catalogue.tasks.problems(desk.project_id) == []


def test_seen__outcome_of_each_version(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.spoil(ANNOTATOR, edit=number)
    desk.pull()
    times = ["2026-01-01T00:00:01.000000Z", "2026-01-01T00:00:02.000000Z"]
    assert desk.catalogue.tasks.seen([desk.task()]) == {
        (desk.task(), number, times[0]): "mask",
        (desk.task(), number, times[1]): "refused",
    }
    assert desk.catalogue.tasks.seen([desk.task() + 1]) == {}


def _read(desk: Desk) -> dict[int, list[str]]:
    return {
        i: [f"{m.annotator} {m.content_hash[0]}" for m in masks]
        for i, masks in desk.catalogue.tasks.readings().items()
    }


def test_readings__newest_of_each_person_where_two_have_read(new_desk: NewDesk) -> None:
    desk = new_desk(3)
    number = desk.submit(ANNOTATOR, "a")
    desk.submit(SECOND, "b")
    desk.submit(ANNOTATOR, "a", image=2)
    desk.submit(ANNOTATOR, "b", image=2)
    desk.submit(ANNOTATOR, "a", image=3)
    desk.skip(SECOND, "blurry", image=3)
    desk.pull()
    desk.submit(ANNOTATOR, "c", edit=number)
    desk.pull()
    assert _read(desk) == {1: ["annotator-1 c", "annotator-2 b"]}
    desk.catalogue.close()


@pytest.mark.parametrize("verdict", [ACCEPT, REJECT])
def test_readings__what_was_drawn_after_the_first_review_is_not_blind(
    desk: Desk, verdict: str
) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.submit(SECOND, "b")
    desk.pull()
    desk.review(REVIEWER, verdict, "too wide")
    desk.submit(ANNOTATOR, "c", edit=number)
    desk.pull()
    assert desk.stands().in_review == "annotator-1 c"
    assert _read(desk) == {1: ["annotator-1 a", "annotator-2 b"]}


def test_readings__begun_after_a_review_that_nobody_was_told_of(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.review(REVIEWER, ACCEPT)
    desk.submit(SECOND, "b")
    desk.pull()
    assert _read(desk) == {1: ["annotator-1 a", "annotator-2 b"]}
    desk.catalogue.images.reopen(1, "manager")
    desk.submit("annotator-3", "c")
    desk.pull()
    assert _read(desk) == {1: ["annotator-1 a", "annotator-2 b"]}


def test_readings__who_changes_another_persons_annotation_has_not_read_it(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.submit(SECOND, "b")
    desk.pull()
    for person, pixels in (("annotator-3", "c"), (ANNOTATOR, "d")):
        desk.submit(person, pixels, edit=number)
        desk.pull()
        assert _read(desk) == {1: ["annotator-1 a", "annotator-2 b"]}


def test_readings__changed_by_another_person_before_it_was_first_seen(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.submit("annotator-3", "c", edit=number)
    desk.submit(SECOND, "b")
    desk.pull()
    assert _read(desk) == {}


def test_readings__reviewers_are_no_readers(desk: Desk, wording: SnapshotAssertion) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.review(REVIEWER, FIXED, pixels="f")
    assert desk.stands().accepted == wording
    assert _read(desk) == {}


def test_readings__what_was_deleted_or_turned_into_a_skip_does_not_count(desk: Desk) -> None:
    numbers = [desk.submit(person, "a") for person in (ANNOTATOR, SECOND, "annotator-3")]
    desk.pull()
    desk.spoil(ANNOTATOR, edit=numbers[0])  # what can't be understood changes nothing
    desk.pull()
    assert _read(desk) == {1: ["annotator-1 a", "annotator-2 a", "annotator-3 a"]}
    desk.skip(SECOND, "blurry", edit=numbers[1])
    desk.pull()
    assert _read(desk) == {1: ["annotator-1 a", "annotator-3 a"]}
    desk.delete(numbers[2])
    desk.pull()
    assert _read(desk) == {}


@pytest.mark.slow
def test_readings__two_servers_that_number_alike(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.pull()
    elsewhere = desk.catalogue.tasks.project("http://other.example", Purpose.ANNOTATION).id
    desk.catalogue.tasks.plan(elsewhere, [_new(1)], "manager", {})
    [task] = desk.catalogue.tasks.tasks(elsewhere)
    theirs = replace(
        desk.page.received[0],
        task_id=task.id,
        people=(SECOND,),
        mask=drawn_by(SECOND, "b"),
    )
    desk.receive(elsewhere, AnnotationPage([theirs], {task.id: {theirs.remote_id}}))
    assert _read(desk) == {1: ["annotator-1 a", "annotator-2 b"]}


@pytest.fixture
def painted(desk: Desk) -> Mask:
    """A prediction for image #1, painted in its task."""
    model = desk.catalogue.models.add(NewModelVersion("f", "unet", "b", {}, [], {}, "1.0"), "t")
    prediction = replace(drawn_by("", "p"), annotator=None, model_version_id=model.id)
    desk.catalogue.masks.add_predictions([prediction])
    [mask] = desk.catalogue.masks.of_image(1)
    desk.catalogue.tasks.update_task(desk.task(), mask_id=mask.id, arm=Arm.PREDICTED)
    return mask


def test_accepted_work__of_an_accepted_mask(desk: Desk, painted: Mask) -> None:
    desk.submit(ANNOTATOR, "a", lead_time=30.0)
    desk.pull()
    assert desk.catalogue.accepted_work.accepted() == []
    desk.review(REVIEWER, ACCEPT)
    [work] = desk.catalogue.accepted_work.accepted()
    assert (work.image_id, work.arm, work.seconds) == (1, Arm.PREDICTED, 30.0)
    assert work.prediction_id == painted.id
    assert work.drawn_id == work.mask_id


def test_accepted_work__of_a_fix_tells_what_the_annotator_drew(desk: Desk, painted: Mask) -> None:
    desk.submit(ANNOTATOR, "a", lead_time=30.0)
    desk.pull()
    desk.review(REVIEWER, FIXED, pixels="f")
    [work] = desk.catalogue.accepted_work.accepted()
    masks = desk.catalogue.masks.get([work.drawn_id, work.mask_id])
    assert masks[work.drawn_id].annotator == ANNOTATOR
    assert masks[work.mask_id].annotator == REVIEWER
    assert work.seconds == 30.0


def test_accepted_work__of_an_edit_by_another_person_tells_the_newer_one(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a", lead_time=30.0)
    desk.pull()
    desk.submit(SECOND, "b", edit=number, lead_time=45.0)
    desk.pull()
    desk.review(REVIEWER, ACCEPT)
    [work] = desk.catalogue.accepted_work.accepted()
    assert desk.catalogue.masks.get([work.drawn_id])[work.drawn_id].annotator == SECOND
    assert (work.drawn_id, work.seconds, work.prediction_id) == (work.mask_id, 45.0, None)


def test_accepted_work__where_a_persons_mask_was_painted_there_is_no_prediction(
    desk: Desk,
) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.catalogue.tasks.update_task(desk.task(), mask_id=1, arm=Arm.PREDICTED)
    desk.review(REVIEWER, ACCEPT)
    [work] = desk.catalogue.accepted_work.accepted()
    assert (work.arm, work.prediction_id) == (Arm.PREDICTED, None)


@pytest.mark.slow
def test_accepted_work__after_reopening_and_accepting_again_is_of_the_last_time(
    desk: Desk,
) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.review(REVIEWER, ACCEPT)
    desk.submit(ANNOTATOR, "b", edit=number)
    desk.pull()
    assert desk.catalogue.accepted_work.accepted() == []
    desk.review(REVIEWER, ACCEPT)
    [work] = desk.catalogue.accepted_work.accepted()
    assert desk.catalogue.masks.get([work.mask_id])[work.mask_id].content_hash[0] == "b"


def test_accepted_work__of_masks_from_elsewhere_is_not_told(desk: Desk) -> None:
    desk.catalogue.masks.submit([drawn_by("annotator-3", "x")], REVIEWER)
    desk.submit(ANNOTATOR, "a")
    desk.pull()
    assert desk.stands().accepted == "annotator-3 x"
    assert desk.catalogue.accepted_work.accepted() == []


def test_receive__page_is_kept_with_its_watermark(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.pull()
    with desk.database.read() as session:
        watermarks = dict(session.execute(text("SELECT purpose, watermark FROM projects")).all())
    assert watermarks == {"annotation": "2026-01-01T00:00:01.000000Z", "review": None}
