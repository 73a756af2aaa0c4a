"""What reviewers' verdicts from a labelling server do to an image."""

from __future__ import annotations

from dataclasses import replace

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import AnnotationPage
from ddiseg.catalogue.masks import ACCEPT, FIXED, REJECT
from ddiseg.errors import InputError
from ddiseg.outcomes import FileOutcome, Outcome
from tests.ddiseg.catalogue.desk import (
    ACCEPTED,
    ANNOTATOR,
    IN_REVIEW,
    REVIEWER,
    SECOND,
    Desk,
    Standing,
)
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases

REJECTED = Standing(
    "rework",
    ["submit annotator-1", "reject reviewer-1"],
    ["annotator-1 a"],
    reviews=["reviewer-1 reject annotator-1 a: rim too wide"],
)
FIX = "reviewer-1 f < annotator-1 a"
MENDED = Standing(
    "accepted",
    ["submit annotator-1", "accept reviewer-1"],
    ["annotator-1 a", FIX],
    accepted=FIX,
    reviews=["reviewer-1 fixed annotator-1 a"],
)
#: What a change of mind adds to the events before the new verdict.
AGAIN = ["submit reviewer-1"]
REOPENED = ["reopen reviewer-1", "submit reviewer-1"]


@pytest.fixture
def waiting(desk: Desk) -> int:
    """The number of an annotation whose mask was sent to review."""
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.send_to_review()
    return number


def _refused(outcomes: list[FileOutcome]) -> str:
    """The reason of the one refusal, which is listed as well."""
    [outcome] = outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert outcome.note is not None
    return outcome.note


def test_accept(desk: Desk, waiting: int) -> None:
    desk.verdict(REVIEWER, ACCEPT)
    assert desk.pull_reviews() == [FileOutcome("1.png", Outcome.ADDED)]
    assert desk.stands() == ACCEPTED


def test_accept__with_a_comment(desk: Desk, waiting: int, wording: SnapshotAssertion) -> None:
    desk.verdict(REVIEWER, ACCEPT, "well done")
    desk.pull_reviews()
    assert desk.stands().reviews == wording


@pytest.mark.slow
def test_accept__with_changed_pixels_is_refused(desk: Desk, waiting: int) -> None:
    desk.verdict(REVIEWER, ACCEPT, pixels="f")
    assert "'accept', but 7 pixels were changed: choose 'fixed'" in _refused(desk.pull_reviews())
    assert desk.stands() == IN_REVIEW


def test_fixed__the_fix_is_accepted_and_the_review_is_of_the_annotators_mask(
    desk: Desk, waiting: int
) -> None:
    desk.verdict(REVIEWER, FIXED, pixels="f")
    desk.pull_reviews()
    assert desk.stands() == MENDED
    fix = desk.catalogue.masks.accepted()[1]
    assert desk.catalogue.masks.people_behind([fix.id]) == {fix.id: [ANNOTATOR, REVIEWER]}


def test_fixed__without_a_changed_pixel_is_an_accept(desk: Desk, waiting: int) -> None:
    desk.verdict(REVIEWER, FIXED, pixels="a")
    desk.pull_reviews()
    assert desk.stands() == ACCEPTED


@pytest.mark.parametrize("verdict", ["perhaps", "", "ACCEPT"])
def test_verdict__unknown_is_refused(desk: Desk, waiting: int, verdict: str) -> None:
    desk.verdict(REVIEWER, verdict)
    assert "is no verdict: accept, fixed or reject" in _refused(desk.pull_reviews())
    assert desk.stands() == IN_REVIEW


@pytest.mark.parametrize("verdict", [ACCEPT, FIXED, REJECT])
@pytest.mark.parametrize("reviewer", [ANNOTATOR, "Annotator-1", " ANNOTATOR-1\n", "annotator -1"])
def test_self_review__refused_however_the_name_is_written(
    desk: Desk, waiting: int, reviewer: str, verdict: str
) -> None:
    desk.verdict(reviewer, verdict, pixels="f" if verdict == FIXED else None)
    assert "a mask needs a second person" in _refused(desk.pull_reviews())
    assert desk.stands() == IN_REVIEW


