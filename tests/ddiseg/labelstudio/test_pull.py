"""Work brought back: every version of every annotation once, whatever people or machines do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ddiseg.catalogue import REASON_MISSING, Arm, NewImage, NewTask, Page, Purpose
from ddiseg.catalogue.models import Image
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio import pull as pulling
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.pull import Pulled, pull
from ddiseg.outcomes import FileOutcome
from ddiseg.workspace import Workspace
from tests.ddiseg.labelstudio.studio import (
    ANNOTATOR,
    REVIEWER,
    SECOND,
    Studio,
    box,
    chosen,
    skin_and_lesion,
    stroke,
    told,
)
from tests.fake_label_studio import (
    Fault,
    cut,
    done_then_cut,
    garbage,
    html,
    meanwhile,
    slow,
    status,
    truncated,
)

ADDED, UNCHANGED, REPAIRED, REFUSED = "added", "unchanged", "repaired", "refused"
INK = box(slice(2, 4), slice(2, 5))
LESION = [stroke("lesion", box(slice(2), slice(3)))]
SMALLER = [stroke("lesion", box(slice(2), slice(2)))]


def outcomes(done: Pulled) -> list[str]:
    return [outcome for _, outcome in told(done.outcomes)]


def notes(found: Sequence[FileOutcome]) -> list[str | None]:
    return [o.note for o in found]


def versions(studio: Studio) -> list[tuple[int, str]]:
    """Annotation number and outcome of all versions that are stored."""
    return [(row["remote_id"], row["outcome"]) for row in studio.rows("annotations")]


@pytest.fixture
def images(studio: Studio) -> list[Image]:
    """Three images in the hands of annotators, as tasks 1 to 3, all painted."""
    images = studio.add_images(3)
    studio.predict(images)
    studio.push()
    return images


# Masks and skips


def test_pull__masks_pixel_for_pixel_with_who_and_how_long(
    studio: Studio, images: list[Image]
) -> None:
    lesion, skin = studio.opened(2)
    stroke_over = stroke("marker", INK)
    studio.submit_unchanged(1, lead_time=12.5)
    studio.submit(2, [lesion, skin, stroke_over], SECOND, lead_time=60.0)
    done = studio.pull()
    assert told(done.outcomes) == [("1.png", ADDED), ("2.png", ADDED)]
    assert done.problems == []
    edited = skin_and_lesion(12)
    edited[INK] = 2
    np.testing.assert_array_equal(studio.drawn(images[0])[0], skin_and_lesion(12))
    np.testing.assert_array_equal(studio.drawn(images[1])[0], edited)
    predicted = studio.catalogue.masks.newest_predictions()
    for image, person in zip(images, (ANNOTATOR, SECOND), strict=False):
        mask = studio.in_review(image)
        assert (mask.annotator, mask.parent_id) == (person, predicted[image.id].id)
        assert mask.origin == f"{studio.link(image.id)} annotation {image.id}"
    [first, second] = studio.rows("annotations")
    assert (first["lead_time"], first["changed"], first["holes"]) == (12.5, 0, 0)
    assert (second["lead_time"], second["changed"], second["conflicts"]) == (60.0, 6, 0)
    assert studio.states() == {"submitted": 2, "in_labelling": 1}
    studio.check(all_pulled=True)


def test_pull__again_finds_nothing_new(studio: Studio, images: list[Image]) -> None:
    studio.submit_unchanged(1)
    studio.skip(2, "blurry")
    studio.pull()
    rows = [studio.rows(table) for table in ("annotations", "masks", "skips", "events")]
    assert outcomes(studio.pull()) == []
    assert outcomes(studio.pull(full=True)) == []
    assert [studio.rows(t) for t in ("annotations", "masks", "skips", "events")] == rows


def test_pull__strokes_only(studio: Studio) -> None:
    [image] = studio.add_images()
    studio.push()
    studio.submit(1, LESION)
    studio.pull()
    np.testing.assert_array_equal(studio.drawn(image)[0], box(slice(2), slice(3)).astype(np.uint8))
    studio.check(all_pulled=True)


def test_pull__a_class_that_no_pixel_of_the_prediction_has(
    studio: Studio, images: list[Image]
) -> None:
    """Somebody selects ruler, paints a stroke with it and erases all of it again."""
    empty = stroke("ruler", np.zeros_like(INK))
    studio.submit(1, [*studio.opened(1), empty])
    studio.submit(2, [*studio.opened(2), stroke("ruler", INK)])
    studio.pull()
    np.testing.assert_array_equal(studio.drawn(images[0])[0], skin_and_lesion(12))
    assert (studio.drawn(images[1])[0][INK] == 3).all()
    studio.check(all_pulled=True)


def test_pull__skips(studio: Studio) -> None:
    images = studio.add_images(4)
    studio.push()
    studio.skip(1, "blurry", "the camera moved")
    studio.skip(2)
    studio.skip(3, "other", "a tattoo", by=SECOND)
    studio.skip(4, "other")
    done = studio.pull()
    assert outcomes(done) == [ADDED] * 4
    assert notes(done.outcomes)[1] == f"skipped without a reason: ask {ANNOTATOR}"
    assert [(s.reason, s.note, s.annotator) for s in studio.catalogue.images.skips()] == [
        ("blurry", "the camera moved", ANNOTATOR),
        (REASON_MISSING, None, ANNOTATOR),
        ("other", "a tattoo", SECOND),
        ("other", None, ANNOTATOR),
    ]
    assert studio.states() == {"skipped": 4}
    assert [studio.drawn(image) for image in images] == [[]] * 4
    studio.check(all_pulled=True)


def test_pull__a_reason_given_later(studio: Studio, images: list[Image]) -> None:
    number = studio.skip(1)
    studio.pull()
    studio.server.edit(number, result=[*studio.opened(1), chosen("skip_reason", "scalp")])
    studio.pull()
    [skip] = studio.catalogue.images.skips()
    assert skip.reason == "scalp"
    studio.check(all_pulled=True)


# What can't be understood


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([], "submitted with nothing painted"),
        ([*LESION, chosen("skip_reason", "blurry")], "submitted with the skip reason 'blurry'"),
        ([stroke("lesion", box(slice(2), slice(2), (16, 12)))], "it can't lie over it"),
        ([stroke("scar", INK)], "scar"),
    ],
)
def test_problem__everything_else_is_pulled(
    studio: Studio, images: list[Image], result: list[dict[str, Any]], says: str
) -> None:
    number = studio.submit(1, result)
    studio.submit_unchanged(2)
    done = studio.pull()
    assert told(done.outcomes) == [("1.png", REFUSED), ("2.png", ADDED)]
    [note, _] = notes(done.outcomes)
    assert note is not None
    assert says in note
    assert note.startswith("1.png: ")
    assert note.endswith(f"; see {studio.link(1)}")
    assert studio.state(images[0]) == "in_labelling"
    assert studio.drawn(images[0]) == []
    studio.check(all_pulled=True)
    again = studio.pull()
    assert outcomes(again) == [UNCHANGED]
    assert again.problems == [note]
    studio.server.edit(number, result=LESION)
    mended = studio.pull()
    assert outcomes(mended) == [ADDED]
    assert mended.problems == []
    assert studio.state(images[0]) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.parametrize("spoilt", ["corrupt", "truncated"])
def test_problem__spoilt_rle(studio: Studio, images: list[Image], spoilt: str) -> None:
    rle = LESION[0]["value"]["rle"]
    wrong = [*rle[:4], 255, *rle[5:]] if spoilt == "corrupt" else rle[: len(rle) // 2]
    value = {**LESION[0]["value"], "rle": wrong}
    studio.submit(1, [*studio.opened(1), {**LESION[0], "value": value}])
    for task in (2, 3):
        studio.submit_unchanged(task)
    done = studio.pull()
    assert outcomes(done) == [REFUSED, ADDED, ADDED]
    assert "brush RLE" in str(notes(done.outcomes)[0])
    assert str(notes(done.outcomes)[0]).endswith(f"; see {studio.link(1)}")
    studio.check(all_pulled=True)


def rename_lesion(studio: Studio, old: str, new: str) -> None:
    settings = studio.server.projects[studio.number()].settings
    renamed = settings["label_config"].replace(f'value="{old}"', f'value="{new}"')
    assert renamed != settings["label_config"]
    settings["label_config"] = renamed


def test_label_renamed__its_regions_wait_until_it_is_put_back(
    studio: Studio, images: list[Image]
) -> None:
    rename_lesion(studio, "lesion", "Melanoma")
    studio.submit(1, [stroke("Melanoma", INK)])
    drawn_before = studio.submit_unchanged(2)
    done = studio.pull()
    assert told(done.outcomes) == [("1.png", REFUSED), ("2.png", ADDED)]
    [problem] = [note for note in notes(done.outcomes) if note]
    assert "Melanoma" in problem
    assert problem.endswith(f"; see {studio.link(1)}")
    with pytest.raises(InputError, match=r"has label 'Melanoma' of mask.*put the old name back"):
        studio.push()
    rename_lesion(studio, "Melanoma", "lesion")
    # Label Studio's own way to put a label back in results that are there.
    studio.server.annotations[1].result = [stroke("lesion", INK)]
    assert outcomes(studio.pull(full=True)) == [ADDED]
    assert versions(studio) == [(1, "mask"), (drawn_before, "mask")]
    assert studio.state(images[0]) == "submitted"
    assert outcomes_of_push(studio) == [UNCHANGED] * 3
    studio.check(all_pulled=True)


def outcomes_of_push(studio: Studio) -> list[str]:
    return [outcome for _, outcome in told(studio.push().outcomes)]


# People edit, delete and meet at one task


def test_edited__between_two_pulls(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.server.edit(number, result=SMALLER)
    assert outcomes(studio.pull()) == [ADDED]
    assert len(studio.drawn(images[0])) == 2
    waiting = studio.workspace.mask(studio.in_review(images[0]))
    np.testing.assert_array_equal(waiting, box(slice(2), slice(2)).astype(np.uint8))
    assert versions(studio) == [(number, "mask")] * 2
    studio.check(all_pulled=True)


def test_edited__by_somebody_else(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.server.edit(number, result=SMALLER, user=studio.people[SECOND])
    studio.pull()
    mask = studio.in_review(images[0])
    assert mask.annotator == SECOND
    assert studio.catalogue.masks.people_behind([mask.id])[mask.id] == [ANNOTATOR, SECOND]
    studio.check(all_pulled=True)


def test_edited__twice_before_one_pull(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, SMALLER)
    studio.server.edit(number, result=[])
    studio.server.edit(number, result=LESION)
    assert outcomes(studio.pull()) == [ADDED]
    assert versions(studio) == [(number, "mask")]
    studio.check(all_pulled=True)


def test_edited__after_acceptance_reopens(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.catalogue.masks.review(studio.in_review(images[0]).id, REVIEWER, "accept")
    studio.server.edit(number, result=SMALLER)
    studio.pull()
    assert studio.state(images[0]) == "submitted"
    assert studio.catalogue.masks.accepted() == {}
    studio.check(all_pulled=True)


def test_skipped_then_painted__and_back(studio: Studio, images: list[Image]) -> None:
    number = studio.skip(1, "blurry")
    studio.pull()
    studio.server.edit(number, result=LESION, was_cancelled=False)
    studio.pull()
    assert studio.state(images[0]) == "submitted"
    studio.server.edit(number, result=[chosen("skip_reason", "scalp")], was_cancelled=True)
    studio.pull()
    assert studio.state(images[0]) == "skipped"
    assert [s.reason for s in studio.catalogue.images.skips()] == ["scalp"]
    studio.check(all_pulled=True)


def test_deleted__between_two_pulls(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.skip(2, "blurry")
    studio.pull()
    for annotation in (number, number + 1):
        studio.server.delete_annotation(annotation)
    done = studio.pull()
    assert outcomes(done) == [REPAIRED, REPAIRED]
    assert f"annotation {number} was deleted on the server" in str(notes(done.outcomes)[0])
    assert studio.states() == {"in_labelling": 3}
    assert len(studio.drawn(images[0])) == 1
    studio.submit(1, SMALLER, SECOND)
    studio.pull()
    assert studio.in_review(images[0]).annotator == SECOND
    studio.check(all_pulled=True)


def test_two_people__at_one_task_that_was_given_to_one(studio: Studio, images: list[Image]) -> None:
    """The image follows the first; the second's mask is kept beside it."""
    studio.submit(1, LESION)
    studio.submit(1, SMALLER, SECOND)
    assert outcomes(studio.pull()) == [ADDED, ADDED]
    assert studio.in_review(images[0]).annotator == ANNOTATOR
    [readings] = studio.labelling.readings().values()
    assert [mask.annotator for mask in readings] == [ANNOTATOR, SECOND]
    assert studio.labelling.readings().keys() == {images[0].id}
    studio.check(all_pulled=True)


