"""Rounds against a scripted Label Studio."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from ddiseg.catalogue import Side
from ddiseg.catalogue.models import Image
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.labelstudio.connection import Connection
from ddiseg.loop.batch import BatchRequest, draw_batch
from ddiseg.rounds import round as rounds
from ddiseg.rounds.lock import BusyError, one_at_a_time
from ddiseg.rounds.round import RoundOptions, Step, plan_round, run_round
from ddiseg.verify import verify
from tests.ddiseg.labelstudio.studio import Studio
from tests.fake_label_studio import cut

RunRound = Callable[..., dict[str, Step]]
NAMES = ["pull", "review", "refresh", "draw", "paint", "push"]


@pytest.fixture
def batch(studio: Studio) -> list[Image]:
    """Three images without a mask in an open batch, one a patient."""
    request = BatchRequest(3, random_share=100)
    drawn = draw_batch(studio.catalogue, "week-1", request, "manager")
    return [member.image for member in drawn.members]


def test_round__from_accepted_masks_to_painted_tasks(
    studio: Studio, round_of: RunRound, batch: list[Image]
) -> None:
    steps = round_of(every=2)
    assert list(steps) == NAMES
    assert not any(step.failed for step in steps.values()), steps
    assert steps["refresh"].said.startswith("fedd-1, from ")
    assert steps["paint"].said == "3 images: 3 added by fedd-1"
    assert steps["push"].said == "3 images: 3 added"
    assert all(studio.painted(studio.task(image)) is not None for image in batch)
    studio.check()
    (row,) = studio.catalogue.rounds.last(5)
    assert row.outcome == "done"
    assert [step["step"] for step in row.steps] == NAMES


def test_round__what_people_did_is_learned_and_the_open_tasks_repainted(
    studio: Studio, round_of: RunRound, batch: list[Image]
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

    steps = round_of(every=2, tolerance=1.0)

    assert steps["refresh"].said.startswith("fedd-2")
    assert studio.catalogue.models.current().name == "fedd-2"
    assert steps["push"].said == "1 images: 1 repaired"
    predictions = studio.catalogue.masks.newest_predictions()
    current = studio.catalogue.models.current().id
    assert {predictions[i.id].model_version_id for i in rest} == {current}
    studio.check(all_pulled=True)


def test_round__again_changes_nothing(
    studio: Studio, round_of: RunRound, batch: list[Image]
) -> None:
    round_of(every=2)
    events = studio.catalogue.history.count()
    steps = round_of(every=2)
    assert steps["refresh"].said.startswith("not due")
    assert steps["paint"].said == "3 images: 3 unchanged by fedd-1"
    assert steps["push"].said == "3 images: 3 unchanged"
    assert studio.catalogue.history.count() == events + 1  # that there was a round


def test_round__without_work_for_people_says_where_it_comes_from(
    studio: Studio, round_of: RunRound
) -> None:
    steps = round_of(every=100)
    assert "ddiseg batch draw" in steps["paint"].said
    assert steps["push"].said == "nothing to push"


def test_round__holds_masks_out_and_never_learns_from_them(
    studio: Studio, round_of: RunRound
) -> None:
    studio.catalogue.sides.decide({3: Side.HELD_OUT})
    round_of(every=2)
    accepted = studio.catalogue.masks.accepted()
    version = studio.catalogue.models.current()
    sides = studio.catalogue.sides.all()
    assert {i: sides[i] is Side.TRAINING for i in accepted} == {
        i: mask.content_hash in version.training_masks for i, mask in accepted.items()
    }
    assert version.gate is not None


def test_round__draws_the_next_batch_once_nobody_has_work(
    studio: Studio, round_of: RunRound
) -> None:
    assert round_of(every=2, draw=3)["draw"].said.startswith("batch-1: 3 images")
    again = round_of(every=2, draw=3)["draw"].said
    assert again == "not yet: 3 images are in people's hands or wait for them"
    for member in studio.catalogue.batches.members("batch-1"):
        studio.submit_unchanged(studio.task(member.image))
    assert round_of(every=2, draw=3)["draw"].said.startswith("batch-2: 2 images")
    assert studio.catalogue.batches.get("batch-1").closed_at is not None
    for member in studio.catalogue.batches.members("batch-2"):
        studio.submit_unchanged(studio.task(member.image))
    last = round_of(every=2, draw=3)
    assert last["draw"].said.startswith("nothing drawn: ")
    assert not last["draw"].failed


def test_round__server_down_is_told_and_what_is_here_is_learned_from(
    studio: Studio, round_of: RunRound, batch: list[Image]
) -> None:
    studio.server.misbehave("*", "*", cut(), times=None)
    steps = round_of(every=2)
    assert steps["pull"].failed
    assert studio.connection.url in steps["pull"].said
    for name in ("review", "push"):
        assert "did not answer" in steps[name].said
    assert steps["paint"].said == "3 images: 3 added by fedd-1"
    assert studio.catalogue.rounds.last(1)[0].outcome == "failed"
    studio.server.behave()
    assert round_of(every=2)["push"].said == "3 images: 3 added"
    studio.check()


def test_round__no_server_at_all(studio: Studio, options: Callable[..., RoundOptions]) -> None:
    def none() -> Connection:
        raise WorkspaceError("no Label Studio runs: 'ddiseg label up'")

    steps = run_round(studio.workspace, none, options(every=2), "manager")
    assert steps[0].failed
    assert "ddiseg label up" in steps[0].said
    assert studio.catalogue.models.current().name == "fedd-1"


def test_round__a_refresh_that_fails_keeps_nobody_from_work(
    studio: Studio, round_of: RunRound, batch: list[Image]
) -> None:
    steps = round_of(every=2, backbone="nowhere")
    assert steps["refresh"].failed
    assert "no backbone called nowhere" in steps["refresh"].said
    assert steps["push"].said == "3 images: 3 added"


def test_round__must_refresh_though_it_is_not_due(studio: Studio, round_of: RunRound) -> None:
    assert round_of(every=100)["refresh"].said.startswith("not due")
    assert round_of(every=100, must_refresh=True)["refresh"].said.startswith("fedd-1")


def test_round__two_at_once(studio: Studio, round_of: RunRound) -> None:
    holder = (
        "import sys, pathlib; from ddiseg.rounds.lock import one_round\n"
        "with one_round(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    root = str(studio.workspace.root)
    with subprocess.Popen(
        [sys.executable, "-c", holder, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=rf"another round .*process {other.pid}\)"):
            round_of()
        assert list(studio.catalogue.rounds.last(1)) == []
        other.kill()  # the lock ends with its process
    assert not round_of(every=100)["pull"].failed


def test_lock__names_its_process_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with one_at_a_time(path, "process {holder} is at it"):
        assert path.read_text() == str(os.getpid())
    with one_at_a_time(path, "process {holder} is at it"):
        pass


def test_plan__says_what_would_be_and_changes_nothing(
    studio: Studio, options: Callable[..., RoundOptions], batch: list[Image]
) -> None:
    before = studio.catalogue.history.count()
    steps = plan_round(studio.workspace, lambda: studio.connection, options(every=2, draw=3))
    assert [step.said for step in steps] == [
        f"would ask {studio.connection.url} for what people did",
        "would bring back verdicts; 0 masks wait for review",
        "would refresh: 4 accepted masks, a refresh is due every 2",
        "not yet: 3 images are in people's hands or wait for them",
        "would paint nothing: there is no model yet",
        "would bring 3 images up to date on the server",
    ]
    assert studio.catalogue.history.count() == before
    assert list(studio.catalogue.rounds.last(1)) == []
    assert verify(studio.workspace).problems == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("every", 0), ("max_age", timedelta(0)), ("draw", -1)],
)
def test_options__numbers_that_can_not_be(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}"):
        RoundOptions(**{name: value})  # type: ignore[arg-type]


def test_round__stopped_in_a_step_the_next_one_goes_on(
    studio: Studio, round_of: RunRound, batch: list[Image], monkeypatch: pytest.MonkeyPatch
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
    assert steps["paint"].said == "3 images: 3 unchanged by fedd-1"
    assert steps["push"].said == "3 images: 3 added"