@pytest.mark.parametrize("verdict", [ACCEPT, FIXED, REJECT])
@pytest.mark.parametrize("reviewer", [ANNOTATOR, SECOND])
def test_self_review__refused_to_who_only_began_or_changed_the_annotation(
    desk: Desk, reviewer: str, verdict: str
) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.submit(SECOND, "b", edit=number)  # both before the first pull
    desk.pull()
    desk.send_to_review()
    desk.verdict(reviewer, verdict, pixels="f" if verdict == FIXED else None)
    assert "a mask needs a second person" in _refused(desk.pull_reviews())
    assert desk.stands().in_review == "annotator-2 b"


def test_self_review__refused_to_who_changed_another_persons_verdict(
    desk: Desk, waiting: int
) -> None:
    number = desk.verdict(REVIEWER, REJECT, "rim too wide")
    desk.pull_reviews()
    desk.verdict(ANNOTATOR, ACCEPT, edit=number)
    assert "a mask needs a second person" in _refused(desk.pull_reviews())
    assert desk.stands() == REJECTED


def test_self_review__refused_where_the_annotator_began_the_verdict(
    desk: Desk, waiting: int
) -> None:
    number = desk.verdict(ANNOTATOR, ACCEPT)
    desk.verdict(REVIEWER, ACCEPT, edit=number)
    assert "a mask needs a second person" in _refused(desk.pull_reviews())
    assert desk.stands() == IN_REVIEW


def test_stale__the_mask_was_replaced_meanwhile(desk: Desk, waiting: int) -> None:
    desk.submit(ANNOTATOR, "b", edit=waiting)
    desk.pull()
    desk.verdict(REVIEWER, ACCEPT)
    assert "'ddiseg review push' sends the newer one" in _refused(desk.pull_reviews())
    assert desk.stands() == Standing(
        "submitted",
        ["submit annotator-1"] * 2,
        ["annotator-1 a", "annotator-1 b"],
        in_review="annotator-1 b",
    )


def test_stale__the_annotation_was_deleted_meanwhile(desk: Desk, waiting: int) -> None:
    desk.delete(waiting)
    desk.pull()
    before = desk.stands()
    desk.verdict(REVIEWER, ACCEPT)
    assert "was changed after this mask went to review" in _refused(desk.pull_reviews())
    assert desk.stands() == before


@pytest.mark.parametrize("verdict", [ACCEPT, REJECT])
def test_stale__the_annotators_change_can_not_be_read(
    desk: Desk, waiting: int, verdict: str, refusal: Refusal
) -> None:
    [mask] = desk.catalogue.masks.of_image(1)
    assert desk.catalogue.tasks.unread_edits([mask.id]) == {}
    desk.spoil(ANNOTATOR, edit=waiting)
    desk.pull()
    desk.verdict(REVIEWER, verdict)
    why = (
        "its annotator changed it since, and that version can't be read (the run lengths end early)"
        ": once it is corrected there, 'ddiseg label pull', then 'ddiseg review push'"
    )
    assert _refused(desk.pull_reviews()) == f"1.png: {why}"
    assert desk.stands() == IN_REVIEW
    assert desk.catalogue.tasks.unread_edits([mask.id]) == {mask.id: why}
    with refusal(InputError):
        desk.catalogue.masks.review(mask.id, REVIEWER, verdict, "see the rim")
    desk.submit(ANNOTATOR, "a", edit=waiting)
    desk.pull()
    assert desk.catalogue.tasks.unread_edits([mask.id]) == {}
    assert [o.outcome for o in desk.pull_reviews()] == [Outcome.ADDED]


def test_stale__a_change_of_mind_about_a_mask_that_was_replaced(desk: Desk, waiting: int) -> None:
    number = desk.verdict(REVIEWER, REJECT, "rim too wide")
    desk.pull_reviews()
    old_task = desk.page
    desk.submit(ANNOTATOR, "b", edit=waiting)
    desk.pull()
    desk.review(SECOND, REJECT)
    before = desk.stands()
    assert before.state == "rework"
    [rejects] = old_task.received
    assert rejects.remote_id == number
    accepts = replace(rejects, verdict=(ACCEPT, None), updated_at="2026-01-02")
    outcomes = desk.receive(desk.review_project_id, replace(old_task, received=[accepts]))
    assert "was changed after this mask went to review" in _refused(outcomes)
    assert desk.stands() == before


