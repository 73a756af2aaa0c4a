"""Work brought back: every version of every annotation once, whatever people or machines do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddiseg.catalogue import REASON_MISSING, Purpose
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.http import as_json
from ddiseg.labelstudio.pull import pull
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import (
    ADDED,
    ANNOTATOR,
    LESION,
    REFUSED,
    REPAIRED,
    REVIEWER,
    SECOND,
    SMALLER,
    UNCHANGED,
    Studio,
    box,
    chosen,
    endings,
    notes,
    skin_and_lesion,
    stroke,
    told,
)
from tests.fake_label_studio import (
    html,
    meanwhile,
    status,
)
from tests.wording import Refusal

INK = box(slice(2, 4), slice(2, 5))


# Masks and skips


@pytest.mark.slow
def test_pull__masks_pixel_for_pixel_with_who_and_how_long(
    studio: Studio, images: list[Image]
) -> None:
    lesion, skin = studio.opened(2)
    stroke_over = stroke("marker", INK)
    studio.submit_unchanged(1, lead_time=12.5)
    studio.submit(2, [lesion, skin, stroke_over], SECOND, lead_time=60.0)
    done = studio.pull()
    assert told(done) == [("1.png", ADDED), ("2.png", ADDED)]
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


@pytest.mark.slow
def test_pull__again_finds_nothing_new(studio: Studio, images: list[Image]) -> None:
    studio.submit_unchanged(1)
    studio.skip(2, "blurry")
    studio.pull()
    rows = [studio.rows(table) for table in ("annotations", "masks", "skips", "events")]
    assert endings(studio.pull()) == []
    assert endings(studio.pull(full=True)) == []
    assert [studio.rows(t) for t in ("annotations", "masks", "skips", "events")] == rows


@pytest.mark.slow
def test_pull__strokes_only(studio: Studio) -> None:
    [image] = studio.add_images()
    studio.push()
    studio.submit(1, LESION)
    studio.pull()
    np.testing.assert_array_equal(studio.drawn(image)[0], box(slice(2), slice(3)).astype(np.uint8))
    studio.check(all_pulled=True)


@pytest.mark.slow
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


@pytest.mark.slow
def test_pull__skips(studio: Studio) -> None:
    images = studio.add_images(4)
    studio.push()
    studio.skip(1, "blurry", "the camera moved")
    studio.skip(2)
    studio.skip(3, "other", "a tattoo", by=SECOND)
    studio.skip(4, "other")
    done = studio.pull()
    assert endings(done) == [ADDED] * 4
    assert notes(done) == [f"skipped without a reason: ask {ANNOTATOR}"]
    assert [(s.reason, s.note, s.annotator) for s in studio.catalogue.images.skips()] == [
        ("blurry", "the camera moved", ANNOTATOR),
        (REASON_MISSING, None, ANNOTATOR),
        ("other", "a tattoo", SECOND),
        ("other", None, ANNOTATOR),
    ]
    assert studio.states() == {"skipped": 4}
    assert [studio.drawn(image) for image in images] == [[]] * 4
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_pull__a_reason_given_later(studio: Studio, images: list[Image]) -> None:
    number = studio.skip(1)
    studio.pull()
    studio.server.edit(number, result=[*studio.opened(1), chosen("skip_reason", "scalp")])
    studio.pull()
    [skip] = studio.catalogue.images.skips()
    assert skip.reason == "scalp"
    studio.check(all_pulled=True)


# What can't be understood


@pytest.mark.slow
@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([], "submitted without any region"),
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
    assert told(done) == [("1.png", REFUSED), ("2.png", ADDED)]
    [note] = notes(done)
    assert says in note
    assert note.endswith(f"; see {studio.link(1)}")
    assert studio.state(images[0]) == "in_labelling"
    assert studio.drawn(images[0]) == []
    studio.check(all_pulled=True)
    again = studio.pull()
    assert endings(again) == [UNCHANGED]
    assert again.problems == [f"1.png: {note}"]
    studio.server.edit(number, result=LESION)
    corrected = studio.pull()
    assert endings(corrected) == [ADDED]
    assert corrected.problems == []
    assert studio.state(images[0]) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", ["corrupt", "truncated"])
def test_problem__spoilt_rle(studio: Studio, images: list[Image], spoilt: str) -> None:
    rle = LESION[0]["value"]["rle"]
    wrong = [*rle[:4], 255, *rle[5:]] if spoilt == "corrupt" else rle[: len(rle) // 2]
    value = {**LESION[0]["value"], "rle": wrong}
    studio.submit(1, [*studio.opened(1), {**LESION[0], "value": value}])
    for task in (2, 3):
        studio.submit_unchanged(task)
    done = studio.pull()
    assert endings(done) == [REFUSED, ADDED, ADDED]
    assert "brush RLE" in notes(done)[0]
    assert notes(done)[0].endswith(f"; see {studio.link(1)}")
    studio.check(all_pulled=True)


def rename_lesion(studio: Studio, old: str, new: str) -> None:
    settings = studio.server.projects[studio.number()].settings
    renamed = settings["label_config"].replace(f'value="{old}"', f'value="{new}"')
    assert renamed != settings["label_config"]
    settings["label_config"] = renamed


@pytest.mark.slow
def test_label_renamed__its_regions_wait_until_it_is_put_back(
    studio: Studio, images: list[Image], refusal: Refusal
) -> None:
    rename_lesion(studio, "lesion", "Melanoma")
    studio.submit(1, [stroke("Melanoma", INK)])
    drawn_before = studio.submit_unchanged(2)
    done = studio.pull()
    assert told(done) == [("1.png", REFUSED), ("2.png", ADDED)]
    [problem] = notes(done)
    assert "Melanoma" in problem
    assert problem.endswith(f"; see {studio.link(1)}")
    with refusal(InputError):
        studio.push()
    rename_lesion(studio, "Melanoma", "lesion")
    # Label Studio's own way to put a label back in results that are there.
    studio.server.annotations[1].result = [stroke("lesion", INK)]
    assert endings(studio.pull(full=True)) == [ADDED]
    assert studio.versions() == [(1, "mask"), (drawn_before, "mask")]
    assert studio.state(images[0]) == "submitted"
    assert endings(studio.push()) == [UNCHANGED] * 3
    studio.check(all_pulled=True)


# People edit, delete and meet at one task


@pytest.mark.slow
def test_edited__between_two_pulls(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.server.edit(number, result=SMALLER)
    assert endings(studio.pull()) == [ADDED]
    assert len(studio.drawn(images[0])) == 2
    waiting = studio.workspace.mask(studio.in_review(images[0]))
    np.testing.assert_array_equal(waiting, box(slice(2), slice(2)).astype(np.uint8))
    assert studio.versions() == [(number, "mask")] * 2
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_edited__by_somebody_else(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.server.edit(number, result=SMALLER, user=studio.people[SECOND])
    studio.pull()
    mask = studio.in_review(images[0])
    assert mask.annotator == SECOND
    assert studio.catalogue.masks.people_behind([mask.id])[mask.id] == [ANNOTATOR, SECOND]
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_edited__twice_before_one_pull(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, SMALLER)
    studio.server.edit(number, result=[])
    studio.server.edit(number, result=LESION)
    assert endings(studio.pull()) == [ADDED]
    assert studio.versions() == [(number, "mask")]
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_edited__after_acceptance_reopens(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.catalogue.masks.review(studio.in_review(images[0]).id, REVIEWER, "accept")
    studio.server.edit(number, result=SMALLER)
    studio.pull()
    assert studio.state(images[0]) == "submitted"
    assert studio.catalogue.masks.accepted() == {}
    studio.check(all_pulled=True)


@pytest.mark.slow
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


@pytest.mark.slow
def test_deleted__between_two_pulls(studio: Studio, images: list[Image]) -> None:
    number = studio.submit(1, LESION)
    studio.skip(2, "blurry")
    studio.pull()
    for annotation in (number, number + 1):
        studio.server.delete_annotation(annotation)
    done = studio.pull()
    assert endings(done) == [REPAIRED, REPAIRED]
    assert f"annotation {number} was deleted on the server" in notes(done)[0]
    assert studio.states() == {"in_labelling": 3}
    assert len(studio.drawn(images[0])) == 1
    studio.submit(1, SMALLER, SECOND)
    studio.pull()
    assert studio.in_review(images[0]).annotator == SECOND
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_deleted__not_what_another_pull_stored_meanwhile(
    studio: Studio, images: list[Image]
) -> None:
    """A pull holds a page; another one stores an annotation made since, and moves the watermark on."""

    def paint_and_pull(exchange: Any) -> None:
        answer = exchange.answer()
        studio.submit(1, LESION)
        other = Workspace.open(studio.workspace.root)
        pull(other, studio.connection, Purpose.ANNOTATION, "other manager")
        other.catalogue.close()
        exchange.send(answer)

    studio.server.draft(1, studio.people[ANNOTATOR], studio.opened(1))
    studio.server.misbehave("GET", "/api/tasks", paint_and_pull)
    assert endings(studio.pull(full=True)) == []
    assert studio.in_review(images[0]).annotator == ANNOTATOR
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_two_people__at_one_task_that_was_given_to_one(studio: Studio, images: list[Image]) -> None:
    """The image follows the first; the second's mask is kept beside it."""
    studio.submit(1, LESION)
    studio.submit(1, SMALLER, SECOND)
    assert endings(studio.pull()) == [ADDED, ADDED]
    assert studio.in_review(images[0]).annotator == ANNOTATOR
    [readings] = studio.catalogue.tasks.readings().values()
    assert [mask.annotator for mask in readings] == [ANNOTATOR, SECOND]
    assert studio.catalogue.tasks.readings().keys() == {images[0].id}
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_two_people__one_paints_and_one_skips(studio: Studio, images: list[Image]) -> None:
    studio.submit(1, LESION)
    studio.skip(1, "blurry", by=SECOND)
    assert endings(studio.pull()) == [ADDED, ADDED]
    assert studio.state(images[0]) == "submitted"
    assert studio.catalogue.images.skips() == []
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_person__whose_account_is_gone(studio: Studio, images: list[Image]) -> None:
    studio.submit(1, LESION)
    studio.server.misbehave("GET", "/api/users/", status(200, "[]"))
    studio.pull()
    assert studio.in_review(images[0]).annotator == f"user {studio.people[ANNOTATOR]}"