def test_two_people__one_paints_and_one_skips(studio: Studio, images: list[Image]) -> None:
    studio.submit(1, LESION)
    studio.skip(1, "blurry", by=SECOND)
    assert outcomes(studio.pull()) == [ADDED, ADDED]
    assert studio.state(images[0]) == "submitted"
    assert studio.catalogue.images.skips() == []
    studio.check(all_pulled=True)


def test_person__whose_account_is_gone(studio: Studio, images: list[Image]) -> None:
    studio.submit(1, LESION)
    studio.server.misbehave("GET", "/api/users/", status(200, "[]"))
    studio.pull()
    assert studio.in_review(images[0]).annotator == f"user {studio.people[ANNOTATOR]}"


# Deleted tasks and projects


def test_task_deleted__found_by_a_full_pull_and_sent_anew(
    studio: Studio, images: list[Image]
) -> None:
    studio.submit(1, LESION)
    studio.pull()
    for task in (1, 2):
        studio.server.delete_task(task)
    assert outcomes(studio.pull()) == []
    assert studio.states() == {"submitted": 1, "in_labelling": 2}
    done = studio.pull(full=True)
    assert sorted(told(done.outcomes)) == [("1.png", REPAIRED), ("2.png", REPAIRED)]
    assert set(notes(done.outcomes)) == {
        "its task was deleted on the server; nothing that came back is lost, and "
        "'ddiseg label push' sends it again"
    }
    assert studio.states() == {"submitted": 1, "queued": 1, "in_labelling": 1}
    assert len(studio.drawn(images[0])) == 1
    assert outcomes(studio.pull(full=True)) == []
    open_images = [image for image in images if studio.state(image) != "submitted"]
    assert sorted(told(studio.push(open_images).outcomes)) == [
        ("2.png", ADDED),
        ("3.png", UNCHANGED),
    ]
    studio.submit_unchanged(studio.task(images[1]))
    studio.pull()
    assert studio.states() == {"submitted": 2, "in_labelling": 1}
    studio.check(all_pulled=True)


