"""Tabs of the list of tasks: short titles, the columns that people look for, and returned images."""

from __future__ import annotations

import pytest

from ddiseg.catalogue import Purpose
from ddiseg.catalogue.tables import Image
from ddiseg.labelstudio.views import ALL, RETURNED, TITLE_WIDTH, short_names
from tests.ddiseg.labelstudio.studio import (
    ANNOTATOR,
    LESION,
    REVIEWER,
    SECOND,
    Studio,
    chosen,
    notes,
)
from tests.fake_label_studio.talk import Talk

#: Label Studio's own columns that stay, in its order.
ITS_OWN = {"completed_at", "cancelled_annotations"}


def columns(studio: Studio, purpose: Purpose, list_of: str = "explore") -> set[str]:
    """The keys of the tasks' data that every tab of a project shows, beside Label Studio's own."""
    number = studio.number(purpose)
    data = next(t.data for t in studio.server.tasks.values() if t.project.id == number)
    tabs = [row.data for row in studio.server.tabs.values() if row.project.id == number]
    assert tabs
    hidden = {tuple(tab["hiddenColumns"][list_of]) for tab in tabs}
    assert len(hidden) == 1
    [names] = hidden
    return {key for key in data if f"tasks:data.{key}" not in names}


@pytest.fixture
def drawn(studio: Studio) -> Studio:
    studio.predict(studio.add_images(2))
    studio.push()
    studio.submit_unchanged(1)
    studio.pull()
    return studio


@pytest.mark.slow
def test_columns__photograph_name_and_tone(drawn: Studio) -> None:
    drawn.push_reviews()
    assert columns(drawn, Purpose.ANNOTATION) == {"image", "name", "tone", "expected"}
    assert columns(drawn, Purpose.REVIEW) == {"image", "name"}
    for purpose in Purpose:
        assert columns(drawn, purpose, "labeling") == {"image", "name"}
    [tab] = [row.data for row in drawn.server.tabs.values() if row.data["title"] == "All"]
    hidden = tab["hiddenColumns"]["explore"]
    assert {"tasks:id", "tasks:inner_id", "tasks:total_annotations"} < set(hidden)
    assert not ITS_OWN & {name.removeprefix("tasks:") for name in hidden}


@pytest.mark.slow
def test_columns__hidden_tone(studio: Studio) -> None:
    studio.add_images()
    studio.push(show_tone=False)
    assert columns(studio, Purpose.ANNOTATION) == {"image", "name"}


@pytest.mark.slow
def test_all__once(drawn: Studio) -> None:
    drawn.push()
    assert [row.data["title"] for row in drawn.server.tabs.values()] == ["All"]


@pytest.mark.slow
def test_all__takes_the_place_of_the_tab_that_label_studio_made(studio: Studio) -> None:
    """Somebody looked into the project before anything was pushed, and again before a review was."""
    studio.add_images()
    studio.push()
    studio.submit(1, [])
    studio.server.tabs.clear()
    talk = Talk(studio.server.url, studio.server.token)
    studio.push_reviews()
    for purpose in Purpose:
        data = {"title": "Default", "hiddenColumns": {"explore": [], "labeling": []}}
        talk.ask("POST", "/api/dm/views/", {"project": studio.number(purpose), "data": data})
    studio.push()
    studio.push_reviews()
    for row in studio.server.tabs.values():
        assert row.data["title"] != "Default"
        assert row.filters or row.data == ALL.data


@pytest.mark.slow
def test_all__what_people_chose_stays(drawn: Studio) -> None:
    """Columns that somebody shows, a tab of their own, and one that they gave filters."""
    [tab] = drawn.server.tabs.values()
    tab.data = {**tab.data, "hiddenColumns": {"explore": ["tasks:id"], "labeling": []}}
    talk = Talk(drawn.server.url, drawn.server.token)
    mine = {"project": drawn.number(), "data": {"title": "Mine"}}
    talk.ask("POST", "/api/dm/views/", mine)
    before = {number: dict(row.data) for number, row in drawn.server.tabs.items()}
    drawn.push()
    assert {number: row.data for number, row in drawn.server.tabs.items()} == before


@pytest.mark.parametrize(
    ("addresses", "names"),
    [
        ((ANNOTATOR, "reviewer@ddiseg.local"), ("annotator-1", "reviewer")),
        (("anna@north.org", "anna@south.org", "bo@south.org"), ("anna@north", "anna@south", "bo")),
        (("annotator@clinic-north.org", "annotator@clinic-south.org"), ("a…@clinic-north", "a…@clinic-south")),
        (("anna@derma.org", "anna@north.derma.org"), ("anna@derma", "an…@north.derma")),
        (("anna@mail.x.org", "anna@mail.y.org"), ("anna@mail.x", "anna@mail.y")),
        ((), ()),
    ],
)  # fmt: skip
def test_short_names__each_its_own(addresses: tuple[str, ...], names: tuple[str, ...]) -> None:
    found = short_names(addresses)
    assert found == dict(zip(addresses, names, strict=True))
    assert len(set(found.values())) == len(addresses)


