"""Masks: submitted, reviewed, predicted; and never accepted by who drew them."""

from __future__ import annotations

import pytest
from sqlalchemy import null, select
from sqlalchemy.exc import IntegrityError

from ddiseg.catalogue import Catalogue, NewMask, NewModelVersion
from ddiseg.catalogue.masks import ACCEPT, FIXED, REJECT
from ddiseg.catalogue.tables import Mask
from ddiseg.errors import InputError
from ddiseg.outcomes import Outcome
from tests.ddiseg.catalogue.desk import ANNOTATOR, REVIEWER, Desk, drawn_by
from tests.ddiseg.rows import new_image, new_mask
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases


@pytest.fixture
def two(catalogue: Catalogue) -> Catalogue:
    """A catalogue with the images #1 and #2."""
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(1), new_image(2)], "tester")
    return catalogue


def _state(catalogue: Catalogue, image_id: int = 1) -> str:
    return catalogue.images.find(f"#{image_id}").state


def _steps(catalogue: Catalogue, image_id: int = 1) -> list[tuple[str, str | None, str | None]]:
    events = catalogue.events.of_image(image_id)
    return [(e.kind, e.state_before, e.state_after) for e in events]


def test_submit_and_review(two: Catalogue) -> None:
    assert [o.outcome for o in two.masks.submit([new_mask(1, "anna")])] == [Outcome.ADDED]
    assert [o.outcome for o in two.masks.submit([new_mask(1, "anna")])] == [Outcome.UNCHANGED]
    [mask] = two.masks.of_image(1)
    two.masks.review(mask.id, "ben", REJECT, "rim too wide")
    assert _state(two) == "rework"
    two.masks.submit([new_mask(1, "anna", "b", parent_id=mask.id)])
    better = two.masks.of_image(1)[1]
    two.masks.review(better.id, "ben", ACCEPT)
    assert two.masks.accepted().keys() == {1}
    assert two.masks.accepted()[1].id == better.id
    assert _steps(two) == [
        ("import", None, "new"),
        ("submit", "new", "submitted"),
        ("reject", "submitted", "rework"),
        ("submit", "rework", "submitted"),
        ("accept", "submitted", "accepted"),
    ]
    said = [(r.reviewer, r.verdict, r.comment) for r in two.masks.reviews([mask.id, better.id])]
    assert said == [("ben", "reject", "rim too wide"), ("ben", "accept", None)]
    assert two.events.contradictions() == []


def test_submit__with_a_reviewer_arrives_accepted(two: Catalogue) -> None:
    batch = [new_mask(1, "anna"), new_mask(2, "anna")]
    assert [o.outcome for o in two.masks.submit(batch, "ben")] == [Outcome.ADDED] * 2
    assert [o.outcome for o in two.masks.submit(batch, "ben")] == [Outcome.UNCHANGED] * 2
    assert _state(two) == _state(two, 2) == "accepted"