def test_task_deleted__while_its_page_is_read(studio: Studio, images: list[Image]) -> None:
    studio.submit(1, LESION)
    studio.submit_unchanged(2)
    studio.server.misbehave(
        "GET", "/api/tasks", meanwhile(lambda: studio.server.delete_task(1)), skip=1
    )
    assert told(studio.pull().outcomes) == [("2.png", ADDED)]
    assert told(studio.pull(full=True).outcomes) == [("1.png", REPAIRED)]
    studio.check(all_pulled=True)


def test_project_deleted__full_pull_makes_room_for_a_new_one(
    studio: Studio, images: list[Image]
) -> None:
    studio.submit(1, LESION)
    studio.pull()
    with Client(studio.connection) as client:
        client._sdk.projects.delete(1)
    for attempt in (studio.pull, studio.push):
        with pytest.raises(ServerError, match="'ddiseg label pull --full' takes note of that"):
            attempt()
    assert studio.states() == {"submitted": 1, "in_labelling": 2}
    done = studio.pull(full=True)
    assert outcomes(done) == [REPAIRED] * 3
    assert studio.states() == {"submitted": 1, "queued": 2}
    assert studio.number() == 2
    assert told(studio.push(images[1:]).outcomes) == [("2.png", ADDED), ("3.png", ADDED)]
    studio.submit_unchanged(studio.task(images[1]))
    assert told(studio.pull().outcomes) == [("2.png", ADDED)]
    assert len(studio.drawn(images[0])) == 1
    studio.check(all_pulled=True)


