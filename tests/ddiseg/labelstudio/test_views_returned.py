"""Skipped images that were reopened: somebody finds them, though their task is done for the server."""

from __future__ import annotations

import pytest

from ddiseg.catalogue.tables import Image
from ddiseg.labelstudio.views import RETURNED
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


def test_reopened__painted_by_who_had_skipped_it(studio: Studio, reopened: Image) -> None:
    assert studio.pull().returned is not None  # a pull shows it too
    assert returned(studio) == ["1.png"]
    studio.server.edit(1, result=LESION, was_cancelled=False)
    studio.pull()
    assert studio.in_review(reopened).annotator == ANNOTATOR
    assert returned(studio) == []
    studio.check(all_pulled=True)


def test_reopened__skipped_again(studio: Studio, reopened: Image) -> None:
    studio.push()
    studio.server.edit(1, result=[chosen("skip_reason", "scalp")])
    studio.pull()
    assert studio.state(reopened) == "skipped"
    assert (returned(studio), comment(studio, 1)) == ([], "")


def test_reopened__the_skip_was_deleted_there_so_the_stream_offers_it(
    studio: Studio, reopened: Image
) -> None:
    studio.push()
    studio.server.delete_annotation(1)
    studio.pull()
    assert studio.state(reopened) == "queued"
    assert returned(studio) == []
    assert not studio.server.tasks[1].is_labeled


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