# Deleted tasks and projects


@pytest.mark.slow
def test_task_deleted__found_by_a_full_pull_and_sent_anew(
    studio: Studio, images: list[Image]
) -> None:
    studio.submit(1, LESION)
    studio.pull()
    for task in (1, 2):
        studio.server.delete_task(task)
    assert endings(studio.pull()) == []
    assert studio.states() == {"submitted": 1, "in_labelling": 2}
    done = studio.pull(full=True)
    assert sorted(told(done)) == [("1.png", REPAIRED), ("2.png", REPAIRED)]
    assert set(notes(done)) == {
        "its task was deleted on the server; nothing that came back is lost, and "
        "'ddiseg label push' sends it again"
    }
    assert studio.states() == {"submitted": 1, "queued": 1, "in_labelling": 1}
    assert len(studio.drawn(images[0])) == 1
    assert endings(studio.pull(full=True)) == []
    open_images = [image for image in images if studio.state(image) != "submitted"]
    assert sorted(told(studio.push(open_images))) == [
        ("2.png", ADDED),
        ("3.png", UNCHANGED),
    ]
    studio.submit_unchanged(studio.task(images[1]))
    studio.pull()
    assert studio.states() == {"submitted": 2, "in_labelling": 1}
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_task_deleted__while_its_page_is_read(studio: Studio, images: list[Image]) -> None:
    studio.submit(1, LESION)
    studio.submit_unchanged(2)
    studio.server.misbehave(
        "GET", "/api/tasks", meanwhile(lambda: studio.server.delete_task(1)), skip=1
    )
    assert told(studio.pull()) == [("2.png", ADDED)]
    assert told(studio.pull(full=True)) == [("1.png", REPAIRED)]
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_project_deleted__full_pull_makes_room_for_a_new_one(
    studio: Studio, images: list[Image], refusal: Refusal
) -> None:
    studio.submit(1, LESION)
    studio.pull()
    with Client(studio.connection) as client:
        client._sdk.projects.delete(1)
    for attempt in (studio.pull, studio.push):
        with refusal(ServerError):
            attempt()
    assert studio.states() == {"submitted": 1, "in_labelling": 2}
    done = studio.pull(full=True)
    assert endings(done) == [REPAIRED] * 3
    assert studio.states() == {"submitted": 1, "queued": 2}
    assert studio.number() == 2
    assert told(studio.push(images[1:])) == [("2.png", ADDED), ("3.png", ADDED)]
    studio.submit_unchanged(studio.task(images[1]))
    assert told(studio.pull()) == [("2.png", ADDED)]
    assert len(studio.drawn(images[0])) == 1
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_project__behind_a_page_that_says_404_is_not_taken_for_deleted(
    studio: Studio, images: list[Image], refusal: Refusal
) -> None:
    studio.server.misbehave("GET", "/api/projects/*", html(404))
    with refusal(ServerError):
        studio.pull(full=True)
    assert studio.states() == {"in_labelling": 3}


@pytest.mark.slow
def test_full__tasks_pushed_meanwhile_are_not_taken_for_deleted(
    studio: Studio, images: list[Image]
) -> None:
    def push_after(exchange: Any) -> None:
        answer = exchange.answer()
        studio.push(studio.add_images())
        exchange.send(answer)

    studio.server.misbehave("GET", "/api/tasks", push_after)
    assert endings(studio.pull(full=True)) == []
    assert len(studio.tasks()) == 4
    studio.check()


@pytest.mark.slow
def test_tasks__that_are_not_ours_are_left_alone(studio: Studio, images: list[Image]) -> None:
    with Client(studio.connection) as client:
        [number], _ = client.plain.import_tasks(
            1, [as_json({"data": {"image": "x", "review_comment": ""}})]
        )
    studio.submit(number, LESION)
    studio.submit(1, LESION)
    assert told(studio.pull()) == [("1.png", ADDED)]
    assert endings(studio.pull(full=True)) == []
    assert number in studio.server.tasks
