"""Several people at one task, and annotations that are deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddiseg.catalogue import AnnotationPage
from ddiseg.catalogue.masks import ACCEPT
from ddiseg.outcomes import FileOutcome, Outcome
from tests.ddiseg.catalogue.desk import (
    ACCEPTED,
    ANNOTATOR,
    IN_REVIEW,
    REVIEWER,
    SECOND,
    Desk,
    Standing,
    drawn_by,
)

pytestmark = pytest.mark.both_databases

TAKEN_BACK = Standing(
    "in_labelling", ["submit annotator-1", "withdraw annotator-1"], ["annotator-1 a"]
)


def _outcomes(outcomes: list[FileOutcome]) -> list[Outcome]:
    return [o.outcome for o in outcomes]


# Deletions


def test_deleted__while_in_review(desk: Desk, submitted: int) -> None:
    desk.delete(submitted)
    note = f"annotation {submitted} was deleted on the server; its content is kept here"
    assert desk.pull() == [FileOutcome("1.png", Outcome.REPAIRED, note)]
    assert desk.stands() == TAKEN_BACK
    assert desk.receive_again() == []
    assert desk.stands() == TAKEN_BACK


def test_deleted__after_acceptance(desk: Desk, accepted: int) -> None:
    desk.delete(accepted)
    assert _outcomes(desk.pull()) == [Outcome.REPAIRED]
    assert desk.stands() == ACCEPTED


def test_deleted__skip(desk: Desk) -> None:
    desk.delete(desk.skip(ANNOTATOR, "blurry"))
    desk.pull()
    number = desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    desk.delete(number)
    desk.pull()
    assert desk.stands() == Standing("in_labelling", ["skip annotator-1", "withdraw annotator-1"])


def test_deleted__while_another_mask_is_in_review(desk: Desk, submitted: int) -> None:
    desk.catalogue.masks.submit([drawn_by("annotator-3", "x")])
    before = desk.stands()
    desk.delete(submitted)
    desk.pull()
    assert before.in_review == "annotator-3 x"
    assert desk.stands() == before


def test_deleted__first_reader_so_the_image_follows_the_second(desk: Desk, submitted: int) -> None:
    desk.submit(SECOND, "b")
    desk.delete(submitted)
    assert _outcomes(desk.pull()) == [Outcome.ADDED, Outcome.REPAIRED]
    assert desk.stands() == Standing(
        "submitted",
        ["submit annotator-1", "submit annotator-2"],
        ["annotator-1 a", "annotator-2 b"],
        in_review="annotator-2 b",
    )


def test_deleted__then_seen_again_counts_again(desk: Desk, submitted: int) -> None:
    """A page that was read before the annotation was there, and received after it."""
    page = desk.page
    desk.receive(desk.project_id, AnnotationPage([], {desk.task(): set()}))
    assert desk.stands() == TAKEN_BACK
    assert _outcomes(desk.receive(desk.project_id, page)) == [Outcome.UNCHANGED]
    assert desk.stands() == replace(IN_REVIEW, events=[*TAKEN_BACK.events, "submit annotator-1"])


# Several people


def test_two_readers__the_image_follows_the_first(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.submit(SECOND, "b")
    desk.pull()
    assert desk.stands() == replace(IN_REVIEW, masks=["annotator-1 a", "annotator-2 b"])
    [readings] = desk.catalogue.tasks.readings().values()
    assert [(m.annotator, m.content_hash[0]) for m in readings] == [(ANNOTATOR, "a"), (SECOND, "b")]


def test_two_readers__an_edit_by_the_second_leaves_the_image_alone(
    desk: Desk, accepted: int
) -> None:
    number = desk.submit(SECOND, "b")
    desk.pull()
    desk.submit(SECOND, "c", edit=number)
    desk.pull()
    masks = ["annotator-1 a", "annotator-2 b", "annotator-2 c"]
    assert desk.stands() == replace(ACCEPTED, masks=masks)


def test_two_readers__the_first_is_understood_after_the_seconds_was_accepted(desk: Desk) -> None:
    number = desk.spoil(ANNOTATOR)
    desk.submit(SECOND, "b")
    desk.pull()
    desk.review(REVIEWER, ACCEPT)
    before = desk.stands()
    assert before.accepted == "annotator-2 b"
    desk.submit(ANNOTATOR, "a", edit=number)
    desk.pull()
    assert desk.stands() == replace(before, masks=["annotator-2 b", "annotator-1 a"])


def test_two_readers__the_second_skips(desk: Desk, submitted: int) -> None:
    desk.skip(SECOND, "blurry")
    desk.pull()
    assert desk.stands() == IN_REVIEW


def test_edit__by_another_person(desk: Desk, submitted: int) -> None:
    desk.submit(SECOND, "b", edit=submitted)
    desk.pull()
    mine = "annotator-2 b < annotator-1 a"
    assert desk.stands() == Standing(
        "submitted",
        ["submit annotator-1", "submit annotator-2"],
        ["annotator-1 a", mine],
        in_review=mine,
    )
    mask = desk.catalogue.masks.in_review()[1]
    assert desk.catalogue.masks.people_behind([mask.id]) == {mask.id: [ANNOTATOR, SECOND]}
    desk.send_to_review()
    for person in (ANNOTATOR, SECOND):
        desk.verdict(person, ACCEPT)
    assert _outcomes(desk.pull_reviews()) == [Outcome.REFUSED, Outcome.REFUSED]
    assert desk.stands().state == "submitted"


@pytest.mark.slow
def test_edit__by_another_person_already_when_it_is_first_seen(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.submit(SECOND, "b", edit=number)
    desk.pull()
    assert desk.stands().masks == ["annotator-2 b"]
    assert desk.catalogue.masks.people_behind([1]) == {1: [ANNOTATOR, SECOND]}


def test_edit__who_edited_in_between_is_not_forgotten(desk: Desk, submitted: int) -> None:
    for person, pixels in ((SECOND, "b"), (ANNOTATOR, "c"), (ANNOTATOR, "d")):
        desk.submit(person, pixels, edit=submitted)
        desk.pull()
    mask = desk.catalogue.masks.in_review()[1]
    assert mask.content_hash[0] == "d"
    assert desk.catalogue.masks.people_behind([mask.id]) == {mask.id: [ANNOTATOR, SECOND]}
