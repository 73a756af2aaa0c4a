"""`ddiseg status`: what each person can do next, as work goes round with a team's Label Studio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import NewModelVersion, Split
from ddiseg.catalogue.batches import NewMember
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import SECOND, Studio, box, stroke, team_server

Run = Callable[..., Any]

LESION = [stroke("lesion", box(slice(2), slice(3)))]


@pytest.fixture
def studio(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with team_server(workspace, monkeypatch) as studio:
        yield studio


@pytest.fixture
def to_do(here: Run) -> Callable[[], tuple[list[str], int, int]]:
    """to_do(): the data manager's commands, images with annotators, masks with reviewers."""

    def ask() -> tuple[list[str], int, int]:
        data = here("status", "--output", "json").json
        steps = data["to_do"]["data_manager"]
        commands = [step["command"] for step in steps]
        if commands[:1] not in (
            [],
            ["ddiseg export --format coco --to release"],
            ["ddiseg review push --sample 100"],
        ):
            assert data["next"] == f"{steps[0]['why']}: {commands[0]}"
        return (
            commands,
            data["to_do"]["annotators"]["images"],
            data["to_do"]["reviewers"]["masks"],
        )

    return ask


ToDo = Callable[[], tuple[list[str], int, int]]

FIRST = [
    "ddiseg subset draw NAME --per-tone 10",
    "ddiseg masks import PATH --annotator WHO --reviewer SECOND",
]
PULL, REVIEW_PUSH, REVIEW_PULL, REFRESH, EXPORT = (
    f"ddiseg {words}"
    for words in (
        *("label pull", "review push", "review pull", "refresh"),
        "export --format coco --to release",
    )
)


def _learn(studio: Studio, *, promote: bool = True) -> None:
    learned = [mask.content_hash for mask in studio.catalogue.masks.accepted().values()]
    new = NewModelVersion("f", "small", "b", {}, learned, {}, "1.0")
    studio.catalogue.models.add(new, "manager", promote=promote)


@pytest.mark.training
def test_status__as_work_goes_round(
    studio: Studio, here: Run, to_do: ToDo, wording: SnapshotAssertion
) -> None:
    studio.add_images(2)
    assert to_do() == (FIRST, 0, 0)
    here("label", "push")
    assert to_do() == ([PULL], 2, 0)
    studio.submit(1, LESION)
    assert to_do() == ([PULL], 2, 0), "nobody knows before a pull"
    here("label", "pull")
    assert to_do() == ([REVIEW_PUSH, PULL], 1, 0)
    here("review", "push")
    assert to_do() == ([PULL, REVIEW_PULL], 1, 1)
    lines = here("status").out.splitlines()
    assert lines[-6:] == wording
    studio.decide(3, "reject", "the rim")
    here("review", "pull")
    assert to_do() == ([PULL], 2, 0)
    studio.submit(2, LESION)
    here("label", "pull")
    here("review", "push")
    studio.decide(4, "accept")
    here("review", "pull")
    assert to_do() == ([REFRESH, PULL, EXPORT], 1, 0)
    _learn(studio)
    assert to_do() == (["ddiseg prelabel", PULL, EXPORT], 1, 0)


@pytest.mark.training
def test_status__newer_predictions_are_shown_by_a_push(
    studio: Studio, here: Run, to_do: ToDo
) -> None:
    images = studio.add_images(2)
    here("label", "push")
    studio.predict(images)
    assert to_do() == ([PULL, "ddiseg label push"], 2, 0)
    here("label", "push")
    assert to_do() == ([PULL], 2, 0)


@pytest.mark.training
def test_status__the_same_mask_again_waits_for_a_reviewer_again(
    studio: Studio, here: Run, to_do: ToDo
) -> None:
    studio.add_images()
    here("label", "push")
    number = studio.submit(1, LESION)
    here("label", "pull")
    here("review", "push")
    studio.decide(2, "accept")
    here("review", "pull")
    here("reopen", "1.png")
    assert REVIEW_PUSH not in to_do()[0]
    studio.server.edit(number, result=LESION)
    here("label", "pull")
    assert to_do()[0][0] == REVIEW_PUSH
    here("review", "push")
    assert to_do()[0][0] == REVIEW_PULL


