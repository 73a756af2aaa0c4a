"""Whatever three people do in whatever order: nothing is lost, doubled, or reviewed by its author."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ddiseg.catalogue.masks import ACCEPT, FIXED, REJECT
from ddiseg.errors import DdisegError
from ddiseg.outcomes import Outcome
from tests.ddiseg.catalogue.desk import ANNOTATOR, REVIEWER, SECOND, Desk, drawn_by

PEOPLE = st.sampled_from([ANNOTATOR, SECOND, REVIEWER])
PIXELS = st.sampled_from("abc")
VERDICTS = st.sampled_from([ACCEPT, FIXED, REJECT])
REASONS = st.sampled_from(["missing", "blurry"])
#: Which of the annotations that are there; None for a new one.
CHOICE = st.none() | st.integers(0, 3)


class Work(RuleBasedStateMachine):
    """Annotators, reviewers and a manager at one image."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk.in_memory()
        self.before = self.desk.rows()

    def teardown(self) -> None:
        self.desk.catalogue.close()

    @rule(person=PEOPLE, pixels=PIXELS, choice=CHOICE, heard=st.booleans())
    def submit(self, person: str, pixels: str, choice: int | None, heard: bool) -> None:
        self.desk.submit(person, pixels, edit=self._chosen(choice, self.desk.task()))
        self._pull(heard)

    @rule(person=PEOPLE, reason=REASONS, choice=CHOICE, heard=st.booleans())
    def skip(self, person: str, reason: str, choice: int | None, heard: bool) -> None:
        self.desk.skip(person, reason, edit=self._chosen(choice, self.desk.task()))
        self._pull(heard)

    @rule(person=PEOPLE, choice=CHOICE, heard=st.booleans())
    def spoil(self, person: str, choice: int | None, heard: bool) -> None:
        self.desk.spoil(person, edit=self._chosen(choice, self.desk.task()))
        self._pull(heard)

    @rule(
        person=PEOPLE,
        verdict=VERDICTS,
        pixels=st.none() | PIXELS,
        choice=CHOICE,
        heard=st.booleans(),
    )
    @precondition(lambda self: self.desk.review_task())
    def verdict(
        self, person: str, verdict: str, pixels: str | None, choice: int | None, heard: bool
    ) -> None:
        edit = self._chosen(choice, self.desk.review_task())
        self.desk.verdict(person, verdict, pixels=pixels, edit=edit)
        self._pull(heard)

    @rule(choice=st.integers(0, 5), heard=st.booleans())
    @precondition(lambda self: self.desk.numbers())
    def delete(self, choice: int, heard: bool) -> None:
        numbers = self.desk.numbers()
        self.desk.delete(numbers[choice % len(numbers)])
        self._pull(heard)

    @rule(choice=st.integers(0, 5), heard=st.booleans())
    @precondition(lambda self: self.desk.numbers())
    def save_again(self, choice: int, heard: bool) -> None:
        numbers = self.desk.numbers()
        self.desk.save_again(numbers[choice % len(numbers)])
        self._pull(heard)

    @rule()
    @precondition(lambda self: self.desk.catalogue.masks.in_review())
    def send_to_review(self) -> None:
        self.desk.send_to_review()

    @rule(person=PEOPLE, verdict=VERDICTS, pixels=PIXELS)
    @precondition(lambda self: self.desk.catalogue.masks.in_review())
    def review_in_the_terminal(self, person: str, verdict: str, pixels: str) -> None:
        mask = self.desk.catalogue.masks.in_review()[1]
        fix = drawn_by(person, pixels) if verdict == FIXED else None
        with suppress(DdisegError):
            self.desk.catalogue.masks.review(mask.id, person, verdict, fix=fix)

    @rule(person=PEOPLE, pixels=PIXELS)
    def submit_in_the_terminal(self, person: str, pixels: str) -> None:
        self.desk.catalogue.masks.submit([drawn_by(person, pixels)])

    @rule(person=PEOPLE, reason=REASONS)
    def skip_in_the_terminal(self, person: str, reason: str) -> None:
        with suppress(DdisegError):
            self.desk.catalogue.images.skip(1, reason, None, person)

    @rule(person=PEOPLE)
    def reopen_in_the_terminal(self, person: str) -> None:
        with suppress(DdisegError):
            self.desk.catalogue.images.reopen(1, person)

    @invariant()
    def nothing_is_lost_and_nobody_reviews_themselves(self) -> None:
        self.desk.stands()  # which looks for contradictions
        rows = self.desk.rows()
        for table in ("masks", "reviews", "events"):  # written once
            assert rows[table][: len(self.before[table])] == self.before[table]
        for table in ("annotations", "skips"):
            assert [r.id for r in self.before[table]] == [
                r.id for r in rows[table][: len(self.before[table])]
            ]
        for review in rows["reviews"][len(self.before["reviews"]) :]:
            behind = self.desk.catalogue.masks.people_behind([review.mask_id])
            assert review.reviewer not in behind[review.mask_id]
        self.before = rows

    def _pull(self, heard: bool) -> None:
        """The catalogue hears of it at once, or later with other things."""
        for pull in (self.desk.pull, self.desk.pull_reviews) if heard else ():
            pull()
            before = self.desk.rows()
            again = self.desk.receive_again()
            assert {o.outcome for o in again} <= {Outcome.UNCHANGED, Outcome.REFUSED}
            assert self.desk.rows() == before

    def _chosen(self, choice: int | None, task_id: int | None) -> int | None:
        numbers = self.desk.numbers(task_id)
        return None if choice is None or not numbers else numbers[choice % len(numbers)]


@pytest.mark.property
def test_any_sequence_of_work() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Work, settings=settings(max_examples=40, stateful_step_count=25)
    )


STEPS = st.lists(
    st.tuples(st.just("submit"), CHOICE, PEOPLE, PIXELS)
    | st.tuples(st.just("skip"), CHOICE, PEOPLE, REASONS)
    | st.tuples(st.just("delete"), st.integers(0, 3))
    | st.tuples(st.just("pull")),
    max_size=12,
)


@pytest.mark.property
@settings(max_examples=60)
@given(STEPS)
def test_annotating_alone__the_image_is_where_the_first_reader_left_it(
    steps: list[tuple[Any, ...]],
) -> None:
    desk = Desk.in_memory()
    said: dict[int, tuple[str, str]] = {}  # "submit", "annotator-1 a" by the server's number
    for what, *rest in steps:
        if what == "pull":
            desk.pull()
            continue
        numbers = sorted(said)
        number = numbers[rest[0] % len(numbers)] if numbers and rest[0] is not None else None
        if what == "delete":
            if number is not None:
                desk.delete(number)
                del said[number]
            continue
        _, person, content = rest
        say = desk.submit if what == "submit" else desk.skip
        said[say(person, content, edit=number)] = what, f"{person} {content}"
    desk.pull()
    stands = desk.stands()
    what, content = said[min(said)] if said else ("nothing", "")
    drawn = stands.in_review and stands.in_review.split(" <")[0]
    assert (stands.state, drawn, stands.skips) == {
        "submit": ("submitted", content, []),
        "skip": ("skipped", None, [content]),
        "nothing": ("in_labelling", None, []),
    }[what]
    desk.catalogue.close()
