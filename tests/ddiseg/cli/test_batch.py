"""`ddiseg batch draw`, `list`, `show` and `close`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Arm, NewTask, Purpose
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.rows import new_image, new_mask

Run = Callable[..., Any]


@pytest.fixture
def here(ddiseg: Run, workspace: Workspace) -> Run:
    """here("list"): `ddiseg batch list` in a workspace with 10 images of each tone."""
    rows = [new_image(n, tone=("I-II", "III-IV", "V-VI")[n % 3]) for n in range(30)]
    dataset = workspace.catalogue.images.dataset("clinic")
    workspace.catalogue.images.add(dataset.id, rows, "tester")
    return lambda *args: ddiseg("--workspace", workspace.root, "batch", *args)


def test_draw__says_why_each_image_was_taken_then_unchanged(
    here: Run, wording: SnapshotAssertion
) -> None:
    args = ("draw", "week-1", "--size", "6", "--seed", "3")
    lines = here(*args).out.splitlines()
    assert lines[0] == wording
    assert sum(line.endswith("queued  at random: next by seed") for line in lines) == 6
    assert any(line.startswith("  note     I-II: random instead of mixed") for line in lines)
    step = "give it to annotators: ddiseg label push --batch week-1"
    assert lines[-1] == f"next: {step}"
    data = here(*args, "--output", "json").json
    assert (data["outcome"], data["n"], data["next"]) == ("unchanged", 6, step)
    assert data["by_tone"] == {"I-II": 2, "III-IV": 2, "V-VI": 2}
    assert set(data["images"][0]) == {"id", "name", "tone", "state", "random", "reason"}
    other = here("draw", "week-1", "--size", "7")
    assert (other.status, other.out) == (1, "")
    assert "drawn by another request" in other.err


def test_draw__next_step_goes_by_where_the_images_are(
    here: Run, workspace: Workspace, wording: SnapshotAssertion
) -> None:
    args = ("draw", "a", "--size", "1", "--output", "json")
    (image,) = here(*args).json["images"]
    labelling = workspace.catalogue.tasks
    project = labelling.project("server", Purpose.ANNOTATION).id
    labelling.plan(project, [NewTask("a", image["id"], None, Arm.BARE, 8, 6)], "tester", {})
    (task,) = labelling.tasks(project)
    labelling.sent({task.id: 101}, "tester", start=True)
    assert here(*args).json["next"] == wording
    workspace.catalogue.masks.submit([new_mask(image["id"], "annotator-1")], "reviewer-1")
    assert here(*args).json["next"] is None


def test_draw__options_reach_the_draw(here: Run) -> None:
    options = ("--strategy", "random", "--random-share", "50", "--tone", "V-VI", "--size", "3")
    assert here("draw", "a", *options).status == 0
    shown = here("show", "a", "--output", "json").json
    assert shown["drawn_by"]["request"] == {
        "size": 3,
        "strategy": "random",
        "towards_worst": False,
        "random_share": 50,
        "seed": 0,
        "tones": ["V-VI"],
    }
    assert {image["tone"] for image in shown["images"]} == {"V-VI"}


def test_draw__thirty_unless_told(here: Run) -> None:
    assert here("draw", "a").out.startswith("a: added, 30 images")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--towards", "worst"), "--focus worst-tone: there is no model"),
        (("--strategy", "uncertainty"), "there is no model yet: draw with --strategy random"),
        (("--size", "31", "--strict"), "--strict: the batch lacks images; I-II: 10 of the 11"),
    ],
)
def test_draw__refused(here: Run, workspace: Workspace, args: tuple[str, ...], said: str) -> None:
    refused = here("draw", "a", *args)
    assert (refused.status, refused.out) == (1, "")
    assert said in refused.err
    assert workspace.catalogue.batches.all() == []


@pytest.mark.parametrize(
    "args",
    [
        ("draw",),
        ("draw", "a", "--strategy", "best"),
        ("draw", "a", "--towards", "best"),
        ("draw", "a", "--tone", "VII"),
        ("close",),
        (),
    ],
)
def test_wrong_usage(here: Run, args: tuple[str, ...]) -> None:
    result = here(*args)
    assert (result.status, result.out) == (2, "")


@pytest.mark.slow
def test_list_and_close(here: Run, workspace: Workspace, wording: SnapshotAssertion) -> None:
    assert here("list").out == wording
    here("draw", "a", "--size", "3")
    first, second, _ = workspace.catalogue.batches.image_ids("a")
    workspace.catalogue.masks.submit([new_mask(first, "annotator-1")], reviewer="reviewer-1")
    workspace.catalogue.images.skip(second, "blurry", None, "annotator-1")
    sizes = "a: 3 images (I-II 1, III-IV 1, V-VI 1)"
    assert here("list").out == f"{sizes}, open, 2 accepted or skipped\n"
    assert here("close", "a").out == "a: closed\n"
    assert here("close", "a").out == wording
    assert here("list").out == f"{sizes}, closed, 2 accepted or skipped\n"
    (row,) = here("list", "--output", "json").json["batches"]
    assert (row["n"], row["settled"], row["closed_at"] is None) == (3, 2, False)


@pytest.mark.slow
def test_show(here: Run, wording: SnapshotAssertion) -> None:
    here("draw", "a", "--size", "3", "--seed", "5")
    lines = here("show", "a").out.splitlines()
    assert lines[0].startswith("a: 3 images (I-II 1, III-IV 1, V-VI 1), drawn ")
    assert lines[0].endswith(", open")
    assert lines[1] == wording
    assert sum(line.startswith("#") for line in lines) == 3
    here("close", "a")
    assert ", closed 20" in here("show", "a").out.splitlines()[0]
    unknown = here("show", "x")
    assert unknown.status == 1
    assert "no batch called 'x' (there are: a)" in unknown.err
