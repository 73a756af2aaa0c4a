"""A second person looks at each mask: who is offered what, what a verdict does, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Purpose
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.pull import Pulled, pull
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import (
    ADDED,
    ANNOTATOR,
    REFUSED,
    REPAIRED,
    REVIEWER,
    SECOND,
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
from tests.fake_label_studio import Fault, cut, done_then_cut, meanwhile, status
from tests.fake_label_studio.talk import Talk
from tests.wording import Refusal

INK = box(slice(2, 4), slice(2, 5))
FIX = [stroke("marker", INK)]


def problem(done: Pulled) -> str:
    """What is said of the one verdict that was refused."""
    [note] = [o.note for o in done.outcomes if o.outcome == REFUSED]
    assert note is not None
    assert "\n" not in note
    return note


def titles(studio: Studio) -> list[str]:
    """The titles of the tabs of the project for reviews."""
    number = studio.number(Purpose.REVIEW)
    return [r.data["title"] for r in studio.server.tabs.values() if r.project.id == number]


def tab(studio: Studio, address: str) -> list[str]:
    """The images that a person's tab offers."""
    talk = Talk(studio.server.url, studio.server.token_of(studio.people[address]))
    title = address.partition("@")[0]
    [number] = [n for n, row in studio.server.tabs.items() if row.data["title"] == title]
    return [t["data"]["name"] for t in talk.ask("GET", "/api/tasks", view=number)["tasks"]]


def next_in_stream(studio: Studio, address: str) -> str:
    """The image that "Label Tasks As Displayed" in a person's tab opens first."""
    talk = Talk(studio.server.url, studio.server.token_of(studio.people[address]))
    title = address.partition("@")[0]
    [shown] = [row.filters for row in studio.server.tabs.values() if row.data["title"] == title]
    project = studio.number(Purpose.REVIEW)
    found = talk.ask("POST", "/api/dm/actions", {"filters": shown}, id="next_task", project=project)
    return str(found["data"]["name"])


def verdicts(studio: Studio) -> list[tuple[str, str, str | None]]:
    return [(r["reviewer"], r["verdict"], r["comment"]) for r in studio.rows("reviews")]


@pytest.fixture
def images(studio: Studio) -> list[Image]:
    """Three images whose masks wait for review, drawn unchanged by annotator-1, 1 and 2."""
    images = studio.add_images(3)
    studio.predict(images)
    studio.push()
    for task, person in ((1, ANNOTATOR), (2, ANNOTATOR), (3, SECOND)):
        studio.submit_unchanged(task, person)
    studio.pull()
    return images


# What reviewers find


@pytest.mark.slow
def test_push__the_person_s_mask_with_where_it_was_drawn(
    studio: Studio, images: list[Image]
) -> None:
    done = studio.push_reviews()
    assert told(done) == [(f"{n}.png", ADDED) for n in (1, 2, 3)]
    assert (done.project.number, done.unsampled) == (2, 0)
    data = studio.server.tasks[studio.review_task(images[0])].data
    assert data == {
        "image": f"/data/local-files/?d=images/{images[0].content_hash[:32]}-8x6.png",
        "ddiseg": data["ddiseg"],
        "image_id": images[0].id,
        "name": "1.png",
        "review_comment": "",
        "drawn_by": f"<{ANNOTATOR}>",
        "waits": "yes",
        "drawn_in": f"{studio.link(1)} annotation 1",
    }
    for image in images:
        painted = studio.painted(studio.review_task(image))
        np.testing.assert_array_equal(painted, skin_and_lesion(12))
    assert studio.states() == {"submitted": 3}
    assert len(studio.copies()) == 3
    assert endings(studio.push_reviews()) == [UNCHANGED] * 3
    assert len(studio.server.tasks) == 6
    studio.check()


def test_push__nothing_waits(studio: Studio) -> None:
    assert studio.push_reviews().outcomes == []
    assert not studio.server.tasks