def test_submit__a_reviewer_later_accepts_what_is_there(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna")])
    assert [o.outcome for o in two.masks.submit([new_mask(1, "anna")], "ben")] == [Outcome.REPAIRED]
    assert _state(two) == "accepted"
    assert len(two.masks.of_image(1)) == 1


def test_submit__accepted_reopened_and_accepted_again_by_the_same_reviewer(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna")], "ben")
    two.images.reopen(1, "carl")
    assert [o.outcome for o in two.masks.submit([new_mask(1, "anna")], "ben")] == [Outcome.REPAIRED]
    assert _state(two) == "accepted"
    [mask] = two.masks.of_image(1)
    assert [r.verdict for r in two.masks.reviews([mask.id])] == ["accept", "accept"]


def _again(catalogue: Catalogue, mask: NewMask, reviewer: str | None = None) -> tuple[str, str]:
    """Outcome and note of a mask that is submitted again, which changes nothing in the catalogue."""

    def standing() -> object:
        return (
            catalogue.events.count(),
            [image.state for image in catalogue.images.select()],
            [mask.id for mask in catalogue.masks.all()],
            {i: mask.id for i, mask in catalogue.masks.in_review().items()},
            {i: mask.id for i, mask in catalogue.masks.accepted().items()},
        )

    before = standing()
    [outcome] = catalogue.masks.submit([mask], reviewer)
    assert standing() == before
    assert catalogue.events.contradictions() == []
    return outcome.outcome.value, outcome.note or ""


def _reject(catalogue: Catalogue, mask_id: int) -> None:
    catalogue.masks.review(mask_id, "ben", REJECT, "rim")


def _correct(catalogue: Catalogue) -> None:
    """A newer mask by somebody else waits for review."""
    catalogue.masks.submit([new_mask(1, "carl", "b", parent_id=1)])


def _fix(catalogue: Catalogue) -> None:
    catalogue.masks.review(1, "ben", FIXED, None, new_mask(1, "ben", "b", parent_id=1))


LATER_WORK = {
    "rejected": (lambda c: _reject(c, 1), "ben sent this mask back", "import a corrected mask"),
    "corrected": (_correct, "another mask waits for review, by carl", "import a corrected mask"),
    "fixed": (_fix, "another mask was accepted, by ben", "'ddiseg reopen IMAGE' first"),
    "skipped": (
        lambda c: c.images.skip(1, "scalp", None, "carl"),
        "the image was skipped, by carl",
        "'ddiseg reopen IMAGE' first",
    ),
}


@pytest.mark.parametrize("work", LATER_WORK)
def test_submit__again_never_undoes_what_was_done_since(two: Catalogue, work: str) -> None:
    do, note, next_step = LATER_WORK[work]
    two.masks.submit([new_mask(1, "anna")])
    do(two)
    assert _again(two, new_mask(1, "anna")) == ("unchanged", f"there is newer work: {note}")
    outcome, why = _again(two, new_mask(1, "anna"), "dora")
    assert outcome == "refused"
    assert next_step in why


def test_submit__again_an_older_mask_than_one_that_was_sent_back(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna")])
    _correct(two)
    _reject(two, 2)
    note = "there is newer work: the image was sent back, by ben"
    assert _again(two, new_mask(1, "anna")) == ("unchanged", note)


def test_submit__again_after_it_was_withdrawn(desk: Desk) -> None:
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    desk.delete(number)
    desk.pull()
    note = f"there is newer work: the mask or skip was taken back, by {ANNOTATOR}"
    assert _again(desk.catalogue, drawn_by(ANNOTATOR, "a")) == ("unchanged", note)


def test_submit__again_once_the_image_is_drawn_anew(desk: Desk) -> None:
    desk.catalogue.masks.submit([drawn_by(ANNOTATOR, "a")], REVIEWER)
    desk.catalogue.images.reopen(1, "manager")
    desk.catalogue.tasks.sent({desk.task(): 101}, "manager", start=True)
    note = "there is newer work: the image was given to annotators, by manager"
    assert _again(desk.catalogue, drawn_by(ANNOTATOR, "a")) == ("unchanged", note)


def test_submit__reopened_lets_the_mask_through_that_was_there(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna")])
    _fix(two)
    two.images.reopen(1, "carl")
    assert [o.outcome for o in two.masks.submit([new_mask(1, "anna")])] == [Outcome.REPAIRED]
    assert {i: m.id for i, m in two.masks.in_review().items()} == {1: 1}


def test_submit__reopened_a_mask_that_was_sent_back_stays_so(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna")])
    _reject(two, 1)
    two.masks.submit([new_mask(1, "anna", "b")], "ben")
    two.images.reopen(1, "carl")
    assert _again(two, new_mask(1, "anna"))[0] == "unchanged"


def test_submit__another_mask_for_an_accepted_image_is_refused(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna")], "ben")
    [refused] = two.masks.submit([new_mask(1, "anna", "b")], "ben")
    assert refused.outcome is Outcome.REFUSED
    assert refused.note is not None
    assert "'ddiseg reopen IMAGE' first" in refused.note
    assert len(two.masks.of_image(1)) == 1


def test_submit__skipped_image_is_refused_and_the_rest_goes_on(two: Catalogue) -> None:
    two.images.skip(1, "scalp", None, "anna")
    outcomes = two.masks.submit([new_mask(1, "anna"), new_mask(2, "anna")])
    assert [o.outcome for o in outcomes] == [Outcome.REFUSED, Outcome.ADDED]
    assert _state(two) == "skipped"


SAME_PERSON = ["anna", "Anna", "ANNA ", "\tanna\n", "an na", "ａnna"]  # noqa: RUF001 - wide a


@pytest.mark.parametrize("reviewer", SAME_PERSON)
def test_self_review__refused_however_the_name_is_written(
    two: Catalogue, reviewer: str, refusal: Refusal
) -> None:
    with refusal(InputError):
        two.masks.submit([new_mask(2, "ben"), new_mask(1, "anna")], reviewer)
    assert two.masks.all() == []
    two.masks.submit([new_mask(1, "anna")])
    with refusal(InputError):
        two.masks.review(1, reviewer, ACCEPT)
    assert _state(two) == "submitted"


@pytest.mark.parametrize(("annotator", "reviewer"), [(None, "ben"), ("", "ben"), ("anna", " ")])
def test_submit__nobody(
    two: Catalogue, annotator: str | None, reviewer: str, refusal: Refusal
) -> None:
    with refusal(InputError):
        two.masks.submit([new_mask(1, annotator)], reviewer)


def test_review__twice_is_refused(two: Catalogue, refusal: Refusal) -> None:
    two.masks.submit([new_mask(1, "anna")], "ben")
    with refusal(InputError):
        two.masks.review(1, "carl", ACCEPT)
    assert len(two.masks.reviews([1])) == 1


def test_review__mask_that_was_replaced_is_refused(two: Catalogue, refusal: Refusal) -> None:
    two.masks.submit([new_mask(1, "anna")])
    two.masks.submit([new_mask(1, "carl", "b")])
    assert {i: m.annotator for i, m in two.masks.in_review().items()} == {1: "carl"}
    with refusal(InputError):
        two.masks.review(1, "ben", ACCEPT)
    two.masks.review(2, "ben", ACCEPT)
    assert two.masks.accepted()[1].annotator == "carl"
    assert two.masks.in_review() == {}
    assert two.events.contradictions() == []


def test_review__fixed_accepts_the_reviewers_mask(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna")])
    two.masks.review(1, "ben", FIXED, "rim", new_mask(1, "ben", "b", parent_id=1))
    accepted = two.masks.accepted()[1]
    assert (accepted.annotator, accepted.parent_id) == ("ben", 1)
    assert two.masks.people_behind([1, accepted.id]) == {1: ["anna"], accepted.id: ["anna", "ben"]}
    review = two.masks.last_reviews([1])[1]
    assert (review.mask_id, review.verdict, review.comment) == (1, "fixed", "rim")
    assert two.events.contradictions() == []


@pytest.mark.parametrize(("verdict", "corrected"), [(ACCEPT, True), (FIXED, False)])
def test_review__a_fix_comes_with_fixed_and_only_then(
    two: Catalogue, verdict: str, corrected: bool, refusal: Refusal
) -> None:
    two.masks.submit([new_mask(1, "anna")])
    fix = new_mask(1, "ben", "b", parent_id=1) if corrected else None
    with refusal(InputError):
        two.masks.review(1, "ben", verdict, fix=fix)
    assert len(two.masks.all()) == 1
    assert _state(two) == "submitted"


def test_review__refused_to_everyone_the_mask_was_drawn_over(
    two: Catalogue, refusal: Refusal
) -> None:
    two.masks.submit([new_mask(1, "anna")])
    two.masks.submit([new_mask(1, "carl", "b", parent_id=1)])
    two.masks.submit([new_mask(1, "dora", "c", parent_id=2)])
    for name in ("anna", "carl", "dora"):
        with refusal(InputError):
            two.masks.review(3, name, ACCEPT)
    two.masks.review(3, "ben", ACCEPT)
    assert _state(two) == "accepted"


def test_last_reviews__the_newest_of_an_image_whichever_mask_it_was_of(two: Catalogue) -> None:
    two.masks.submit([new_mask(1, "anna"), new_mask(2, "anna")])
    two.masks.review(1, "ben", REJECT, "rim")
    two.masks.review(2, "ben", ACCEPT)
    two.masks.submit([new_mask(1, "anna", "b")], "carl")
    assert {i: (r.mask_id, r.verdict) for i, r in two.masks.last_reviews([1, 2]).items()} == {
        1: (3, "accept"),
        2: (2, "accept"),
    }


def test_newest_by_people__predictions_do_not_count(two: Catalogue, model_id: int) -> None:
    two.masks.submit([new_mask(1, "anna"), new_mask(1, "ben", "b")])
    two.masks.add_predictions([new_mask(n, None, model_version_id=model_id) for n in (1, 2)])
    assert {i: m.annotator for i, m in two.masks.newest_by_people([1, 2]).items()} == {1: "ben"}
    assert two.masks.newest_by_people([2]) == {}


def test_review__unknown_verdict(two: Catalogue, refusal: Refusal) -> None:
    two.masks.submit([new_mask(1, "anna")])
    with refusal(InputError):
        two.masks.review(1, "ben", "perhaps")


@pytest.fixture
def model_id(two: Catalogue) -> int:
    return two.models.add(NewModelVersion("f", "unet", "b", {}, [], {}, "1.0"), "tester").id


def test_predictions__one_an_image_and_model(two: Catalogue, model_id: int) -> None:
    batch = [new_mask(n, None, model_version_id=model_id, uncertainty=0.2) for n in (1, 2)]
    assert two.masks.add_predictions(batch) == [Outcome.ADDED] * 2
    assert two.masks.add_predictions(batch) == [Outcome.UNCHANGED] * 2
    assert _state(two) == "prelabelled"
    assert two.masks.predicted_by(model_id) == {1, 2}
    assert two.masks.predicted_by(model_id + 1) == set()


def test_predictions__expected_iou_is_stored_and_none_is_null(
    two: Catalogue, model_id: int
) -> None:
    expected = {"lesion": 0.5, "skin": 0.75}
    known = new_mask(1, None, model_version_id=model_id, expected_iou=expected, quality=0.5)
    two.masks.add_predictions([known, new_mask(2, None, model_version_id=model_id)])
    found = {m.image_id: (m.expected_iou, m.quality) for m in two.masks.all()}
    assert found == {1: (expected, 0.5), 2: (None, None)}
    with two._database.read() as session:
        without = select(Mask.image_id).where(Mask.expected_iou.is_(null()))
        assert session.scalars(without).all() == [2]


@pytest.mark.parametrize(
    "new",
    [
        new_mask(1, "anna", quality=0.5),
        new_mask(1, None, model_version_id=1, quality=1.25),
        new_mask(1, None, model_version_id=1, quality=-0.25),
    ],
)
def test_quality__of_a_prediction_and_from_0_to_1(
    two: Catalogue, model_id: int, new: NewMask
) -> None:
    with pytest.raises(IntegrityError, match="quality"), two._database.write() as session:
        session.add(Mask(**vars(new)))


def test_prediction__the_best_expected_iou_accepts_nothing(
    two: Catalogue, model_id: int, refusal: Refusal
) -> None:
    best = {"expected_iou": {"lesion": 1.0}, "quality": 1.0}
    two.masks.add_predictions([new_mask(1, None, model_version_id=model_id, **best)])
    assert (_state(two), two.masks.count_accepted()) == ("prelabelled", 0)
    assert two.masks.in_review() == {}
    [prediction] = two.masks.of_image(1)
    for verdict in (ACCEPT, REJECT):
        with pytest.raises(InputError, match="no such mask in review"):
            two.masks.review(prediction.id, "ben", verdict)
    with refusal(InputError):
        two.masks.submit([new_mask(1, None, model_version_id=model_id, **best)], reviewer="ben")
    assert (_state(two), two.masks.count_accepted()) == ("prelabelled", 0)


def test_predictions__that_of_the_version_in_use_counts_else_the_newest(
    two: Catalogue, model_id: int
) -> None:
    later = two.models.add(NewModelVersion("g", "unet", "b", {}, [], {}, "1.0"), "tester").id

    def counting() -> dict[int, int | None]:
        return {i: m.model_version_id for i, m in two.masks.newest_predictions().items()}

    for image, model in ((1, model_id), (1, later), (2, model_id)):
        two.masks.add_predictions([new_mask(image, None, str(model), model_version_id=model)])
    assert counting() == {1: later, 2: model_id}
    two.models.promote("fedd-1", "tester", "fedd-2 misses rulers", forced=False)
    assert counting() == {1: model_id, 2: model_id}


def test_prediction__can_not_be_accepted_as_it_is(
    two: Catalogue, model_id: int, refusal: Refusal
) -> None:
    two.masks.add_predictions([new_mask(1, None, model_version_id=model_id)])
    two.masks.submit([new_mask(1, "anna")])
    with refusal(InputError):
        two.masks.review(1, "ben", ACCEPT)


def test_prediction__changes_nothing_for_the_people_at_work(two: Catalogue, model_id: int) -> None:
    two.masks.submit([new_mask(1, "anna")])
    two.masks.add_predictions([new_mask(1, None, model_version_id=model_id)])
    assert _state(two) == "submitted"
    assert two.events.contradictions() == []


def test_get__more_masks_than_one_query_names(
    two: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddiseg.catalogue.database._IDS_IN_A_QUERY", 2)
    two.masks.submit([new_mask(1, "anna", pixels) for pixels in "abcde"])
    found = two.masks.get([5, 1, 4, 3, 1])
    assert {i: m.id for i, m in found.items()} == {1: 1, 3: 3, 4: 4, 5: 5}
    assert [i.id for i in two.images.select(ids=[2, 1, 7, 8, 9])] == [1, 2]
