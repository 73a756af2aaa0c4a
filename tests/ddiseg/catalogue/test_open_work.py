"""Who has which images, as far as the last pull knows."""

from __future__ import annotations

from ddiseg.catalogue.open_work import OpenWork
from tests.ddiseg.catalogue.desk import ANNOTATOR, REVIEWER, URL, Desk


def _desk(images: int = 1) -> Desk:
    """A desk whose projects are on the server."""
    desk = Desk.in_memory(images)
    for number, project_id in enumerate((desk.project_id, desk.review_project_id), 1):
        desk.catalogue.tasks.set_remote_id(project_id, number)
    return desk


def _hands(desk: Desk) -> OpenWork:
    return desk.catalogue.tasks.open_work(URL)


def test_hands__from_annotator_to_reviewer_and_back() -> None:
    desk = _desk(2)
    hand = _hands(desk)
    assert (hand.given, hand.with_annotators, hand.shown) == ({1, 2}, {1, 2}, {1: None, 2: None})
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    hand = _hands(desk)
    assert (hand.with_annotators, hand.to_review, hand.with_reviewers) == ({2}, {1}, set())
    desk.send_to_review()
    hand = _hands(desk)
    assert (hand.to_review, hand.with_reviewers) == (set(), {1})
    desk.verdict(REVIEWER, "reject", "the rim")
    desk.pull_reviews()
    hand = _hands(desk)
    assert (hand.with_annotators, hand.with_reviewers, hand.shown) == ({1, 2}, set(), {2: None})
    desk.submit(ANNOTATOR, "b", edit=number)
    desk.pull()
    assert _hands(desk).to_review == {1}


def test_hands__a_mask_that_nobody_can_read_any_more_is_its_annotators() -> None:
    desk = _desk()
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.spoil(ANNOTATOR, edit=number)
    desk.pull()
    hand = _hands(desk)
    assert (hand.with_annotators, hand.to_review, hand.with_reviewers) == ({1}, set(), set())


def test_hands__a_skipped_image_is_nobodys() -> None:
    desk = _desk()
    desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    assert _hands(desk).with_annotators == set()


def test_hands__a_task_that_was_deleted_on_the_server() -> None:
    desk = _desk()
    desk.catalogue.tasks.mark_deleted([desk.task()], "manager")
    assert _hands(desk) == OpenWork(set(), set(), {}, set(), set(), set())


def test_hands__of_another_server_are_empty() -> None:
    assert _desk().catalogue.tasks.open_work("http://other.example").given == set()