def test_stale__a_change_of_mind_after_the_same_mask_was_reviewed_again(
    desk: Desk, waiting: int
) -> None:
    number = desk.verdict(REVIEWER, REJECT, "rim too wide")
    desk.pull_reviews()
    desk.save_again(waiting)  # the annotator stands by it
    desk.pull()
    [mask] = desk.catalogue.masks.of_image(1)
    desk.catalogue.masks.review(mask.id, SECOND, ACCEPT)
    before = desk.stands()
    desk.verdict(REVIEWER, REJECT, "really", edit=number)
    assert "this mask has another verdict already" in _refused(desk.pull_reviews())
    assert desk.stands() == before


def test_second_reviewer__refused_and_the_first_verdict_stands(desk: Desk, waiting: int) -> None:
    desk.verdict(REVIEWER, ACCEPT)
    desk.pull_reviews()
    desk.verdict("reviewer-2", REJECT, "no")
    unchanged, refused = desk.pull_reviews()
    assert unchanged.outcome is Outcome.UNCHANGED
    assert "this mask has another verdict already" in _refused([refused])
    assert desk.stands() == ACCEPTED
    before = desk.rows()
    desk.receive_again()
    assert desk.rows() == before


def test_second_reviewer__the_first_sent_it_back(
    desk: Desk, waiting: int, wording: SnapshotAssertion
) -> None:
    desk.verdict(REVIEWER, REJECT, "rim too wide")
    desk.verdict("reviewer-2", ACCEPT)
    _, refused = desk.pull_reviews()
    assert _refused([refused]) == wording


def test_second_reviewer__first_is_who_said_it_first(desk: Desk, waiting: int) -> None:
    began_first = desk.verdict("reviewer-2", REJECT, "no")
    desk.verdict(REVIEWER, ACCEPT)
    desk.save_again(began_first)
    desk.pull_reviews()
    assert desk.stands() == ACCEPTED


def test_second_reviewer__the_annotator_had_tried_before(desk: Desk, waiting: int) -> None:
    desk.verdict(ANNOTATOR, ACCEPT)
    desk.verdict(REVIEWER, ACCEPT)
    refused, _ = desk.pull_reviews()
    assert desk.stands() == ACCEPTED
    before = desk.rows()
    again, _ = desk.receive_again()
    assert again == refused  # told for the same reason each time
    assert desk.rows() == before


def test_second_reviewer__the_first_was_in_the_terminal(desk: Desk, waiting: int) -> None:
    [mask] = desk.catalogue.masks.of_image(1)
    desk.catalogue.masks.review(mask.id, REVIEWER, ACCEPT)
    desk.verdict("reviewer-2", REJECT, "no")
    note = _refused(desk.pull_reviews())
    assert "this mask has another verdict already" in note
    assert "'ddiseg reopen 1.png', which sends the image back to its annotator first" in note
    assert desk.stands() == ACCEPTED


#: Verdict, comment and pixels as a reviewer may give them, and how the image then stands.
VERDICTS = {
    "accept": ((ACCEPT, None, None), ACCEPTED),
    "reject": ((REJECT, "rim too wide", None), REJECTED),
    "fixed": ((FIXED, None, "f"), MENDED),
}


@pytest.mark.slow
@pytest.mark.parametrize("first", VERDICTS)
@pytest.mark.parametrize("then", VERDICTS)
def test_change_of_mind__the_newer_verdict_stands(
    desk: Desk, waiting: int, first: str, then: str
) -> None:
    (verdict, comment, pixels), stood = VERDICTS[first]
    number = desk.verdict(REVIEWER, verdict, comment, pixels=pixels)
    desk.pull_reviews()
    assert desk.stands() == stood
    (verdict, comment, pixels), stands = VERDICTS[then]
    desk.verdict(REVIEWER, verdict, comment, pixels=pixels, edit=number)
    desk.pull_reviews()
    if first == then:
        assert desk.stands() == stood
        return
    assert desk.stands() == replace(
        stands,
        events=[
            *stood.events,
            *(AGAIN if first == "reject" else REOPENED),
            stands.events[-1],
        ],
        masks=stood.masks if first == "fixed" else stands.masks,
        reviews=stood.reviews + stands.reviews,
    )


