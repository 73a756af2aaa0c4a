"""What annotations do to an image: masks, skips and edits; pages that are received."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from ddiseg.catalogue import REASON_MISSING, AnnotationPage, Purpose
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.masks import ACCEPT, REJECT
from ddiseg.catalogue.tables import Annotation
from ddiseg.catalogue.tasks import Tasks
from ddiseg.outcomes import FileOutcome, Outcome
from tests.ddiseg.catalogue.desk import (
    ACCEPTED,
    ANNOTATOR,
    IN_REVIEW,
    REVIEWER,
    SECOND,
    URL,
    Desk,
    Standing,
    drawn_by,
)

pytestmark = pytest.mark.both_databases

ADDED, UNCHANGED, REFUSED = Outcome.ADDED, Outcome.UNCHANGED, Outcome.REFUSED


def _outcomes(outcomes: list[FileOutcome]) -> list[Outcome]:
    return [o.outcome for o in outcomes]


# Masks


def test_mask__first_one_goes_to_review(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a", lead_time=61.5, conflicts=2, holes=3, changed=4)
    assert _outcomes(desk.pull()) == [ADDED]
    assert desk.stands() == IN_REVIEW
    with desk.database.read() as session:
        [kept] = session.execute(
            select(
                *(Annotation.outcome, Annotation.people, Annotation.lead_time),
                *(Annotation.conflicts, Annotation.holes, Annotation.changed),
            )
        )
    assert tuple(kept) == ("mask", ["annotator-1"], 61.5, 2, 3, 4)


def test_page__the_same_again_changes_nothing(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.skip(SECOND, "blurry")
    desk.pull()
    before = desk.rows()
    assert _outcomes(desk.receive_again()) == [UNCHANGED, UNCHANGED]
    assert desk.rows() == before


def test_edit__before_acceptance_puts_the_new_mask_in_review(desk: Desk, submitted: int) -> None:
    desk.submit(ANNOTATOR, "b", edit=submitted)
    assert _outcomes(desk.pull()) == [ADDED]
    assert desk.stands() == Standing(
        "submitted",
        ["submit annotator-1"] * 2,
        ["annotator-1 a", "annotator-1 b"],
        in_review="annotator-1 b",
    )


def test_edit__saved_again_without_a_change_in_review(desk: Desk, submitted: int) -> None:
    desk.save_again(submitted)
    assert _outcomes(desk.pull()) == [ADDED]
    assert desk.stands() == IN_REVIEW


def test_edit__after_acceptance_reopens(desk: Desk, accepted: int) -> None:
    desk.submit(ANNOTATOR, "b", edit=accepted)
    desk.pull()
    assert desk.stands() == replace(
        ACCEPTED,
        state="submitted",
        events=[*ACCEPTED.events, "reopen annotator-1", "submit annotator-1"],
        masks=["annotator-1 a", "annotator-1 b"],
        in_review="annotator-1 b",
        accepted=None,
    )
    assert desk.catalogue.events.of_image(1)[-2].detail == {"task": 101, "edited": True}


def test_edit__back_to_an_older_mask_after_acceptance_reopens(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.submit(SECOND, "b", edit=number)
    desk.pull()
    desk.review(REVIEWER, ACCEPT)
    desk.submit(ANNOTATOR, "a", edit=number)
    desk.pull()
    assert desk.stands().state == "submitted"
    assert desk.stands().in_review == "annotator-1 a"


@pytest.mark.parametrize("verdict", [ACCEPT, "fixed"])
def test_edit__saved_again_without_a_change_stays_accepted(
    desk: Desk, submitted: int, verdict: str
) -> None:
    desk.review(REVIEWER, verdict, pixels="a" if verdict == ACCEPT else "f")
    before = desk.stands()
    desk.save_again(submitted)
    assert _outcomes(desk.pull()) == [ADDED]
    assert before.state == "accepted"
    assert desk.stands() == before


def test_edit__of_what_did_not_lead_to_the_acceptance_is_only_kept(
    desk: Desk, submitted: int
) -> None:
    desk.catalogue.masks.submit([drawn_by("annotator-3", "x")], REVIEWER)
    desk.submit(ANNOTATOR, "b", edit=submitted)
    assert _outcomes(desk.pull()) == [ADDED]
    assert desk.stands() == Standing(
        "accepted",
        ["submit annotator-1", "submit annotator-3", "accept reviewer-1"],
        ["annotator-1 a", "annotator-3 x", "annotator-1 b"],
        accepted="annotator-3 x",
        reviews=["reviewer-1 accept annotator-3 x"],
    )


def test_rework__the_edited_mask_goes_to_review(desk: Desk, submitted: int) -> None:
    desk.review(REVIEWER, REJECT, "too wide")
    desk.submit(ANNOTATOR, "b", edit=submitted)
    desk.pull()
    assert desk.stands() == Standing(
        "submitted",
        ["submit annotator-1", "reject reviewer-1", "submit annotator-1"],
        ["annotator-1 a", "annotator-1 b"],
        in_review="annotator-1 b",
        reviews=["reviewer-1 reject annotator-1 a: too wide"],
    )


def test_rework__another_reader_does_not_hand_the_rejected_mask_in_again(
    desk: Desk, submitted: int
) -> None:
    desk.review(REVIEWER, REJECT, "too wide")
    before = desk.stands()
    number = desk.submit(SECOND, "b")
    desk.pull()
    assert desk.stands() == replace(before, masks=["annotator-1 a", "annotator-2 b"])
    desk.delete(number)
    desk.pull()
    assert desk.stands() == replace(before, masks=["annotator-1 a", "annotator-2 b"])


# Skips


def test_skip__with_a_reason(desk: Desk) -> None:
    desk.skip(ANNOTATOR, "blurry", "out of focus")
    assert desk.pull() == [FileOutcome("1.png", ADDED)]
    assert desk.stands() == Standing(
        "skipped", ["skip annotator-1"], skips=["annotator-1 blurry: out of focus"]
    )


def test_skip__without_a_reason_says_whom_to_ask(desk: Desk) -> None:
    desk.skip(ANNOTATOR)
    note = "skipped without a reason: ask annotator-1"
    assert desk.pull() == [FileOutcome("1.png", ADDED, note)]
    assert desk.stands() == Standing(
        "skipped", ["skip annotator-1"], skips=[f"annotator-1 {REASON_MISSING}"]
    )


def test_skip__reason_given_later_on_the_server_replaces_the_first(desk: Desk) -> None:
    number = desk.skip(ANNOTATOR)
    desk.pull()
    desk.skip(ANNOTATOR, "scalp", edit=number)
    assert desk.pull() == [FileOutcome("1.png", ADDED)]
    assert desk.stands() == Standing(
        "skipped", ["skip annotator-1"] * 2, skips=["annotator-1 scalp"]
    )


def test_skip__reason_given_later_in_the_terminal_replaces_the_first_and_stays(
    desk: Desk,
) -> None:
    number = desk.skip(ANNOTATOR)
    desk.pull()
    assert desk.catalogue.images.skip(1, "scalp", "asked", ANNOTATOR) is ADDED
    desk.skip(ANNOTATOR, "blurry", edit=number)
    desk.pull()
    assert desk.stands() == Standing(
        "skipped", ["skip annotator-1"] * 2, skips=["annotator-1 scalp: asked"]
    )


def test_skip__in_the_terminal_is_not_undone_by_a_later_mask_on_the_server(desk: Desk) -> None:
    desk.catalogue.images.skip(1, "scalp", None, "manager")
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    skipped = Standing("skipped", ["skip manager"], ["annotator-1 a"], skips=["manager scalp"])
    assert desk.stands() == skipped
    desk.delete(number)
    desk.pull()
    assert desk.stands() == skipped


def test_skip__then_a_mask_by_the_same_annotation_closes_it(desk: Desk) -> None:
    number = desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    desk.submit(ANNOTATOR, "a", edit=number)
    desk.pull()
    events = ["skip annotator-1", "withdraw annotator-1", "submit annotator-1"]
    assert desk.stands() == replace(IN_REVIEW, events=events)


def test_skip__of_a_mask_that_is_in_review(desk: Desk, submitted: int) -> None:
    desk.skip(ANNOTATOR, "blurry", edit=submitted)
    desk.pull()
    assert desk.stands() == Standing(
        "skipped",
        ["submit annotator-1", "skip annotator-1"],
        ["annotator-1 a"],
        skips=["annotator-1 blurry"],
    )


def test_skip__after_acceptance_by_an_edit(desk: Desk, accepted: int) -> None:
    desk.skip(ANNOTATOR, "blurry", edit=accepted)
    desk.pull()
    assert desk.stands() == Standing(
        "skipped",
        [*ACCEPTED.events, "reopen annotator-1", "skip annotator-1"],
        ["annotator-1 a"],
        reviews=ACCEPTED.reviews,
        skips=["annotator-1 blurry"],
    )


@pytest.mark.slow
def test_reopened__follows_the_mask_that_another_reader_paints(desk: Desk) -> None:
    desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    desk.catalogue.images.reopen(1, "manager")
    assert desk.stands() == Standing("queued", ["skip annotator-1", "reopen manager"])
    assert desk.pull() == [FileOutcome("1.png", UNCHANGED)]
    number = desk.submit(SECOND, "b")
    desk.pull()
    followed = Standing(
        "submitted",
        ["skip annotator-1", "reopen manager", "submit annotator-2"],
        ["annotator-2 b"],
        in_review="annotator-2 b",
    )
    assert desk.stands() == followed
    desk.delete(number)
    desk.pull()
    assert desk.stands().state == "in_labelling"  # not skipped again


def test_reopened__skipped_anew_by_who_skipped_it_before(desk: Desk) -> None:
    number = desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    desk.catalogue.images.reopen(1, "manager")
    desk.skip(ANNOTATOR, "scalp", edit=number)
    desk.pull()
    assert desk.stands().skips == ["annotator-1 scalp"]


@pytest.mark.parametrize("skipped", ["here", "there"])
def test_reopened__hands_in_the_oldest_mask_that_came_meanwhile(desk: Desk, skipped: str) -> None:
    if skipped == "here":
        desk.catalogue.images.skip(1, "scalp", None, "manager")
    else:
        desk.skip("annotator-3", "scalp")
    desk.submit(ANNOTATOR, "a", holes=3, changed=3)
    desk.submit(SECOND, "b")
    stays = "the image stays skipped: 'ddiseg reopen 1.png' submits the mask"
    notes = [o.note for o in desk.pull() if o.note]
    assert notes == [
        f"3 pixels of the mask that was shown were erased or unlabelled: they became background; {stays}",
        stays,
    ]
    assert desk.stands().state == "skipped"
    desk.catalogue.images.reopen(1, "manager")
    stands = desk.stands()
    assert (stands.state, stands.in_review) == ("submitted", "annotator-1 a")
    assert stands.events[-2:] == ["reopen manager", "submit manager"]
    before = desk.rows()
    desk.receive_again()
    assert desk.rows() == before


def test_reopened__a_mask_that_was_turned_into_a_skip_stays_back(
    desk: Desk, submitted: int
) -> None:
    desk.skip(ANNOTATOR, "blurry", edit=submitted)
    desk.pull()
    desk.catalogue.images.reopen(1, "manager")
    assert (desk.stands().state, desk.stands().in_review) == ("queued", None)


@pytest.mark.slow
def test_reopened__a_mask_that_a_reviewer_sent_back_stays_back(desk: Desk, submitted: int) -> None:
    desk.review(REVIEWER, REJECT, "too wide")
    desk.catalogue.images.skip(1, "scalp", None, "manager")
    desk.catalogue.images.reopen(1, "manager")
    assert (desk.stands().state, desk.stands().in_review) == ("queued", None)
    desk.submit(ANNOTATOR, "b", edit=submitted)
    desk.pull()
    assert desk.stands().in_review == "annotator-1 b"


def test_reopened__what_was_deleted_there_is_not_handed_in(desk: Desk, submitted: int) -> None:
    desk.catalogue.images.skip(1, "scalp", None, "manager")
    desk.delete(submitted)
    desk.pull()
    desk.catalogue.images.reopen(1, "manager")
    assert desk.stands().state == "queued"


def test_reopened__an_accepted_image_waits_for_its_annotator(desk: Desk, accepted: int) -> None:
    desk.catalogue.images.reopen(1, "manager")
    assert (desk.stands().state, desk.stands().in_review) == ("rework", None)


# Annotations that can't be understood


def test_refused__changes_nothing_and_is_listed(desk: Desk, submitted: int) -> None:
    desk.spoil(ANNOTATOR, edit=submitted)
    note = "the run lengths end early"
    assert desk.pull() == [FileOutcome("1.png", REFUSED, note)]
    assert desk.stands() == IN_REVIEW
    [(task, annotation)] = desk.catalogue.tasks.problems(desk.project_id)
    assert (task.remote_id, annotation.remote_id, annotation.problem) == (101, submitted, note)
    before = desk.rows()
    assert _outcomes(desk.receive_again()) == [UNCHANGED]
    assert desk.rows() == before


def test_refused__the_same_version_is_understood_later(desk: Desk, submitted: int) -> None:
    desk.spoil(ANNOTATOR, edit=submitted)
    desk.pull()
    [refused] = desk.page.received
    understood = replace(refused, problem=None, mask=drawn_by(ANNOTATOR, "b"))
    outcomes = desk.receive(desk.project_id, replace(desk.page, received=[understood]))
    assert _outcomes(outcomes) == [ADDED]
    assert desk.catalogue.tasks.problems(desk.project_id) == []
    assert desk.stands() == Standing(
        "submitted",
        ["submit annotator-1"] * 2,
        ["annotator-1 a", "annotator-1 b"],
        in_review="annotator-1 b",
    )
    with desk.database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM annotations")) == 2


def test_refused__edit_of_what_was_accepted_is_listed_until_it_is_mended(
    desk: Desk, accepted: int
) -> None:
    desk.spoil(ANNOTATOR, edit=accepted)
    desk.spoil(SECOND)  # a settled image does not stand on this one
    desk.pull()
    assert desk.stands() == ACCEPTED
    assert [a.remote_id for _, a in desk.catalogue.tasks.problems(desk.project_id)] == [accepted]
    desk.submit(ANNOTATOR, "a", edit=accepted)
    desk.pull()
    assert desk.stands() == ACCEPTED
    assert desk.catalogue.tasks.problems(desk.project_id) == []


def test_refused__edit_of_a_skip_is_listed_until_it_is_mended(desk: Desk) -> None:
    number = desk.skip(ANNOTATOR, "blurry")
    desk.pull()
    desk.spoil(ANNOTATOR, edit=number)
    desk.pull()
    assert len(desk.catalogue.tasks.problems(desk.project_id)) == 1
    desk.catalogue.images.skip(1, "scalp", None, "manager")  # somebody has seen to it
    assert desk.catalogue.tasks.problems(desk.project_id) == []


def test_refused__first_reader_so_the_image_follows_the_second(desk: Desk) -> None:
    desk.spoil(ANNOTATOR)
    desk.submit(SECOND, "b")
    desk.pull()
    assert desk.stands() == Standing(
        "submitted", ["submit annotator-2"], ["annotator-2 b"], in_review="annotator-2 b"
    )


# Pages


def test_page__a_note_that_no_database_stores_is_refused_alone(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.skip(SECOND, "blurry", "from a\0b")
    assert _outcomes(desk.pull()) == [ADDED, REFUSED]
    assert desk.stands() == IN_REVIEW
    [(_, refused)] = desk.catalogue.tasks.problems(desk.project_id)
    assert "note of a row for skips holds a NUL character" in str(refused.problem)


def test_page__all_or_nothing(desk: Desk) -> None:
    desk.submit(ANNOTATOR, "a")
    desk.submit(SECOND, "b")
    page = desk.page_of([desk.task()])
    broken = replace(drawn_by(SECOND, "b"), mapping="odd")
    before = desk.rows()
    with pytest.raises(IntegrityError, match="ck_masks_mapping"):
        desk.receive(
            desk.project_id,
            replace(page, received=[page.received[0], replace(page.received[1], mask=broken)]),
        )
    assert desk.rows() == before
    assert desk.catalogue.tasks.project(URL, Purpose.ANNOTATION).watermark is None
    assert _outcomes(desk.receive(desk.project_id, page)) == [ADDED, ADDED]


def test_page__read_before_an_annotation_that_is_stored_does_not_miss_it(desk: Desk) -> None:
    """Two pulls at once: the later one has stored what the earlier one's page could not have."""
    older = desk.page_of([desk.task()])
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    assert desk.receive(desk.project_id, older) == []
    assert desk.stands() == IN_REVIEW
    same = desk.page_of([desk.task()])
    desk.submit(ANNOTATOR, "b", edit=number)
    desk.pull()
    desk.receive(desk.project_id, replace(same, received=[], existing={desk.task(): set()}))
    assert desk.stands().in_review == "annotator-1 b"
    desk.delete(number)
    desk.pull()
    assert desk.stands().state == "in_labelling"