def test_project__behind_a_page_that_says_404_is_not_taken_for_deleted(
    studio: Studio, images: list[Image]
) -> None:
    studio.server.misbehave("GET", "/api/projects/*", html(404))
    with pytest.raises(ServerError, match="web page instead of data"):
        studio.pull(full=True)
    assert studio.states() == {"in_labelling": 3}


def test_full__tasks_pushed_meanwhile_are_not_taken_for_deleted(
    studio: Studio, images: list[Image]
) -> None:
    def push_after(exchange: Any) -> None:
        answer = exchange.answer()
        studio.push(studio.add_images())
        exchange.send(answer)

    studio.server.misbehave("GET", "/api/tasks", push_after)
    assert outcomes(studio.pull(full=True)) == []
    assert len(studio.tasks()) == 4
    studio.check()


def test_tasks__that_are_not_ours_are_left_alone(studio: Studio, images: list[Image]) -> None:
    with Client(studio.connection) as client:
        [number], _ = client.plain.import_tasks(1, [{"data": {"image": "x", "review_comment": ""}}])
    studio.submit(number, LESION)
    studio.submit(1, LESION)
    assert told(studio.pull().outcomes) == [("1.png", ADDED)]
    assert outcomes(studio.pull(full=True)) == []
    assert number in studio.server.tasks


