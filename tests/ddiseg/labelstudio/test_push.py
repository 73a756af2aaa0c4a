"""Images given to annotators: what they find, and that each is there once whatever went wrong."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import NewMask
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.push import PushOptions
from ddiseg.labelstudio.task_payload import MODEL_VERSION
from ddiseg.labelstudio.views import RETURNED
from ddiseg.workspace.verify import verify
from tests.ddiseg.labelstudio.studio import (
    ADDED,
    ANNOTATOR,
    HEIGHT,
    LESION,
    REFUSED,
    REPAIRED,
    REVIEWER,
    SECOND,
    UNCHANGED,
    WIDTH,
    Studio,
    box,
    endings,
    notes,
    photograph,
    skin_and_lesion,
    stroke,
    told,
)
from tests.fake_label_studio import (
    Fault,
    cut,
    done_then_cut,
)
from tests.wording import Refusal

IMPORT = "/api/projects/*/import"


# What annotators find


@pytest.mark.slow
def test_push__tasks_with_the_newest_prediction_painted(studio: Studio) -> None:
    painted, bare = studio.add_images(), studio.add_images(tone="V-VI")
    studio.predict(painted, lesion=3)
    [mask] = studio.predict(painted, lesion=12, uncertainty=0.5)
    done = studio.push()
    assert told(done) == [("1.png", ADDED), ("2.png", ADDED)]
    assert done.arms == {"painted": {"I-II": 1}, "bare": {"V-VI": 1}}
    assert done.project.url == f"{studio.server.url}/projects/1/data"
    first, second = (studio.server.tasks[studio.task(i)] for i in (*painted, *bare))
    assert first.data == {
        "image": f"/data/local-files/?d=images/{painted[0].content_hash[:32]}-8x6.png",
        "ddiseg": painted[0].content_hash[:16],
        "image_id": painted[0].id,
        "name": "1.png",
        "review_comment": "",
        "tone": "I-II",
        "model": studio.catalogue.models.all()[-1].name,
        "expected": "",
    }
    assert (second.data["tone"], second.data["model"]) == ("V-VI", "")
    np.testing.assert_array_equal(studio.painted(first.id), skin_and_lesion(12))
    assert studio.painted(second.id) is None
    [prediction] = first.predictions
    assert (prediction.model_version, prediction.score) == ("ddiseg", 0.6893)
    assert {region["id"][:16] for region in prediction.result} == {mask.content_hash[:16]}
    assert studio.states() == {"in_labelling": 2}
    assert [e.kind for e in studio.catalogue.events.of_image(1)][-1] == "start"
    studio.check()


@pytest.mark.slow
def test_push__pictures_are_the_photographs(studio: Studio) -> None:
    studio.push(studio.add_images(2))
    shown = {path.name[:32]: path.read_bytes() for path in studio.copies()}
    for number, image in enumerate(studio.catalogue.images.select(), 1):
        with Pillow.open(io.BytesIO(shown[image.content_hash[:32]])) as picture:
            np.testing.assert_array_equal(np.asarray(picture), photograph(number))
            assert picture.info == {}


@pytest.mark.slow
def test_push__hidden_tone(studio: Studio) -> None:
    image = studio.add_images(tone="V-VI")[0]
    studio.push(show_tone=False)
    data = studio.server.tasks[studio.task(image)].data
    assert "tone" not in data
    assert "V-VI" not in str(data)


@pytest.mark.slow
def test_push__large_photograph_is_shown_smaller(studio: Studio) -> None:
    image = studio.add_images(size=(3000, 2000))[0]
    studio.push()
    [copy] = studio.copies()
    with Pillow.open(copy) as picture:
        assert picture.size == (1600, 1067)
    [task] = studio.tasks()
    assert (task.width, task.height) == (1600, 1067)
    stroked = box(slice(0, 534), slice(0, 800), (1600, 1067))
    studio.submit(studio.task(image), [stroke("lesion", stroked)])
    studio.pull()
    mask = studio.in_review(image)
    assert (mask.width, mask.height, mask.mapping) == (1600, 1067, "stretched")
    np.testing.assert_array_equal(studio.workspace.mask(mask), stroked.astype(np.uint8))
    over = studio.workspace.mask_over(image, mask)
    assert over.shape == (2000, 3000)
    assert over[:1000, :1500].all()
    assert not over[1002:].any()
    assert not over[:, 1501:].any()
    assert verify(studio.workspace).problems == []
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_push__longest_side_as_asked_and_prediction_stretched_to_it(studio: Studio) -> None:
    images = studio.add_images(size=(200, 100))
    studio.predict(images, lesion=10_000)
    studio.push(longest=64)
    [task] = studio.tasks()
    assert (task.width, task.height) == (64, 32)
    painted = studio.painted(studio.task(images[0]))
    assert painted is not None
    np.testing.assert_array_equal(painted[:16], 1)
    np.testing.assert_array_equal(painted[16:], 4)


@pytest.mark.slow
def test_push__settled_images_are_refused(studio: Studio, wording: SnapshotAssertion) -> None:
    image = studio.add_images()[0]
    studio.catalogue.images.skip(image.id, "blurry", None, ANNOTATOR)
    done = studio.push()
    assert notes(done) == wording
    assert not studio.server.tasks
    studio.check()


@pytest.mark.parametrize(
    "options",
    [
        {"control": 101},
        {"control": float("nan")},
        {"sample": -1},
        {"readers": 0},
        {"longest": 63},
        {"longest": 8193},
    ],
)
def test_options__that_make_no_sense(options: dict[str, Any], refusal: Refusal) -> None:
    with refusal(InputError):
        PushOptions(**options)


# The control arm


@pytest.mark.slow
def test_control__same_share_of_every_tone_and_never_painted(studio: Studio) -> None:
    light, dark = studio.add_images(4), studio.add_images(6, "V-VI")
    studio.predict([*light, *dark])
    done = studio.push(control=50)
    assert done.arms == {
        "painted": {"I-II": 2, "V-VI": 3},
        "control": {"I-II": 2, "V-VI": 3},
    }
    withheld = {task.key for task in studio.tasks() if task.arm == "control"}
    assert all(task.mask_id is not None for task in studio.tasks())
    event = studio.catalogue.events.last("push")
    assert event is not None
    assert event.detail["control"] == 50
    assert event.detail["seed"] == 0
    studio.check()
    again = studio.push(control=50)
    assert again.arms == {}
    assert endings(again) == [UNCHANGED] * 10
    studio.predict([*light, *dark], lesion=30)
    assert sorted(endings(studio.push(control=50))) == [REPAIRED] * 5 + [UNCHANGED] * 5
    assert {task.key for task in studio.tasks() if task.arm == "control"} == withheld
    studio.check()


@pytest.mark.slow
def test_control__interrupted_stays_unpainted(studio: Studio) -> None:
    studio.predict(studio.add_images(4))
    studio.server.misbehave("POST", IMPORT, done_then_cut())
    with pytest.raises(ServerError):
        studio.push(control=50)
    studio.push(control=50)
    assert Counter(t.arm for t in studio.tasks()) == {"painted": 2, "control": 2}
    studio.check()


@pytest.mark.slow
@pytest.mark.parametrize("percent", [20, 60])
def test_control__pushed_one_by_one(studio: Studio, percent: int) -> None:
    """Rounded by push, a fifth of one image is none, and three fifths of one are all."""
    tones = ["I-II", "V-VI"] * 5
    for tone in tones:
        [image] = studio.add_images(tone=tone)
        studio.predict([image])
        studio.push([image], control=percent)
    arms = Counter((tone, task.arm) for tone, task in zip(tones, studio.tasks(), strict=True))
    assert {tone: arms[tone, "control"] for tone in tones} == dict.fromkeys(tones, percent // 20)
    studio.check()


@pytest.mark.slow
def test_control__the_tones_take_turns(studio: Studio) -> None:
    """One of three is not drawn from the same tone each week, though the seed is the same."""
    by_tone: Counter[str] = Counter()
    for _ in range(3):
        week = [
            image for tone in ("I-II", "III-IV", "V-VI") for image in studio.add_images(1, tone)
        ]
        studio.predict(week)
        by_tone.update(studio.push(week, control=34).arms["control"])
    assert by_tone == {"I-II": 1, "III-IV": 1, "V-VI": 1}


@pytest.mark.slow
def test_control__what_was_pushed_without_is_not_made_up_for(studio: Studio) -> None:
    studio.predict(studio.add_images(10))
    studio.push()
    studio.predict(studio.add_images(5))
    assert studio.push(control=20).arms == {"control": {"I-II": 1}, "painted": {"I-II": 4}}


@pytest.mark.slow
@pytest.mark.parametrize("percent", [0, 100])
def test_control__a_task_that_was_deleted_is_sent_again_as_it_was(
    studio: Studio, percent: int
) -> None:
    images = studio.add_images(4)
    studio.predict(images)
    studio.push(control=50, readers=2, sample=50)
    before = {task.key: (task.arm, task.readers) for task in studio.tasks()}
    for number in list(studio.server.tasks):
        studio.server.delete_task(number)
    studio.pull(full=True)
    studio.push(control=percent)
    assert {task.key: (task.arm, task.readers) for task in studio.tasks()} == before
    studio.check()


@pytest.mark.slow
def test_control__images_without_prediction_are_not_in_it(studio: Studio) -> None:
    studio.predict(studio.add_images(2))
    studio.add_images(2)
    assert studio.push(control=100).arms == {"control": {"I-II": 2}, "bare": {"I-II": 2}}


# Several readers


@pytest.mark.slow
def test_readers__a_sample_of_every_tone_is_offered_to_two(studio: Studio) -> None:
    studio.add_images(4)
    studio.add_images(4, "V-VI")
    studio.push(readers=2, sample=50)
    twice = [task for task in studio.tasks() if task.readers == 2]
    assert len(twice) == 4
    tones = {image.id: image.tone for image in studio.catalogue.images.select()}
    assert Counter(tones[t.image_id] for t in twice) == {"I-II": 2, "V-VI": 2}
    overlaps = {number: task.overlap for number, task in studio.server.tasks.items()}
    assert {n for n, overlap in overlaps.items() if overlap == 2} == {t.remote_id for t in twice}
    assert endings(studio.push(readers=2, sample=50)) == [UNCHANGED] * 8
    assert {n: task.overlap for n, task in studio.server.tasks.items()} == overlaps


@pytest.mark.slow
def test_readers__a_later_push_of_the_rest_asks_for_no_more(studio: Studio) -> None:
    """Some images are settled by then, and the share is one of those that are left."""
    images = studio.add_images(12)
    studio.push(readers=2, sample=50)
    twice = _read_twice(studio)
    rest = [image for image in images if image.id in twice] + [
        image for image in images if image.id not in twice
    ][:4]
    studio.push(rest, readers=2, sample=50)
    assert _read_twice(studio) == twice
    studio.check()


@pytest.mark.slow
def test_readers__sampled_one_by_one(studio: Studio) -> None:
    for _ in range(5):
        studio.push(studio.add_images(), readers=2, sample=20)
    assert Counter(task.readers for task in studio.tasks()) == {1: 4, 2: 1}
    studio.check()


@pytest.mark.slow
def test_readers__of_what_is_given_out_all_or_none(studio: Studio) -> None:
    """Who was drawn is not known of a task that is there: a second draw would add to the first."""
    images = studio.add_images(4)
    studio.push(readers=2, sample=25)
    for _ in range(3):
        studio.push([i for i in images if i.id not in _read_twice(studio)], readers=2, sample=50)
    assert len(_read_twice(studio)) == 1
    studio.push(readers=2)
    assert len(_read_twice(studio)) == 4
    studio.check()


def _read_twice(studio: Studio) -> set[int]:
    return {task.image_id for task in studio.tasks() if task.readers == 2}


@pytest.mark.slow
def test_readers__both_readings_come_back(studio: Studio) -> None:
    [image] = studio.add_images()
    studio.push(readers=2)
    studio.submit(studio.task(image), LESION)
    studio.pull()
    assert studio.catalogue.tasks.readings() == {}
    studio.submit(studio.task(image), [stroke("lesion", box(slice(4), slice(3)))], SECOND)
    studio.pull()
    [readings] = studio.catalogue.tasks.readings().values()
    assert [mask.annotator for mask in readings] == [ANNOTATOR, SECOND]
    assert studio.in_review(image).annotator == ANNOTATOR
    studio.check(all_pulled=True)


def test_readers__asked_for_later_offers_a_finished_task_again(studio: Studio) -> None:
    [image] = studio.add_images()
    studio.push()
    studio.submit(studio.task(image), LESION)
    assert studio.server.tasks[1].is_labeled
    studio.push(readers=2)
    assert (studio.server.tasks[1].overlap, studio.server.tasks[1].is_labeled) == (2, False)
    assert studio.tasks()[0].readers == 2


@pytest.mark.parametrize("fault", [cut(), done_then_cut()], ids=["cut", "done, then cut"])
def test_readers__cut_before_it_was_set(studio: Studio, fault: Fault) -> None:
    studio.add_images(2)
    studio.server.misbehave("PATCH", "/api/tasks/*", fault, skip=1)
    with pytest.raises(ServerError):
        studio.push(readers=2)
    studio.push(readers=2)
    assert [task.overlap for task in studio.server.tasks.values()] == [2, 2]
    studio.check()


# Newer predictions


@pytest.mark.slow
def test_newer_prediction__is_shown_though_the_server_forgot_the_name(studio: Studio) -> None:
    """It does when a backend of that name goes."""
    images = studio.add_images(2)
    studio.push()
    project = next(iter(studio.server.tasks.values())).project
    project.settings["model_version"] = ""
    studio.predict(images)
    studio.push()
    assert project.settings["model_version"] == MODEL_VERSION


@pytest.mark.slow
def test_newer_prediction__repaints_what_nobody_began(studio: Studio) -> None:
    images = studio.add_images(6)
    studio.predict(images[:5])
    studio.push()
    fresh, begun, submitted, skipped, pulled, bare = (studio.task(image) for image in images)
    studio.submit_unchanged(pulled)
    studio.pull()
    studio.server.draft(begun, studio.people[ANNOTATOR], studio.opened(begun))
    studio.submit_unchanged(submitted)
    studio.skip(skipped, "blurry")
    studio.predict(images, lesion=30)
    done = studio.push()
    model = studio.catalogue.models.all()[-1].name
    assert told(done) == [(f"{n}.png", REPAIRED if n in (1, 6) else UNCHANGED) for n in range(1, 7)]
    assert notes(done) == [f"new prediction of {model}"] * 2
    for task in (fresh, bare):
        np.testing.assert_array_equal(studio.painted(task), skin_and_lesion(30))
        assert studio.server.tasks[task].data["model"] == model
    for task in (begun, submitted, skipped, pulled):
        np.testing.assert_array_equal(studio.painted(task), skin_and_lesion(12))
    assert [task.arm for task in studio.tasks()] == ["painted"] * 6
    studio.check()
    assert set(endings(studio.push())) == {UNCHANGED}


@pytest.mark.slow
def test_newer_prediction__an_old_draft_is_understood(studio: Studio) -> None:
    """Somebody opened the task before the newer prediction came, and submits the older one."""
    [image] = studio.add_images()
    [first] = studio.predict([image])
    studio.push()
    opened = studio.opened(1)
    studio.predict([image], lesion=30)
    studio.push()
    studio.submit(1, opened)
    studio.pull()
    assert studio.in_review(image).parent_id == first.id
    np.testing.assert_array_equal(studio.drawn(image)[0], skin_and_lesion(12))
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
@pytest.mark.parametrize("fault", [cut(), done_then_cut()], ids=["cut", "done, then cut"])
def test_newer_prediction__cut_then_again(studio: Studio, method: str, fault: Fault) -> None:
    images = studio.add_images(2)
    studio.predict(images)
    studio.push()
    studio.predict(images, lesion=30)
    studio.server.misbehave(method, "/api/*", fault, times=None, skip=1)
    with pytest.raises(ServerError):
        studio.push()
    studio.server.behave()
    studio.push()
    for image in images:
        np.testing.assert_array_equal(studio.painted(studio.task(image)), skin_and_lesion(30))
    studio.check()


@pytest.mark.slow
def test_newer_prediction__of_a_task_that_was_deleted(
    studio: Studio, wording: SnapshotAssertion
) -> None:
    images = studio.add_images(2)
    studio.predict(images)
    studio.push()
    studio.predict(images, lesion=30)
    studio.server.delete_task(1)
    done = studio.push()
    assert told(done) == [("1.png", REFUSED), ("2.png", REPAIRED)]
    assert notes(done)[0] == wording
    studio.pull(full=True)
    assert told(studio.push()) == [("1.png", ADDED), ("2.png", UNCHANGED)]
    np.testing.assert_array_equal(studio.painted(3), skin_and_lesion(30))
    studio.check()


# Returned images


def reject(studio: Studio, image: Image, comment: str | None) -> None:
    mask = studio.in_review(image)
    studio.catalogue.masks.review(mask.id, REVIEWER, "reject", comment)


@pytest.mark.slow
def test_comment__shown_until_the_image_is_handed_in_again(studio: Studio) -> None:
    images = studio.add_images(2)
    studio.push()
    number = studio.submit(1, LESION)
    studio.pull()
    assert studio.push().returned is None
    reject(studio, images[0], "the rim is too wide")
    done = studio.push()
    data = [task.data for task in studio.server.tasks.values()]
    said = f"{REVIEWER}: the rim is too wide"
    assert [d["review_comment"] for d in data] == [said, ""]
    assert [d["name"] for d in data] == ["1.png", "2.png"]
    assert done.returned == f"{done.project.url}?tab=2"
    _, tab = studio.server.tabs.values()
    assert tab.data["title"] == RETURNED.title
    assert "tasks:data.review_comment" not in tab.data["hiddenColumns"]["explore"]
    writes = studio.server.count("PATCH", "/api/tasks/*")
    studio.push()
    assert studio.server.count("PATCH", "/api/tasks/*") == writes
    studio.server.edit(number, result=[stroke("lesion", box(slice(1), slice(3)))])
    studio.pull()
    assert studio.server.tasks[1].data["review_comment"] == ""
    assert studio.state(images[0]) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_comment__none_was_given(studio: Studio) -> None:
    [image] = studio.add_images()
    studio.push()
    studio.submit(1, LESION)
    studio.pull()
    reject(studio, image, None)
    studio.push()
    said = studio.server.tasks[1].data["review_comment"]
    assert said == f"{REVIEWER}: please look at this image again"


@pytest.mark.slow
def test_comment__of_an_image_that_has_no_task_yet(studio: Studio) -> None:
    """Its mask was imported and sent back in the terminal: painted is the person's mask, and stays."""
    [image] = studio.add_images()
    studio.predict([image])
    digest = studio.workspace.store_mask(skin_and_lesion(20))
    imported = NewMask(image.id, digest, WIDTH, HEIGHT, "same", [1, 4], "1.0", ANNOTATOR)
    studio.catalogue.masks.submit([imported])
    reject(studio, image, "more of the rim")
    for _ in range(2):
        studio.push()
        said = studio.server.tasks[1].data["review_comment"]
        assert said == f"{REVIEWER}: more of the rim"
        np.testing.assert_array_equal(studio.painted(1), skin_and_lesion(20))
    studio.submit_unchanged(1)
    studio.pull()
    assert studio.server.tasks[1].data["review_comment"] == ""
    assert studio.state(image) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_comment__of_a_task_that_was_deleted(studio: Studio) -> None:
    images = studio.add_images(2)
    studio.push()
    for image in images:
        studio.submit(studio.task(image), LESION)
    studio.pull()
    for image in images:
        reject(studio, image, "again")
    studio.server.delete_task(1)
    studio.push()
    assert studio.server.tasks[2].data["review_comment"] == f"{REVIEWER}: again"
    studio.pull(full=True)
    studio.push()
    assert studio.server.tasks[3].data["review_comment"] == f"{REVIEWER}: again"
    studio.check()