def test_page__watermark_never_goes_back(desk: Desk) -> None:
    def watermark(given: str | None) -> str | None:
        desk.receive(desk.project_id, AnnotationPage([], {}, watermark=given))
        with desk.database.read() as session:
            found: str | None = session.scalar(
                text("SELECT watermark FROM projects WHERE purpose = 'annotation'")
            )
        return found

    later, earlier = "2026-01-02T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z"
    assert [watermark(w) for w in (None, earlier, later, earlier, None)] == [
        None,
        earlier,
        later,
        later,
        later,
    ]


@pytest.mark.slow
def test_page__two_programs_receive_it_at_once(catalogue_url: str) -> None:
    desk = Desk(Database(catalogue_url), images=20)
    for image in range(1, 21):
        desk.submit(ANNOTATOR, "a", image=image)
        desk.skip(SECOND, "blurry", image=image)
    page = desk.page_of([desk.task(image) for image in range(1, 21)])
    together = threading.Barrier(2)
    outcomes: list[list[Outcome]] = []

    def receive() -> None:
        other = Database(catalogue_url)
        together.wait()
        outcomes.append(_outcomes(Tasks(other).receive(desk.project_id, page)))
        other.engine.dispose()

    threads = [threading.Thread(target=receive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [[ADDED] * 40, [UNCHANGED] * 40]
    assert all(desk.stands(image) == IN_REVIEW for image in range(1, 21))
    desk.catalogue.close()