# Pages and clocks


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PAGE", 2)


@pytest.mark.parametrize("request_number", range(7))
def test_pages__a_task_that_changes_meanwhile_hides_no_other(
    studio: Studio, small_pages: None, request_number: int
) -> None:
    studio.add_images(7)
    studio.push()
    for task in range(1, 8):
        studio.submit(task, LESION)
    studio.server.misbehave(
        "GET",
        "/api/tasks",
        meanwhile(lambda: studio.server.edit(1, result=SMALLER)),
        skip=request_number,
    )
    studio.pull()
    assert studio.states() == {"submitted": 7}
    studio.check(all_pulled=True)


def at_one_moment(studio: Studio, tasks: Sequence[int]) -> None:
    """As where one statement of the server's changes many rows."""
    for number in tasks:
        studio.server.tasks[number].updated_at = studio.server.tasks[tasks[-1]].updated_at


@pytest.mark.parametrize("request_number", range(7))
def test_pages__many_tasks_changed_at_one_moment(
    studio: Studio, small_pages: None, request_number: int
) -> None:
    """More than a page of them, and one of them changes while they are read."""
    studio.add_images(7)
    studio.push()
    for task in range(1, 8):
        studio.submit(task, LESION)
    at_one_moment(studio, range(1, 7))
    studio.server.misbehave(
        "GET",
        "/api/tasks",
        meanwhile(lambda: studio.server.edit(1, result=SMALLER)),
        skip=request_number,
    )
    studio.pull()
    assert studio.states() == {"submitted": 7}
    assert outcomes(studio.pull(full=True)) == []
    studio.check(all_pulled=True)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_pages__borders(studio: Studio, small_pages: None, number: int) -> None:
    studio.add_images(number)
    studio.push()
    for task in range(1, number + 1):
        studio.submit(task, LESION)
    assert outcomes(studio.pull()) == [ADDED] * number
    assert studio.states() == {"submitted": number}
    studio.check(all_pulled=True)


def test_incremental__reads_what_changed_and_no_more(studio: Studio, images: list[Image]) -> None:
    studio.server.set_clock(datetime(2030, 1, 1, tzinfo=UTC))
    studio.submit_unchanged(1)
    studio.pull()
    studio.server.set_clock(datetime(2030, 1, 1, 2, tzinfo=UTC))
    studio.submit_unchanged(2)
    before = len(studio.server.requests)
    assert told(studio.pull().outcomes) == [("2.png", ADDED)]
    asked = [r.params for r in studio.server.requests[before:] if r.path == "/api/tasks"]
    assert "2029-12-31T23:59:" in asked[0]["query"] or "2030-01-01T" in asked[0]["query"]
    assert [params["fields"] for params in asked] == ["all", "all"]
    assert "result" not in asked[0]["include"]
    studio.server.set_clock(datetime(2030, 1, 1, 4, tzinfo=UTC))
    before = len(studio.server.requests)
    assert outcomes(studio.pull()) == []
    asked = [r.params for r in studio.server.requests[before:] if r.path == "/api/tasks"]
    assert len(asked) == 1