def test_short_names__whole_in_a_tab() -> None:
    found = short_names(["annotator-1@north.org", "annotator-1@south.org"])
    assert found == {
        "annotator-1@north.org": "annotato…@north",
        "annotator-1@south.org": "annotato…@south",
    }
    assert {len(name) for name in found.values()} == {TITLE_WIDTH}


# Skipped images that were reopened: somebody finds them, though their task is done for the server


AGAIN = "Please look at this image again."


def returned(studio: Studio) -> list[str]:
    """The images that the tab lists."""
    talk = Talk(studio.server.url, studio.server.token)
    numbers = [n for n, row in studio.server.tabs.items() if row.data["title"] == RETURNED.title]
    return [
        task["data"]["name"]
        for number in numbers
        for task in talk.ask("GET", "/api/tasks", view=number)["tasks"]
    ]


def comment(studio: Studio, task: int) -> str:
    said = studio.server.tasks[task].data["review_comment"]
    assert isinstance(said, str)
    return said


@pytest.fixture
def reopened(studio: Studio, images: list[Image]) -> Image:
    """The first of three images, task 1: skipped by annotator-1 as annotation 1, and reopened."""
    studio.skip(1, "blurry")
    studio.pull()
    assert returned(studio) == []
    studio.catalogue.images.reopen(images[0].id, "manager")
    return images[0]


@pytest.mark.slow
@pytest.mark.parametrize("prelabelled", [False, True])
def test_reopened__listed_until_somebody_paints_it(
    studio: Studio, reopened: Image, prelabelled: bool
) -> None:
    if prelabelled:
        studio.predict([reopened])
    done = studio.push()
    assert done.returned is not None
    assert comment(studio, 1) == AGAIN
    assert returned(studio) == ["1.png"]
    studio.submit(1, LESION, SECOND)
    studio.pull()
    assert studio.in_review(reopened).annotator == SECOND
    assert returned(studio) == []
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_reopened__painted_by_who_had_skipped_it(studio: Studio, reopened: Image) -> None:
    assert studio.pull().returned is not None  # a pull shows it too
    assert returned(studio) == ["1.png"]
    studio.server.edit(1, result=LESION, was_cancelled=False)
    studio.pull()
    assert studio.in_review(reopened).annotator == ANNOTATOR
    assert returned(studio) == []
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_reopened__skipped_again(studio: Studio, reopened: Image) -> None:
    studio.push()
    studio.server.edit(1, result=[chosen("skip_reason", "scalp")])
    studio.pull()
    assert studio.state(reopened) == "skipped"
    assert (returned(studio), comment(studio, 1)) == ([], "")


@pytest.mark.slow
def test_reopened__the_skip_was_deleted_there_so_the_stream_offers_it(
    studio: Studio, reopened: Image
) -> None:
    studio.push()
    studio.server.delete_annotation(1)
    studio.pull()
    assert studio.state(reopened) == "queued"
    assert returned(studio) == []
    assert not studio.server.tasks[1].is_labeled


@pytest.mark.slow
def test_reopened__a_mask_that_came_while_it_was_skipped_is_handed_in(
    studio: Studio, images: list[Image]
) -> None:
    studio.catalogue.images.skip(images[0].id, "scalp", None, "manager")
    studio.submit_unchanged(1)
    stays = "the image stays skipped: 'ddiseg reopen 1.png' submits the mask"
    assert notes(studio.pull()) == [stays]
    studio.catalogue.images.reopen(images[0].id, "manager")
    assert studio.in_review(images[0]).annotator == ANNOTATOR
    studio.pull(full=True)
    assert studio.state(images[0]) == "submitted"
    assert returned(studio) == []
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_reopened__what_the_reviewer_said_is_said_again(
    studio: Studio, images: list[Image]
) -> None:
    studio.submit(1, LESION)
    studio.pull()
    mask = studio.in_review(images[0])
    studio.catalogue.masks.review(mask.id, REVIEWER, "reject", "the rim is too wide")
    studio.catalogue.images.skip(images[0].id, "scalp", None, "manager")
    studio.push()
    assert returned(studio) == []
    studio.catalogue.images.reopen(images[0].id, "manager")
    studio.push()
    assert comment(studio, 1) == f"{REVIEWER}: the rim is too wide"
    assert returned(studio) == ["1.png"]
