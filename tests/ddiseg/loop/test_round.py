"""Rounds against a scripted Label Studio."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import BatchOrigin, Purpose, Split
from ddiseg.catalogue.open_work import InHand
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.labelstudio.connection import Connection, server_of
from ddiseg.labelstudio.push import OPEN, PushOptions
from ddiseg.loop import round as rounds
from ddiseg.loop.options import RoundOptions
from ddiseg.loop.plan import plan_round
from ddiseg.loop.round import run_round
from ddiseg.loop.steps import StepResult
from ddiseg.loop.worklist import Worklist
from ddiseg.model.predict import Predictor
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.sampling.batches import BatchRequest, draw_batch
from ddiseg.workspace.verify import verify
from tests.ddiseg.labelstudio.studio import Studio
from tests.fake_label_studio import cut

RunRound = Callable[..., dict[str, StepResult]]
NAMES = ["pull", "review", "refresh", "draw", "paint", "push"]


@pytest.fixture
def batch(studio: Studio) -> list[Image]:
    """Three images without a mask, one a patient, in an open batch that a round drew."""
    return drawn(studio, "auto-1", 3)


def drawn(
    studio: Studio, name: str, size: int, origin: BatchOrigin = BatchOrigin.ROUND
) -> list[Image]:
    """The images of a new batch."""
    request = BatchRequest(size, random_share=100)
    batch = draw_batch(studio.catalogue, name, request, "manager", origin=origin)
    return [member.image for member in batch.members]


@pytest.mark.both_databases
@pytest.mark.training
def test_round__from_accepted_masks_to_painted_tasks(
    studio: Studio, round_of: RunRound, batch: list[Image], wording: SnapshotAssertion
) -> None:
    steps = round_of(every=2)
    assert list(steps) == NAMES
    assert not any(step.failed for step in steps.values()), steps
    assert steps["refresh"].said.startswith("fedd-1, from ")
    assert steps["paint"].said == wording
    assert steps["push"].said == wording
    assert all(studio.painted(studio.task(image)) is not None for image in batch)
    studio.check()
    (row,) = studio.catalogue.rounds.last(5)
    assert row.outcome == "done"
    assert [step["step"] for step in row.steps] == NAMES


@pytest.mark.training
def test_round__a_step_that_takes_nothing_has_failed(
    studio: Studio,
    round_of: RunRound,
    batch: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    wording: SnapshotAssertion,
) -> None:
    def refuse(_predictor: Predictor, images: Sequence[Image], *_: Any) -> list[FileOutcome]:
        return [FileOutcome(image.name, Outcome.REFUSED, "is missing") for image in images]

    monkeypatch.setattr(Predictor, "predict", refuse)
    steps = round_of(every=2)
    assert [name for name, step in steps.items() if step.failed] == ["paint"]
    names = ", ".join(sorted(image.name for image in batch))
    assert steps["paint"].said == f"nothing was taken; 3 images: is missing ({names})"
    assert steps["push"].said == wording, "the other steps go on"
    (row,) = studio.catalogue.rounds.last(5)
    assert row.outcome == "failed"


@pytest.mark.both_databases
@pytest.mark.training
def test_round__what_people_did_is_learned_and_the_open_tasks_repainted(
    studio: Studio, round_of: RunRound, batch: list[Image], wording: SnapshotAssertion
) -> None:
    round_of(every=2)
    done, rest = batch[:2], batch[2:]
    for image in done:
        studio.submit_unchanged(studio.task(image))
    given = round_of(every=2)
    assert "2 masks given to reviewers" in given["review"].said
    assert given["refresh"].said.startswith("not due")
    for image in done:
        studio.decide(studio.review_task(image), "accept")

    steps = round_of(every=2, max_drop=1.0)

    assert steps["refresh"].said.startswith("fedd-2")
    assert studio.catalogue.models.current().name == "fedd-2"
    assert steps["push"].said == wording
    predictions = studio.catalogue.masks.newest_predictions()
    current = studio.catalogue.models.current().id
    assert {predictions[i.id].model_version_id for i in rest} == {current}
    studio.check(all_pulled=True)


@pytest.mark.training
def test_round__shows_how_far_it_is(
    studio: Studio, round_of: RunRound, batch: list[Image], wording: SnapshotAssertion
) -> None:
    """A refresh takes minutes, in which 'loop run --once' printed nothing."""
    told: list[str] = []
    round_of(every=2, stages=lambda stage: lambda *_at: told.append(stage))
    for image in batch[:2]:
        studio.submit_unchanged(studio.task(image))
        studio.pull()
    studio.push_reviews()
    for image in batch[:2]:
        studio.decide(studio.review_task(image), "accept")
    told.clear()
    round_of(every=2, stages=lambda stage: lambda *_at: told.append(stage))
    shown = list(dict.fromkeys(told))
    assert {"Photographs through the backbone", "Training, steps"} < set(shown)
    assert shown[-2:] == wording


@pytest.mark.training
def test_round__again_changes_nothing(
    studio: Studio, round_of: RunRound, batch: list[Image], wording: SnapshotAssertion
) -> None:
    round_of(every=2)
    events = studio.catalogue.events.count()
    steps = round_of(every=2)
    assert steps["refresh"].said.startswith("not due")
    assert steps["paint"].said == wording
    assert steps["push"].said == wording
    assert studio.catalogue.events.count() == events + 1  # that there was a round


@pytest.mark.training
def test_round__without_work_for_people_says_where_it_comes_from(
    studio: Studio, round_of: RunRound
) -> None:
    steps = round_of(every=100)
    assert "ddiseg batch draw" in steps["paint"].said
    assert steps["push"].said == "nothing to push"


@pytest.mark.training
def test_round__without_an_open_image_advises_no_push(
    studio: Studio, round_of: RunRound, wording: SnapshotAssertion
) -> None:
    for image in studio.catalogue.images.select(states=OPEN):
        studio.catalogue.images.skip(image.id, "blurry", None, "manager")
    assert round_of(every=100)["paint"].said == wording


@pytest.mark.training
def test_round__never_learns_from_the_hold_out_set(studio: Studio, round_of: RunRound) -> None:
    studio.catalogue.splits.decide({3: Split.HOLDOUT})
    round_of(every=2)
    accepted = studio.catalogue.masks.accepted()
    version = studio.catalogue.models.current()
    splits = studio.catalogue.splits.all()
    assert {i: splits[i] is Split.TRAINING for i in accepted} == {
        i: mask.content_hash in version.training_masks for i, mask in accepted.items()
    }
    assert version.gate is not None


@pytest.mark.both_databases
@pytest.mark.training
def test_round__draws_the_next_batch_once_nobody_has_work(
    studio: Studio, round_of: RunRound, wording: SnapshotAssertion
) -> None:
    assert round_of(every=2, draw=3)["draw"].said.startswith("auto-1: 3 images")
    again = round_of(every=2, draw=3)["draw"].said
    assert again == wording
    for member in studio.catalogue.batches.members("auto-1"):
        studio.submit_unchanged(studio.task(member.image))
    assert round_of(every=2, draw=3)["draw"].said.startswith("auto-2: 2 images")
    assert studio.catalogue.batches.get("auto-1").closed_at is not None
    for member in studio.catalogue.batches.members("auto-2"):
        studio.submit_unchanged(studio.task(member.image))
    last = round_of(every=2, draw=3)
    assert last["draw"].said.startswith("nothing selected: ")
    assert not last["draw"].failed
    assert studio.catalogue.batches.get("auto-2").closed_at is None


@pytest.mark.training
def test_draw__chooses_by_the_version_in_use(studio: Studio, round_of: RunRound) -> None:
    """A new version has predicted nothing yet: that comes first."""
    said = round_of(every=2, draw=3)["draw"].said
    assert said.startswith("auto-1: 3 images (I-II 1, III-IV 1, V-VI 1), 1 at random; ")
    assert "; chosen among 5 images: 5 added by fedd-1" in said
    members = studio.catalogue.batches.members("auto-1")
    assert sorted("lowest expected IoU" in m.reason for m in members) == [False, True, True]
    assert [m.random for m in members] == [m.reason == "next by seed" for m in members]


@pytest.mark.training
def test_draw__without_a_version_says_why_chance_decides(
    studio: Studio, round_of: RunRound
) -> None:
    said = round_of(every=100, draw=3)["draw"].said
    assert said.startswith("auto-1: 3 images (")
    assert "I-II: random instead of mixed" in said
    assert said.endswith("1 more note: 'ddiseg batch show auto-1'")


@pytest.mark.training
def test_draw__leaves_a_persons_name_to_that_person(studio: Studio, round_of: RunRound) -> None:
    (image,) = drawn(studio, "auto-1", 1, BatchOrigin.PERSON)
    studio.catalogue.images.skip(image.id, "unusable", None, "manager")
    assert round_of(every=100, draw=1)["draw"].said.startswith("auto-2: 1 image ")
    origins = {batch.name: batch.origin for batch in studio.catalogue.batches.all()}
    assert origins == {"auto-1": "person", "auto-2": "round"}
    assert studio.catalogue.batches.pool().in_open_batch == set(
        studio.catalogue.batches.image_ids("auto-2")
    )


@pytest.mark.training
def test_round__records_the_settings_that_it_ran_with(studio: Studio, round_of: RunRound) -> None:
    round_of(every=100, max_age=3.5, review_sample=50, push=PushOptions(control=20))
    (row,) = studio.catalogue.rounds.last(1)
    assert row.settings is not None
    assert (row.settings["every"], row.settings["max_age"]) == (100, 3.5)
    assert (row.settings["review_sample"], row.settings["push"]["control"]) == (50, 20)


@pytest.mark.training
def test_draw__under_the_first_name_that_is_free(studio: Studio, round_of: RunRound) -> None:
    for image in drawn(studio, "auto-2", 1):
        studio.catalogue.images.skip(image.id, "unusable", None, "manager")
    assert round_of(every=100, draw=1)["draw"].said.startswith("auto-1: 1 image ")
    for member in studio.catalogue.batches.members("auto-1"):
        studio.catalogue.images.skip(member.image.id, "unusable", None, "manager")
    assert round_of(every=100, draw=1)["draw"].said.startswith("auto-3: 1 image ")


@pytest.mark.training
def test_draw__what_a_person_drew_is_not_told_as_drawn(
    studio: Studio, round_of: RunRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = draw_batch(studio.catalogue, "auto-1", BatchRequest(1), "manager")
    studio.catalogue.images.skip(batch.members[0].image.id, "unusable", None, "manager")
    monkeypatch.setattr(rounds, "next_name", lambda _taken: "auto-1")
    said = round_of(every=100, draw=1)["draw"].said
    assert said.startswith("nothing selected: batch 'auto-1' exists and was drawn by a person")
    assert studio.catalogue.batches.get("auto-1").closed_at is None


@pytest.mark.training
@pytest.mark.parametrize("name", ["week-2", "auto-1"])
def test_push__a_persons_batch_is_left_to_that_person(
    studio: Studio, round_of: RunRound, name: str, wording: SnapshotAssertion
) -> None:
    images = drawn(studio, name, 3, BatchOrigin.PERSON)

    steps = round_of(every=2)
    assert steps["paint"].said == wording
    left = f"3 images of {name} left for 'ddiseg label push --batch {name}'"
    assert steps["push"].said == f"nothing to push; {left}"
    assert studio.tasks() == []

    studio.push(images, control=100, readers=2)
    assert round_of(every=2)["push"].said == wording
    assert [(t.arm, t.readers) for t in studio.tasks()] == [("control", 2)] * 3
    studio.check()


@pytest.mark.training
def test_push__a_rounds_batch_has_the_rounds_options_and_no_other_has(
    studio: Studio, round_of: RunRound, wording: SnapshotAssertion
) -> None:
    (theirs,) = drawn(studio, "week-2", 1, BatchOrigin.PERSON)
    (own,) = drawn(studio, "own", 1)
    studio.predict([theirs, own])
    studio.push([theirs])

    options = PushOptions(control=100, readers=2)
    said = round_of(every=100, push=options)["push"].said
    assert said == wording
    round_of(every=100, push=options)

    tasks = {task.image_id: (task.arm, task.readers) for task in studio.tasks()}
    assert tasks == {theirs.id: ("painted", 1), own.id: ("control", 2)}
    studio.check()


@pytest.mark.both_databases
@pytest.mark.training
def test_review__what_a_spot_check_left_out_stays_out(
    studio: Studio, round_of: RunRound, batch: list[Image]
) -> None:
    round_of(every=2)
    for image in batch[:2]:
        studio.submit_unchanged(studio.task(image))
    studio.pull()
    studio.push_reviews(sample=0)
    studio.submit_unchanged(studio.task(batch[2]))

    said = round_of(every=100)["review"].said
    assert "; 1 mask given to reviewers: 1 added" in said
    assert said.endswith("; 2 masks left out by spot checks")
    assert {t.image_id for t in studio.tasks(Purpose.REVIEW)} == {batch[2].id}


@pytest.mark.training
def test_review__a_share_of_the_masks(
    studio: Studio, round_of: RunRound, batch: list[Image]
) -> None:
    round_of(every=2)
    for image in batch:
        studio.submit_unchanged(studio.task(image))
    said = round_of(every=100, review_sample=0.0)["review"].said
    assert "0 masks given to reviewers; 3 masks left out" in said


@pytest.mark.training
def test_round__server_down_is_told_and_what_is_here_is_learned_from(
    studio: Studio, round_of: RunRound, batch: list[Image], wording: SnapshotAssertion
) -> None:
    studio.server.misbehave("*", "*", cut(), times=None)
    steps = round_of(every=2)
    assert steps["pull"].failed
    assert studio.connection.url in steps["pull"].said
    for name in ("review", "push"):
        assert "did not answer" in steps[name].said
    assert steps["paint"].said == wording
    assert studio.catalogue.rounds.last(1)[0].outcome == "failed"
    studio.server.behave()
    assert round_of(every=2)["push"].said == wording
    studio.check()


@pytest.mark.training
def test_round__no_server_at_all(studio: Studio, options: Callable[..., RoundOptions]) -> None:
    def none() -> Connection:
        raise WorkspaceError("no Label Studio runs: 'ddiseg label up'")

    steps = run_round(studio.workspace, none, options(every=2), "manager")
    assert steps[0].failed
    assert "ddiseg label up" in steps[0].said
    assert studio.catalogue.models.current().name == "fedd-1"


@pytest.mark.training
def test_round__a_refresh_that_fails_keeps_nobody_from_work(
    studio: Studio, round_of: RunRound, batch: list[Image], wording: SnapshotAssertion
) -> None:
    steps = round_of(every=2, backbone="nowhere")
    assert steps["refresh"].failed
    assert "no backbone called nowhere" in steps["refresh"].said
    assert steps["push"].said == wording


@pytest.mark.training
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("tone"), "unexpected KeyError: 'tone' (a defect: report it)"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_round__a_step_with_a_defect_does_not_end_the_others(
    studio: Studio,
    round_of: RunRound,
    batch: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
    wording: SnapshotAssertion,
) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(rounds, "train_version", broken)
    steps = round_of(every=2)
    assert (steps["refresh"].failed, steps["refresh"].said) == (True, said)
    assert steps["push"].said == wording
    assert studio.catalogue.rounds.last(1)[0].outcome == "failed"


@pytest.mark.training
def test_round__must_refresh_though_it_is_not_due(studio: Studio, round_of: RunRound) -> None:
    assert round_of(every=100)["refresh"].said.startswith("not due")
    assert round_of(every=100, must_refresh=True)["refresh"].said.startswith("fedd-1")


@pytest.mark.training
def test_plan__says_what_would_be_and_changes_nothing(
    studio: Studio, options: Callable[..., RoundOptions], batch: list[Image]
) -> None:
    before = studio.catalogue.events.count()
    steps = plan_round(studio.workspace, lambda: studio.connection, options(every=2, draw=3))
    assert [step.said for step in steps] == [
        f"would ask {studio.connection.url} for what people did",
        "would bring back verdicts; 0 masks in review",
        "would refresh: 4 accepted masks, a refresh is due every 2",
        "not yet: 3 images in people's hands or waiting for them",
        "would predict nothing, since there is no model yet",
        "would bring 0 images up to date on the server, and give people 3 more",
    ]
    assert studio.catalogue.events.count() == before
    assert list(studio.catalogue.rounds.last(1)) == []
    assert verify(studio.workspace).problems == []


@pytest.mark.training
def test_plan__of_a_draw(
    studio: Studio, options: Callable[..., RoundOptions], wording: SnapshotAssertion
) -> None:
    def said(**changed: Any) -> str:
        steps = plan_round(studio.workspace, lambda: studio.connection, options(**changed))
        return steps[NAMES.index("draw")].said

    assert said() == wording
    assert said(draw=2) == wording
    studio.predict([studio.catalogue.images.find("4.png")])
    assert said(draw=2) == wording
    for number in range(4, 9):
        studio.catalogue.images.skip(number + 1, "unusable", None, "manager")
    assert said(draw=2) == wording


@pytest.mark.training
def test_plan__names_what_is_left_to_a_person(
    studio: Studio, options: Callable[..., RoundOptions], wording: SnapshotAssertion
) -> None:
    drawn(studio, "week-2", 1, BatchOrigin.PERSON)
    drawn(studio, "auto-1", 2)
    steps = plan_round(studio.workspace, lambda: studio.connection, options())
    assert steps[-1].said == wording


@pytest.mark.both_databases
@pytest.mark.training
def test_plan__counts_what_a_round_would_read(
    studio: Studio,
) -> None:
    by_hand = drawn(studio, "week-2", 2, BatchOrigin.PERSON)
    by_round = drawn(studio, "auto-1", 2)
    studio.push(by_hand[:1])
    studio.catalogue.images.skip(by_round[0].id, "unusable", None, "manager")
    studio.predict(by_hand)
    [version] = studio.catalogue.models.all()
    work, open_work = Worklist.read(studio.workspace), studio.catalogue.open_work
    server = server_of(studio.workspace.root)
    assert [image.id for image in work.given] == [by_hand[0].id]
    assert open_work.count_planned(server) == 1
    assert open_work.in_hand(server, version.id) == InHand(len(work.images), predicted=2)
    assert open_work.unplanned_of_batches(server) == [
        ("week-2", "person", 1),
        ("auto-1", "round", 1),
    ]


@pytest.mark.process
def test_plan__imports_nothing_that_learns() -> None:
    code = "import sys, ddiseg.loop.plan; print({'torch', 'fedd'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value"),
    [("every", 0), ("max_age", 0.0), ("max_age", NAN), ("max_age", float("inf")), ("draw", -1)]
    + [("max_drop", value) for value in (NAN, 5.0, -1.0)]
    + [("review_sample", value) for value in (NAN, -1.0, 101.0)],
)
def test_options__numbers_that_can_not_be(name: str, value: object) -> None:
    with pytest.raises(InputError):
        RoundOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.training
def test_round__stopped_in_a_step_the_next_one_goes_on(
    studio: Studio,
    round_of: RunRound,
    batch: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    wording: SnapshotAssertion,
) -> None:
    def stopped(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "push", stopped)
        with pytest.raises(KeyboardInterrupt):
            round_of(every=2)
    (broken_off,) = studio.catalogue.rounds.last(1)
    assert broken_off.outcome is None
    assert [s["step"] for s in broken_off.steps] == NAMES[:-1]
    steps = round_of(every=2)
    assert steps["paint"].said == wording
    assert steps["push"].said == wording