@pytest.mark.training
def test_status__spot_check(studio: Studio, here: Run, to_do: ToDo) -> None:
    studio.add_images(2)
    here("label", "push")
    for task in (1, 2):
        studio.submit(task, LESION)
    here("label", "pull")
    here("review", "push", "--sample", "50")
    commands, _, waiting = to_do()
    assert (commands, waiting) == ([REVIEW_PULL, "ddiseg review push --sample 100"], 1)
    here("review", "push")
    assert to_do() == ([REVIEW_PULL], 0, 2)


@pytest.mark.training
def test_status__a_second_reader(studio: Studio, here: Run, to_do: ToDo) -> None:
    studio.add_images()
    here("label", "push", "--readers", "2")
    studio.submit(1, LESION)
    here("label", "pull")
    assert to_do() == ([REVIEW_PUSH, PULL], 1, 0)
    studio.submit(1, LESION, by=SECOND)
    here("label", "pull")
    assert to_do() == ([REVIEW_PUSH], 0, 0)


@pytest.mark.training
def test_status__a_batch_that_its_person_has_not_given_out(
    studio: Studio, here: Run, to_do: ToDo, wording: SnapshotAssertion
) -> None:
    images = studio.add_images(3)
    members = [NewMember(image.id, True, "next by seed") for image in images[:2]]
    studio.catalogue.batches.store("week-1", members, {}, "manager")
    assert to_do()[0][0] == wording
    here("label", "push", "--batch", "week-1")
    assert to_do() == ([PULL], 2, 0)


@pytest.mark.training
def test_status__what_no_version_will_learn_is_not_new(
    studio: Studio, here: Run, to_do: ToDo, wording: SnapshotAssertion
) -> None:
    studio.add_images(2)
    here("label", "push")
    for task in (1, 2):
        studio.submit(task, LESION)
    here("label", "pull")
    here("review", "push")
    for task in (3, 4):
        studio.decide(task, "accept")
    here("review", "pull")
    assert to_do()[0] == [REFRESH, EXPORT]
    studio.catalogue.splits.decide({1: Split.HOLDOUT, 2: Split.TRAINING})
    assert here("status").out.splitlines()[-1] == wording
    _learn(studio)
    assert to_do()[0] == [EXPORT]
    assert here("status").out.splitlines()[-1] == wording


@pytest.mark.training
def test_status__masks_that_a_refused_version_learned_are_not_new(
    studio: Studio, here: Run, to_do: ToDo
) -> None:
    studio.add_images()
    _learn(studio)
    here("label", "push")
    studio.submit(1, LESION)
    here("label", "pull")
    here("review", "push")
    studio.decide(2, "accept")
    here("review", "pull")
    assert to_do()[0] == [REFRESH, EXPORT]
    _learn(studio, promote=False)
    assert to_do()[0] == [EXPORT]


def test_status__all_skipped(studio: Studio, here: Run, to_do: ToDo) -> None:
    studio.add_images()
    studio.catalogue.images.skip(1, "blurry", None, "annotator-1")
    assert to_do() == ([], 0, 0)
    assert here("status").out.endswith("next: nothing is left to do; look at it: ddiseg report\n")


@pytest.mark.training
def test_status_work__before_anything_is_accepted(studio: Studio, here: Run) -> None:
    studio.add_images()
    none = "no accepted mask was drawn on a labelling server yet: "
    assert here("status", "--work").out == f"{none}'ddiseg label push' sends images there\n"
    here("label", "push")
    assert here("status", "--work").out == (
        f"{none}'ddiseg status' says what is next with the images that people have\n"
    )