@pytest.mark.slow
def test_tabs__nobody_finds_their_own_work(studio: Studio, images: list[Image]) -> None:
    done = studio.push_reviews()
    assert done.tabs.keys() == {ANNOTATOR, SECOND, REVIEWER, "admin@example.org"}
    assert done.tabs[SECOND].startswith(f"{done.project.url}?tab=")
    assert tab(studio, ANNOTATOR) == ["3.png"]
    assert tab(studio, SECOND) == ["1.png", "2.png"]
    assert tab(studio, REVIEWER) == ["1.png", "2.png", "3.png"]
    assert studio.push_reviews().tabs == done.tabs
    assert titles(studio) == ["admin", "annotator-1", "annotator-2", "reviewer-1"]


@pytest.mark.slow
def test_tabs__everyone_who_had_a_hand_in_it(studio: Studio, images: list[Image]) -> None:
    studio.server.edit(1, user=studio.people[SECOND], result=FIX)
    studio.pull()
    studio.push_reviews()
    assert tab(studio, ANNOTATOR) == ["3.png"]
    assert tab(studio, SECOND) == ["2.png"]
    assert tab(studio, REVIEWER) == ["1.png", "2.png", "3.png"]


@pytest.mark.slow
def test_tabs__an_address_that_ends_like_another(studio: Studio, images: list[Image]) -> None:
    """Each is offered the other's work."""
    longer = f"other-{ANNOTATOR}"
    studio.people[longer] = studio.server.add_user(longer)
    [image] = studio.add_images()
    studio.push([image])
    studio.submit(studio.task(image), FIX, longer)
    studio.pull()
    studio.push_reviews()
    assert tab(studio, longer) == ["1.png", "2.png", "3.png"]
    assert tab(studio, ANNOTATOR) == ["3.png", "4.png"]