def test_incremental__a_change_that_became_visible_late(
    studio: Studio, images: list[Image]
) -> None:
    """A transaction that took long carries an earlier time than one that was pulled already."""
    studio.server.set_clock(datetime(2030, 1, 1, 0, 0, 40, tzinfo=UTC))
    studio.submit_unchanged(2)
    studio.pull()
    studio.server.set_clock(datetime(2030, 1, 1, 0, 0, 10, tzinfo=UTC))
    studio.submit_unchanged(1)
    studio.server.set_clock(datetime(2030, 1, 1, 0, 1, tzinfo=UTC))
    assert told(studio.pull().outcomes) == [("1.png", ADDED)]
    studio.check(all_pulled=True)


def test_clock__set_back_has_everything_read(studio: Studio, images: list[Image]) -> None:
    studio.server.set_clock(datetime(2030, 1, 1, 12, tzinfo=UTC))
    studio.submit_unchanged(1)
    assert not studio.pull().full
    studio.server.set_clock(datetime(2030, 1, 1, 10, tzinfo=UTC))
    studio.submit_unchanged(2)
    done = studio.pull()
    assert done.full
    assert told(done.outcomes) == [("2.png", ADDED)]
    studio.check(all_pulled=True)


@pytest.mark.parametrize("year", [2001, 2099])
def test_clock__only_the_server_s_counts(studio: Studio, year: int) -> None:
    """It is decades away from this machine's."""
    studio.server.set_clock(datetime(year, 1, 1, tzinfo=UTC))
    studio.add_images(2)
    studio.push()
    for task in (1, 2):
        studio.submit(task, LESION)
        done = studio.pull()
        assert outcomes(done) == [ADDED]
        assert not done.full
    studio.check(all_pulled=True)


def test_clock__server_that_does_not_tell(studio: Studio, images: list[Image]) -> None:
    studio.submit_unchanged(1)
    studio.pull()

    def without_date(exchange: Any) -> None:
        exchange.date_time_string = lambda timestamp=None: ""
        exchange.send(exchange.answer())

    studio.server.misbehave("GET", "/health", without_date)
    studio.submit_unchanged(2)
    done = studio.pull()
    assert outcomes(done) == [ADDED]
    assert not done.full


def test_time__without_a_fraction(studio: Studio, images: list[Image]) -> None:
    """Django leaves it out where the microsecond is 0."""
    studio.server.set_clock(datetime(2030, 1, 1, 12, tzinfo=UTC))
    studio.submit_unchanged(1)
    studio.server.tasks[1].updated_at = datetime(2030, 1, 1, 12, tzinfo=UTC)
    studio.pull()
    studio.submit_unchanged(2)
    assert outcomes(studio.pull()) == [ADDED]
    studio.check(all_pulled=True)


# Interrupted


def work(studio: Studio) -> None:
    """Four people's deeds on the three tasks."""
    studio.submit_unchanged(1)
    studio.submit(1, LESION, SECOND)
    studio.skip(2)
    studio.submit(3, [])


def finish(studio: Studio, images: Sequence[Image]) -> None:
    """The same command again: each deed is there once."""
    studio.server.behave()
    studio.pull()
    assert studio.states() == {"submitted": 1, "skipped": 1, "in_labelling": 1}
    assert versions(studio) == [(1, "mask"), (2, "mask"), (3, "skip"), (4, "refused")]
    assert [len(studio.drawn(image)) for image in images] == [2, 0, 0]
    assert len(studio.catalogue.images.skips()) == 1
    events = [
        event.kind for image in images for event in studio.catalogue.history.of_image(image.id)
    ]
    assert (events.count("submit"), events.count("skip")) == (1, 1)
    studio.check(all_pulled=True)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "fault", [cut(), truncated(), garbage()], ids=["cut", "truncated", "garbage"]
)
def test_pull__cut_at_each_request_then_again(
    studio: Studio, images: list[Image], small_pages: None, fault: Fault, full: bool
) -> None:
    work(studio)
    assert studio.interrupt(lambda: studio.pull(full=full), fault) > 5
    finish(studio, images)