def test_change_of_mind__another_fix(desk: Desk, waiting: int) -> None:
    number = desk.verdict(REVIEWER, FIXED, pixels="f")
    desk.pull_reviews()
    for pixels in ("g", "f"):
        desk.verdict(REVIEWER, FIXED, pixels=pixels, edit=number)
        desk.pull_reviews()
        assert desk.stands().accepted == f"reviewer-1 {pixels} < annotator-1 a"
    assert desk.stands().masks == ["annotator-1 a", FIX, "reviewer-1 g < annotator-1 a"]
    assert len(desk.stands().reviews) == 3


def test_change_of_mind__to_no_verdict_leaves_all_as_it_was(desk: Desk, waiting: int) -> None:
    number = desk.verdict(REVIEWER, ACCEPT)
    desk.pull_reviews()
    desk.verdict(REVIEWER, "perhaps", edit=number)
    assert "is no verdict" in _refused(desk.pull_reviews())
    assert desk.stands() == ACCEPTED
    [(_, listed)] = desk.catalogue.tasks.problems(desk.review_project_id)
    assert listed.remote_id == number
    desk.verdict(REVIEWER, ACCEPT, edit=number)
    desk.pull_reviews()
    assert desk.catalogue.tasks.problems(desk.review_project_id) == []


def test_change_of_mind__is_reported_once(desk: Desk, waiting: int) -> None:
    number = desk.verdict(REVIEWER, ACCEPT)
    desk.pull_reviews()
    desk.verdict(REVIEWER, REJECT, "rim too wide", edit=number)
    desk.pull_reviews()
    before = desk.rows()
    assert [o.outcome for o in desk.receive_again()] == [Outcome.UNCHANGED]
    assert desk.rows() == before


@pytest.mark.parametrize(("verdict", "pixels"), [(ACCEPT, None), (FIXED, "f")])
def test_saved_again__does_not_undo_a_reopening(
    desk: Desk, waiting: int, verdict: str, pixels: str | None
) -> None:
    number = desk.verdict(REVIEWER, verdict, pixels=pixels)
    desk.pull_reviews()
    desk.catalogue.images.reopen(1, "manager")
    before = desk.stands()
    assert before.state == "rework"
    desk.save_again(number)
    desk.pull_reviews()
    assert desk.stands() == before


def test_deleted__verdict_leaves_the_acceptance(desk: Desk, waiting: int) -> None:
    number = desk.verdict(REVIEWER, ACCEPT)
    desk.pull_reviews()
    desk.delete(number)
    [outcome] = desk.pull_reviews()
    assert outcome.outcome is Outcome.REPAIRED
    assert desk.stands() == ACCEPTED


@pytest.mark.slow
def test_edit__of_a_mask_whose_fix_was_accepted_reopens(desk: Desk, waiting: int) -> None:
    desk.verdict(REVIEWER, FIXED, pixels="f")
    desk.pull_reviews()
    desk.submit(ANNOTATOR, "b", edit=waiting)
    desk.pull()
    assert desk.stands() == replace(
        MENDED,
        state="submitted",
        events=[*MENDED.events, "reopen annotator-1", "submit annotator-1"],
        masks=[*MENDED.masks, "annotator-1 b"],
        in_review="annotator-1 b",
        accepted=None,
    )


def test_edit__to_what_the_reviewer_made_of_it_stays_accepted(desk: Desk, waiting: int) -> None:
    desk.verdict(REVIEWER, FIXED, pixels="f")
    desk.pull_reviews()
    desk.submit(REVIEWER, "f", edit=waiting)
    desk.pull()
    assert desk.stands() == MENDED


def test_page__of_reviews_without_a_verdict(desk: Desk, waiting: int) -> None:
    before = desk.rows()
    assert desk.receive(desk.review_project_id, AnnotationPage([], {})) == []
    assert desk.rows() == before