@pytest.mark.slow
def test_tabs__a_new_person_gets_one_by_the_next_push(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    studio.people["reviewer-2@example.org"] = studio.server.add_user("reviewer-2@example.org")
    studio.push_reviews()
    assert tab(studio, "reviewer-2@example.org") == ["1.png", "2.png", "3.png"]


@pytest.mark.slow
def test_tabs__two_people_with_one_name(studio: Studio, images: list[Image]) -> None:
    """The tab of the one who was there first is renamed, so that each sees which is theirs."""
    before = studio.push_reviews().tabs
    other = "reviewer-1@example.com"
    studio.people[other] = studio.server.add_user(other)
    after = studio.push_reviews().tabs
    assert titles(studio) == [
        "admin",
        "annotator-1",
        "annotator-2",
        "re…@example.org",
        "re…@example.com",
    ]
    assert after.items() > before.items()
    studio.push_reviews()
    assert len(titles(studio)) == 5


@pytest.mark.slow
def test_tabs__made_by_an_older_version(studio: Studio, images: list[Image]) -> None:
    """It called them by the whole address, which Label Studio cut."""
    before = studio.push_reviews().tabs
    for row in studio.server.tabs.values():
        if row.data["title"] == "reviewer-1":
            row.data = {"title": REVIEWER, "hiddenColumns": {"explore": [], "labeling": []}}
    assert studio.push_reviews().tabs == before
    assert titles(studio)[-1] == "reviewer-1"
    [row] = [r for r in studio.server.tabs.values() if r.data["title"] == "reviewer-1"]
    assert "tasks:data.ddiseg" in row.data["hiddenColumns"]["explore"]
    assert tab(studio, REVIEWER) == ["1.png", "2.png", "3.png"]


@pytest.mark.slow
def test_push__drawn_too_small_to_judge_is_shown_larger(studio: Studio) -> None:
    [image] = studio.add_images(size=(900, 600))
    studio.push(longest=90)
    studio.submit(1, [stroke("lesion", box(slice(0, 30), slice(0, 90), (90, 60)))])
    studio.pull()
    studio.push_reviews()
    painted = studio.painted(studio.review_task(image))
    assert painted is not None
    assert painted.shape == (600, 900)
    assert (painted[:300] == 1).all()
    assert (painted[300:] == 0).all()
    studio.decide(studio.review_task(image), "accept")
    assert endings(studio.pull_reviews()) == [ADDED]
    accepted = studio.catalogue.masks.accepted()[image.id]
    assert (accepted.width, accepted.height, accepted.annotator) == (90, 60, ANNOTATOR)
    studio.check(all_pulled=True)


# Verdicts


@pytest.mark.slow
def test_verdicts__accept_fixed_reject(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    tasks = [studio.review_task(image) for image in images]
    drawn = [studio.in_review(image) for image in images]
    studio.decide(tasks[0], "accept")
    studio.decide(tasks[1], "fixed", "the ring was missing", strokes=FIX)
    studio.decide(tasks[2], "reject", "more of the rim")
    assert told(studio.pull_reviews()) == [(f"{n}.png", ADDED) for n in (1, 2, 3)]
    assert [studio.state(image) for image in images] == ["accepted", "accepted", "rework"]
    accepted = studio.catalogue.masks.accepted()
    assert accepted[images[0].id].id == drawn[0].id
    fix = accepted[images[1].id]
    assert (fix.annotator, fix.parent_id) == (REVIEWER, drawn[1].id)
    wanted = skin_and_lesion(12)
    wanted[INK] = 2
    np.testing.assert_array_equal(studio.workspace.mask(fix), wanted)
    assert verdicts(studio) == [
        (REVIEWER, "accept", None),
        (REVIEWER, "fixed", "the ring was missing"),
        (REVIEWER, "reject", "more of the rim"),
    ]
    said = studio.server.tasks[studio.task(images[2])].data["review_comment"]
    assert said == f"{REVIEWER}: more of the rim"
    assert endings(studio.pull_reviews(full=True)) == []
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_fixed__without_a_change_is_an_acceptance(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    studio.decide(studio.review_task(images[0]), "fixed")
    assert endings(studio.pull_reviews()) == [ADDED]
    assert verdicts(studio) == [(REVIEWER, "accept", None)]
    assert studio.catalogue.masks.accepted()[images[0].id].annotator == ANNOTATOR
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_accept__with_a_change_is_refused_until_it_says_which(
    studio: Studio, images: list[Image]
) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    number = studio.decide(task, "accept", strokes=FIX)
    line = problem(studio.pull_reviews())
    assert "the verdict is 'accept', but 6 pixels were changed: choose 'fixed'" in line
    assert line.endswith(f"; see {studio.link(task, Purpose.REVIEW)}")
    assert studio.state(images[0]) == "submitted"
    assert problem(studio.pull_reviews()) == line
    result = studio.server.annotations[number].result
    assert result is not None
    studio.server.edit(
        number, result=[r if r["type"] != "choices" else chosen("verdict", "fixed") for r in result]
    )
    assert endings(studio.pull_reviews()) == [ADDED]
    assert studio.state(images[0]) == "accepted"
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("verdict", ["accept", "fixed", "reject"])
def test_self_review__refused_at_pull_whatever_the_server_let_through(
    studio: Studio, images: list[Image], verdict: str
) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    studio.decide(task, verdict, "mine", by=ANNOTATOR, strokes=FIX if verdict == "fixed" else None)
    line = problem(studio.pull_reviews())
    assert f"annotator and reviewer are both '{ANNOTATOR}': a mask needs a second person" in line
    assert line.endswith(f"; see {studio.link(task, Purpose.REVIEW)}")
    assert studio.state(images[0]) == "submitted"
    assert verdicts(studio) == []
    assert len(studio.drawn(images[0])) == 1
    studio.server.delete_annotation(max(studio.server.annotations))
    studio.decide(task, "accept")
    studio.pull_reviews()
    assert studio.state(images[0]) == "accepted"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_self_review__by_changing_somebody_else_s_verdict(
    studio: Studio, images: list[Image]
) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    number = studio.decide(task, "reject", "no")
    studio.pull_reviews()
    studio.server.edit(
        number,
        result=[*studio.opened(task), chosen("verdict", "accept")],
        user=studio.people[ANNOTATOR],
    )
    assert "a mask needs a second person" in problem(studio.pull_reviews())
    assert studio.state(images[0]) == "rework"
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("skipped", [True, False])
def test_review__without_a_verdict(studio: Studio, images: list[Image], skipped: bool) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    studio.server.annotate(
        task, studio.people[REVIEWER], studio.opened(task), was_cancelled=skipped
    )
    line = problem(studio.pull_reviews())
    assert "verdict" in line
    assert line.endswith(f"; see {studio.link(task, Purpose.REVIEW)}")
    assert studio.state(images[0]) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("refused", ["self-review", "skipped", "no verdict"])
def test_refused__offered_to_another_person_by_the_next_push(
    studio: Studio, images: list[Image], refused: str, wording: SnapshotAssertion
) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    if refused == "self-review":
        studio.decide(task, "accept", by=ANNOTATOR)
    else:
        result, skipped = studio.opened(task), refused == "skipped"
        studio.server.annotate(task, studio.people[SECOND], result, was_cancelled=skipped)
    # The server counts no skip: others are offered that task anyway.
    assert next_in_stream(studio, REVIEWER) == ("1.png" if refused == "skipped" else "2.png")
    problem(studio.pull_reviews())
    done = studio.push_reviews()
    assert [o for o in told(done) if o[1] != UNCHANGED] == [("1.png", REPAIRED)]
    assert notes(done) == wording
    assert endings(studio.push_reviews()) == [UNCHANGED] * 3
    assert next_in_stream(studio, REVIEWER) == "1.png"
    studio.decide(task, "accept")
    studio.pull_reviews()
    assert studio.state(images[0]) == "accepted"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_refused__its_task_was_deleted(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    studio.decide(task, "accept", by=ANNOTATOR)
    studio.pull_reviews()
    studio.server.delete_task(task)
    done = studio.push_reviews()
    assert told(done)[0] == ("1.png", REFUSED)
    assert "'ddiseg review pull --full' takes note of that" in notes(done)[0]
    studio.pull_reviews(full=True)
    assert ("1.png", ADDED) in told(studio.push_reviews())
    studio.check()


@pytest.mark.slow
def test_unread__an_edit_that_replaced_the_mask_keeps_it_from_review(
    studio: Studio, images: list[Image]
) -> None:
    """Somebody picks a skip reason on a submitted image and presses Update instead of Skip."""
    studio.push_reviews()
    task = studio.review_task(images[0])
    mask = studio.opened(1)
    studio.server.edit(1, result=[*mask, chosen("skip_reason", "blurry")])
    said = problem(studio.pull())
    done = studio.push_reviews()
    assert told(done)[0] == ("1.png", REFUSED)
    assert notes(done) == [
        f"its annotator changed it since, and that version can't be read ({said}): once it is "
        "corrected there, 'ddiseg label pull', then 'ddiseg review push'"
    ]
    assert tab(studio, REVIEWER) == ["2.png", "3.png"]
    studio.decide(task, "accept")
    assert "that version can't be read" in problem(studio.pull_reviews())
    assert studio.state(images[0]) == "submitted"
    assert studio.pull().problems == [f"1.png: {said}"]
    studio.server.edit(1, result=mask)
    assert studio.pull().problems == []
    done = studio.push_reviews()
    assert tab(studio, REVIEWER) == ["1.png", "2.png", "3.png"]
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_verdict__changed_by_who_gave_it(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    number = studio.decide(task, "accept")
    studio.pull_reviews()
    studio.server.edit(number, result=[*studio.opened(task), chosen("verdict", "reject")])
    studio.pull_reviews()
    assert studio.state(images[0]) == "rework"
    studio.server.edit(number, result=[*studio.opened(task), chosen("verdict", "accept")])
    studio.pull_reviews()
    assert studio.state(images[0]) == "accepted"
    assert [v for _, v, _ in verdicts(studio)] == ["accept", "reject", "accept"]
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_verdict__of_two_people(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    studio.decide(task, "accept")
    studio.decide(task, "reject", "no", by=SECOND)
    done = studio.pull_reviews()
    assert "this mask has another verdict already" in problem(done)
    assert studio.state(images[0]) == "accepted"
    assert len(verdicts(studio)) == 1
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_verdict__on_a_mask_that_was_changed_meanwhile(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    task = studio.review_task(images[0])
    studio.server.edit(1, result=FIX)
    studio.pull()
    studio.decide(task, "accept")
    line = problem(studio.pull_reviews())
    assert (
        "was changed after this mask went to review; 'ddiseg review push' sends the newer" in line
    )
    assert studio.state(images[0]) == "submitted"
    assert studio.catalogue.masks.accepted() == {}
    studio.check(all_pulled=True)


# Which masks wait


@pytest.mark.slow
def test_changed__the_newer_mask_takes_the_older_one_s_place(
    studio: Studio, images: list[Image]
) -> None:
    studio.push_reviews()
    first = studio.review_task(images[0])
    studio.server.edit(1, result=FIX)
    studio.pull()
    done = studio.push_reviews()
    assert sorted(told(done)) == [
        ("1.png", ADDED),
        ("2.png", UNCHANGED),
        ("3.png", UNCHANGED),
    ]
    second = studio.review_task(images[0])
    assert second != first
    waits = {n: studio.server.tasks[n].data["waits"] for n in (first, second)}
    assert waits == {first: "no", second: "yes"}
    assert tab(studio, REVIEWER) == ["2.png", "3.png", "1.png"]
    studio.check()


@pytest.mark.slow
def test_changed__and_changed_back(studio: Studio, images: list[Image]) -> None:
    """The first mask waits again, and its task is in the tabs again."""
    studio.push_reviews()
    first, before = studio.review_task(images[0]), studio.server.annotations[1].result
    studio.server.edit(1, result=FIX)
    studio.pull()
    studio.push_reviews()
    studio.server.edit(1, result=before)
    studio.pull()
    studio.push_reviews()
    assert sorted(tab(studio, REVIEWER)) == ["1.png", "2.png", "3.png"]
    assert studio.server.tasks[first].data["waits"] == "yes"
    studio.decide(first, "accept")
    assert endings(studio.pull_reviews()) == [ADDED]
    assert studio.state(images[0]) == "accepted"
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_rejected__handed_in_again_gets_a_new_review(
    studio: Studio, images: list[Image], same: bool
) -> None:
    studio.push_reviews()
    first = studio.review_task(images[0])
    studio.decide(first, "reject", "no")
    studio.pull_reviews()
    studio.push_reviews()
    assert tab(studio, REVIEWER) == ["2.png", "3.png"]
    studio.server.edit(1, result=None if same else FIX)
    studio.pull()
    assert studio.state(images[0]) == "submitted"
    studio.push_reviews()
    second = studio.review_task(images[0])
    assert second != first
    assert tab(studio, REVIEWER) == ["2.png", "3.png", "1.png"]
    assert studio.server.tasks[second].data["waits"] == "yes"
    studio.decide(second, "accept")
    studio.pull_reviews()
    assert studio.state(images[0]) == "accepted"
    assert [v for _, v, _ in verdicts(studio)] == ["reject", "accept"]
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_sample__the_rest_is_counted_and_sent_when_all_are_asked_for(studio: Studio) -> None:
    light, dark = studio.add_images(4), studio.add_images(4, "V-VI")
    studio.push()
    for task in range(1, 9):
        studio.submit(task, FIX)
    studio.pull()
    done = studio.push_reviews(sample=50)
    assert (len(done.outcomes), done.unsampled) == (4, 4)
    sent = {t.image_id for t in studio.tasks(Purpose.REVIEW)}
    assert len(sent & {i.id for i in light}) == len(sent & {i.id for i in dark}) == 2
    again = studio.push_reviews(sample=50, seed=1)
    assert (endings(again), again.unsampled) == ([UNCHANGED] * 4, 4)
    assert studio.states() == {"submitted": 8}
    event = studio.catalogue.events.last("push")
    assert event is not None
    assert event.detail["sample"] == 50
    studio.check()
    rest = studio.push_reviews(sample=100)
    assert (sorted(endings(rest)), rest.unsampled) == ([ADDED] * 4 + [UNCHANGED] * 4, 0)
    assert len(studio.tasks(Purpose.REVIEW)) == 8
    studio.check()


@pytest.mark.slow
def test_sample__sent_one_by_one(studio: Studio) -> None:
    for number in range(1, 6):
        studio.push(studio.add_images())
        studio.submit(number, FIX)
        studio.pull()
        studio.push_reviews(sample=20)
    sent = [t for t in studio.tasks(Purpose.REVIEW) if t.remote_id is not None]
    assert len(sent) == 1
    studio.check()


@pytest.mark.slow
def test_sample__a_review_that_was_deleted_is_sent_again(studio: Studio) -> None:
    studio.add_images(4)
    studio.push()
    for task in range(1, 5):
        studio.submit(task, FIX)
    studio.pull()
    studio.push_reviews(sample=25)
    [sent] = [t for t in studio.tasks(Purpose.REVIEW) if t.remote_id is not None]
    studio.server.delete_task(sent.remote_id)
    studio.pull_reviews(full=True)
    assert told(studio.push_reviews(sample=0)) == [
        (studio.catalogue.images.find(f"#{sent.image_id}").name, ADDED)
    ]
    studio.check()


@pytest.mark.slow
def test_sample__none(studio: Studio, images: list[Image]) -> None:
    done = studio.push_reviews(sample=0)
    assert (done.outcomes, done.unsampled) == ([], 3)
    studio.check()


@pytest.mark.parametrize("sample", [-1, 100.5, float("nan")])
def test_sample__that_makes_no_sense(studio: Studio, sample: float, refusal: Refusal) -> None:
    with refusal(InputError):
        studio.push_reviews(sample=sample)
    assert studio.server.requests == []


# Faults


@pytest.mark.slow
def test_deleted__verdict_waits_again(studio: Studio, images: list[Image]) -> None:
    """What it said is kept, as an acceptance may have been released meanwhile."""
    studio.push_reviews()
    number = studio.decide(studio.review_task(images[0]), "accept")
    studio.pull_reviews()
    studio.server.delete_annotation(number)
    assert endings(studio.pull_reviews()) == [REPAIRED]
    assert studio.state(images[0]) == "accepted"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_deleted__review_task_is_sent_again(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    first = studio.review_task(images[0])
    studio.server.delete_task(first)
    done = studio.pull_reviews(full=True)
    assert told(done) == [("1.png", REPAIRED)]
    assert "'ddiseg review push' sends it again" in str(done.outcomes[0].note)
    assert studio.states() == {"submitted": 3}
    studio.push_reviews()
    assert studio.review_task(images[0]) != first
    studio.check()


@pytest.mark.slow
def test_deleted__review_task_of_a_mask_that_no_longer_waits(
    studio: Studio, images: list[Image]
) -> None:
    studio.push_reviews()
    studio.server.delete_task(studio.review_task(images[0]))
    studio.catalogue.masks.review(studio.in_review(images[0]).id, REVIEWER, "accept")
    assert endings(studio.push_reviews()) == [UNCHANGED] * 2
    studio.check()


@pytest.mark.slow
def test_deleted__review_project(studio: Studio, images: list[Image], refusal: Refusal) -> None:
    studio.push_reviews()
    with_tasks = studio.number(Purpose.REVIEW)
    for task in [t for t in studio.server.tasks.values() if t.project.id == with_tasks]:
        studio.server.delete_task(task.id)
    del studio.server.projects[with_tasks]
    with refusal(ServerError):
        studio.push_reviews()
    assert endings(studio.pull_reviews(full=True)) == [REPAIRED] * 3
    assert endings(studio.push_reviews()) == [ADDED] * 3
    studio.check()


@pytest.mark.slow
def test_photograph__missing(studio: Studio, images: list[Image]) -> None:
    """The copy for annotators is reused; without that, the mask waits for the photograph."""
    for path in (
        *studio.copies()[:1],
        Path(studio.workspace.store.path(Kind.IMAGE, images[1].content_hash)),
    ):
        path.unlink()
    hidden = studio.copies()
    for path in hidden:
        path.unlink()
    done = studio.push_reviews()
    assert sorted(told(done)) == [("1.png", ADDED), ("2.png", REFUSED), ("3.png", ADDED)]
    assert studio.states() == {"submitted": 3}
    studio.check()


def finish(studio: Studio, images: Sequence[Image]) -> None:
    """The same commands again: one review a mask, one verdict a review."""
    studio.server.behave()
    studio.push_reviews()
    assert len(studio.tasks(Purpose.REVIEW)) == 3
    for image, verdict in zip(images, ("accept", "fixed", "reject"), strict=True):
        task = studio.review_task(image)
        if not studio.server.tasks[task].annotations:
            studio.decide(task, verdict, "no", strokes=FIX if verdict == "fixed" else None)
    studio.pull_reviews()
    assert [studio.state(image) for image in images] == ["accepted", "accepted", "rework"]
    assert [v for _, v, _ in verdicts(studio)] == ["accept", "fixed", "reject"]
    assert [len(studio.drawn(image)) for image in images] == [1, 2, 1]
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [cut(), done_then_cut()], ids=["cut", "done, then cut"])
def test_cut__at_each_request_of_push_and_of_pull(
    studio: Studio, images: list[Image], fault: Fault
) -> None:
    assert studio.interrupt(studio.push_reviews, fault) > 5
    assert len(titles(studio)) == 4
    for image, verdict in zip(images, ("accept", "fixed", "reject"), strict=True):
        strokes = FIX if verdict == "fixed" else None
        studio.decide(studio.review_task(image), verdict, "no", strokes=strokes)
    assert studio.interrupt(studio.pull_reviews, fault) > 5
    finish(studio, images)


@pytest.mark.slow
def test_refused__then_again(studio: Studio, images: list[Image]) -> None:
    for code in (401, 403, 500):
        studio.server.misbehave("POST", "/api/projects/*/import", status(code))
        with pytest.raises(ServerError):
            studio.push_reviews()
        assert studio.states() == {"submitted": 3}
    finish(studio, images)


@pytest.mark.slow
def test_two_pulls__one_inside_the_other(studio: Studio, images: list[Image]) -> None:
    studio.push_reviews()
    studio.decide(studio.review_task(images[0]), "fixed", strokes=FIX)

    def pull_too() -> None:
        other = Workspace.open(studio.workspace.root)
        pull(other, studio.connection, Purpose.REVIEW, "other manager")
        other.catalogue.close()

    studio.server.misbehave("GET", "/api/tasks", meanwhile(pull_too), skip=1)
    studio.pull_reviews()
    assert studio.state(images[0]) == "accepted"
    assert len(studio.drawn(images[0])) == 2
    assert [v for _, v, _ in verdicts(studio)] == ["fixed"]
    studio.check(all_pulled=True)