@pytest.mark.parametrize("fault", [cut(), done_then_cut()], ids=["cut", "done, then cut"])
def test_pull__cut_while_it_takes_a_comment_away(
    studio: Studio, images: list[Image], fault: Fault
) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.catalogue.masks.review(studio.in_review(images[0]).id, REVIEWER, "reject", "no")
    studio.push()
    studio.server.edit(number, result=SMALLER)
    studio.server.misbehave("PATCH", "/api/tasks/*", fault)
    with pytest.raises(ServerError):
        studio.pull()
    assert studio.state(images[0]) == "submitted"
    assert outcomes(studio.pull()) == []
    assert studio.server.tasks[1].data["review_comment"] == ""
    studio.check(all_pulled=True)


@pytest.mark.parametrize(
    "fault",
    [status(401), status(403), status(404), status(500), status(503), html(), status(200, "{}")],
    ids=["401", "403", "404", "500", "503", "html", "{}"],
)
def test_pull__refused_then_again(studio: Studio, images: list[Image], fault: Fault) -> None:
    work(studio)
    studio.server.misbehave("GET", "/api/tasks", fault, times=None)
    with pytest.raises(ServerError) as raised:
        studio.pull(full=True)
    assert "\n" not in str(raised.value)
    assert studio.rows("annotations") == []
    assert studio.states() == {"in_labelling": 3}
    finish(studio, images)


@pytest.mark.parametrize("fault", [status(500), status(429), cut()], ids=["500", "429", "cut"])
def test_pull__a_passing_fault_is_not_noticed(
    studio: Studio, images: list[Image], fault: Fault
) -> None:
    work(studio)
    studio.server.misbehave("GET", "/api/tasks", fault, times=2)
    finish(studio, images)


def test_pull__server_too_slow_then_again(
    studio: Studio, images: list[Image], impatient: None
) -> None:
    work(studio)
    studio.server.misbehave("GET", "/api/tasks", slow(60), times=None)
    with pytest.raises(ServerError, match="does not answer in time"):
        studio.pull()
    finish(studio, images)


def test_pull__server_down_then_up(studio: Studio, images: list[Image]) -> None:
    work(studio)
    studio.server.stop()
    with pytest.raises(ServerError, match="can't be reached"):
        studio.pull()
    studio.server.start()
    finish(studio, images)


def test_pull__another_major_version(studio: Studio, images: list[Image]) -> None:
    work(studio)
    studio.server.version = "2.1.0"
    with pytest.raises(ServerError, match=r"is Label Studio 2\.1\.0"):
        studio.pull()
    assert studio.rows("annotations") == []
    studio.server.version = "1.30.0"
    finish(studio, images)


def test_pull__catalogue_fails_in_the_middle(
    studio: Studio, images: list[Image], small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process is killed: a page is stored whole, watermark included, or not at all."""
    work(studio)
    receive, pages = type(studio.labelling).receive, []

    def receive_one(self: Any, project_id: int, page: Any) -> Any:
        if pages:
            raise KeyboardInterrupt
        pages.append(page)
        return receive(self, project_id, page)

    monkeypatch.setattr(type(studio.labelling), "receive", receive_one)
    with pytest.raises(KeyboardInterrupt):
        studio.pull()
    assert 0 < len(versions(studio)) < 4
    studio.check()
    monkeypatch.undo()
    finish(studio, images)


# At once


def pull_too(studio: Studio) -> Pulled:
    """Somebody else pulls into the same workspace."""
    other = Workspace.open(studio.workspace.root)
    done = pull(other, studio.connection, Purpose.ANNOTATION, "other manager")
    other.catalogue.close()
    return done


@pytest.mark.parametrize("path", ["/health", "/api/users/", "/api/tasks", "/api/tasks/later"])
def test_two_pulls__one_inside_the_other(studio: Studio, images: list[Image], path: str) -> None:
    work(studio)
    seconds: list[Pulled] = []
    studio.server.misbehave(
        "GET",
        path.removesuffix("/later"),
        meanwhile(lambda: seconds.append(pull_too(studio))),
        skip=int(path.endswith("/later")),
    )
    first = studio.pull()
    assert sorted(outcomes(seconds[0])) == [ADDED, ADDED, ADDED, REFUSED]
    assert set(outcomes(first)) <= {UNCHANGED}
    finish(studio, images)


def test_two_pulls__side_by_side(studio: Studio, images: list[Image]) -> None:
    work(studio)
    done: list[Pulled] = []
    both = threading.Barrier(3, timeout=60)
    studio.server.misbehave("GET", "/api/users/", meanwhile(both.wait), times=2)
    threads = [
        threading.Thread(target=lambda: done.append(pull_too(studio)), name=f"pull {n}")
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    both.wait()
    for thread in threads:
        thread.join()
    found = sorted(outcome for each in done for outcome in outcomes(each))
    assert [f for f in found if f != UNCHANGED] == [ADDED, ADDED, ADDED, REFUSED]
    finish(studio, images)


def test_pull__while_images_are_pushed(studio: Studio, images: list[Image]) -> None:
    work(studio)
    more: list[Image] = []

    def push_more() -> None:
        more.extend(studio.add_images(2))
        studio.push(more)
        studio.submit(studio.task(more[0]), LESION)

    studio.server.misbehave("GET", "/api/tasks", meanwhile(push_more))
    studio.pull()
    studio.pull()
    assert studio.state(more[0]) == "submitted"
    studio.check(all_pulled=True)


def test_pull__adopts_what_an_interrupted_push_sent(studio: Studio) -> None:
    [image] = studio.add_images()
    studio.push([])
    studio.server.misbehave("POST", "/api/projects/*/import", done_then_cut())
    with pytest.raises(ServerError):
        studio.push()
    studio.submit(1, LESION)
    assert told(studio.pull().outcomes) == [("1.png", ADDED)]
    assert studio.state(image) == "submitted"
    studio.check(all_pulled=True)


def test_pull__adopted_task_that_was_annotated_long_before_the_newest_change(
    studio: Studio, images: list[Image]
) -> None:
    """Its annotation went by unknown, while the watermark went on."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    studio.server.set_clock(start)
    [image] = studio.add_images()
    studio.push()
    number = studio.task(image)
    [task] = [t for t in studio.tasks() if t.image_id == image.id]
    studio.labelling.update_task(task.id, remote_id=None)  # the answer is still on its way
    studio.submit(number, LESION)
    studio.server.set_clock(start + timedelta(hours=1))
    studio.submit_unchanged(1)
    studio.labelling.receive(studio.project(), Page([], {}, "2030-01-01T01:00:00.000000Z"))
    studio.pull()
    assert studio.state(image) == "submitted"
    studio.check(all_pulled=True)


# Many


def test_pull__ten_thousand_tasks(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PAGE", 1000)  # the scripted server sorts all tasks for each page
    n, answered = 10_000, 60
    rows = [
        NewImage(f"{i}.png", f"{i:064x}", 1, i, f"{i:016x}{i:048x}", f"{i:016x}", 8, 6)
        for i in range(n)
    ]
    dataset = studio.catalogue.images.dataset("clinic")
    studio.catalogue.images.add(dataset.id, rows, "manager")
    studio.push([])
    batch = [
        NewTask(image.content_hash[:16], image.id, None, Arm.BARE, 8, 6)
        for image in studio.catalogue.images.select()
    ]
    studio.labelling.plan(studio.project(), batch, "manager", {})
    with Client(studio.connection) as client:
        client.plain.import_tasks(
            1, [{"data": {"image": "x", "ddiseg": b.key, "review_comment": ""}} for b in batch]
        )
    for task in range(1, n + 1, n // answered):
        studio.submit(task, LESION)
    done = studio.pull(full=True)
    found = len(done.outcomes)
    assert outcomes(done) == [ADDED] * found
    assert found >= answered
    assert studio.states() == {"submitted": found, "in_labelling": n - found}
    assert outcomes(studio.pull()) == []
    studio.check(all_pulled=True)
