"""`ddiseg review` as it is typed: on a team's server, and in the terminal alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import NewMask, Purpose
from ddiseg.catalogue.tables import Image
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import (
    ANNOTATOR,
    REVIEWER,
    SECOND,
    WIDTH,
    Studio,
    box,
    skin_and_lesion,
    stroke,
    team_server,
)
from tests.fake_label_studio import status

Run = Callable[..., Any]

FIX = [stroke("marker", box(slice(2, 4), slice(2, 5)))]


@pytest.fixture
def studio(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setenv("DDISEG_ACTOR", "manager")
    with team_server(workspace, monkeypatch) as studio:
        yield studio


@pytest.fixture
def review(ddiseg: Run, workspace: Workspace) -> Run:
    """review("push", ...): the result of that command in the workspace."""
    return lambda *words: ddiseg("review", *words, "--workspace", workspace.root)


@pytest.fixture
def images(studio: Studio) -> list[Image]:
    """Three images whose masks wait for review."""
    images = studio.add_images(3)
    studio.predict(images)
    studio.push()
    for task, person in ((1, ANNOTATOR), (2, ANNOTATOR), (3, SECOND)):
        studio.submit_unchanged(task, person)
    studio.pull()
    return images


# On the server


@pytest.mark.slow
def test_push__says_where_each_person_reviews(
    studio: Studio, images: list[Image], review: Run
) -> None:
    result = review("push")
    assert (result.status, result.out.splitlines()) == (
        0,
        [
            "3 masks: 3 added, 0 unchanged, 0 repaired, 0 refused",
            *(
                f"review as {person}: {studio.server.url}/projects/2/data?tab={n}"
                for n, person in enumerate(sorted([*studio.people, "admin@example.org"]), 2)
            ),
        ],
    )
    again = review("push", "--output", "json").json
    assert again["counts"]["unchanged"] == 3
    assert again["unsampled"] == 0
    assert again["tabs"].keys() == {*studio.people, "admin@example.org"}
    studio.check()


@pytest.mark.slow
def test_push__spot_check_says_what_it_leaves_out(
    studio: Studio, images: list[Image], review: Run, wording: SnapshotAssertion
) -> None:
    result = review("push", "--sample", "34", "--seed", "1")
    lines = result.out.splitlines()
    assert lines[:2] == wording
    assert "not sampled" not in review("push", "--sample", "100").out
    assert len(studio.tasks(Purpose.REVIEW)) == 3
    assert review("push", "--sample", "101").status == 2


@pytest.mark.slow
def test_pull__verdicts(studio: Studio, images: list[Image], review: Run) -> None:
    review("push")
    tasks = [studio.review_task(image) for image in images]
    studio.decide(tasks[0], "accept")
    studio.decide(tasks[1], "accept", by=ANNOTATOR)
    studio.decide(tasks[2], "reject", "more of the rim")
    result = review("pull")
    problem = (
        f"annotator and reviewer are both '{ANNOTATOR}': a mask needs a second person; 'ddiseg review "
        "push' offers it to one as long as it waits; see "
        f"{studio.link(tasks[1], Purpose.REVIEW)}"
    )
    assert (result.status, result.out.splitlines()) == (
        0,
        [
            "3 verdicts: 2 added, 0 unchanged, 0 repaired, 1 refused",
            f"  refused  2.png: {problem}",
            f"returned by the reviewer: {studio.server.url}/projects/1/data?tab={max(studio.server.tabs)}",
        ],
    )
    assert [studio.state(image) for image in images] == ["accepted", "submitted", "rework"]
    strict = review("pull", "--strict", "--output", "json")
    assert strict.status == 1
    assert json.loads(strict.out)["full"] is False
    said = studio.server.tasks[studio.task(images[2])].data["review_comment"]
    assert said == f"{REVIEWER}: more of the rim"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_pull__beside_a_server_that_took_them_already(
    studio: Studio, images: list[Image], review: Run
) -> None:
    """Annotations are none of its business."""
    review("push")
    assert "already taken" not in review("pull").out
    for image in images[:2]:
        studio.decide(studio.review_task(image), "accept")
    studio.pull_reviews()
    event = studio.catalogue.events.last("review_pull")
    assert event is not None
    assert review("pull").out.splitlines() == [
        "0 verdicts: 0 added, 0 unchanged, 0 repaired, 0 refused",
        f"already taken since the last 'ddiseg review pull' ({event.at[:16]} UTC) by 'ddiseg serve' "
        "or a round: 2 verdicts",
    ]
    studio.decide(studio.review_task(images[2]), "accept")
    result = review("pull", "--output", "json").json
    assert (result["counts"]["added"], result["taken_before"]) == (1, 0)


@pytest.mark.slow
def test_fault__one_line_on_stderr(studio: Studio, images: list[Image], review: Run) -> None:
    for command in ("push", "pull"):
        studio.server.misbehave("GET", "/api/version", status(403))
        result = review(command)
        assert (result.status, result.out) == (1, "")
        assert "403 for its version: this account may not do that there" in result.err
    studio.check()


# In the terminal


@pytest.mark.slow
def test_list__what_waits_and_whose_it_is(
    studio: Studio, images: list[Image], review: Run, wording: SnapshotAssertion
) -> None:
    lines = review("list").out.splitlines()
    assert lines[0] == wording
    assert lines[1].startswith(f"  1.png (#{images[0].id}), tone I-II, drawn by {ANNOTATOR} 20")
    assert lines[1].endswith(" UTC")
    waiting = review("list", "--output", "json").json["waiting"]
    assert [(w["name"], w["drawn_by"]) for w in waiting] == [
        ("1.png", [ANNOTATOR]),
        ("2.png", [ANNOTATOR]),
        ("3.png", [SECOND]),
    ]


def test_list__nothing_waits(ddiseg: Run, workspace: Workspace, wording: SnapshotAssertion) -> None:
    result = ddiseg("review", "list", "--workspace", workspace.root)
    assert result.out == wording


@pytest.mark.slow
def test_list__pictures_of_photograph_and_masks_side_by_side(
    studio: Studio, images: list[Image], review: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "pictures"
    for _ in range(2):  # the second time over the first
        result = review("list", "--pictures", folder, "--output", "json").json
    paths = [Path(w["picture"]) for w in result["waiting"]]
    assert [path.name for path in paths] == [f"{i.id}-{i.id}.png" for i in images]
    assert sorted(folder.iterdir()) == sorted(paths)
    for path in paths:
        with Pillow.open(path) as picture:
            # Photograph, mask in review, prediction.
            assert picture.size[0] > 2 * WIDTH
            assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10
    assert str(paths[0]) in review("list", "--pictures", folder).out


@pytest.mark.slow
def test_list__no_picture_at_all(
    studio: Studio, images: list[Image], review: Run, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    for image in images:
        stored = studio.workspace.store.path(Kind.IMAGE, image.content_hash)
        Path(stored).unlink()
    result = review("list", "--pictures", tmp_path / "pictures")
    assert result.status == 1
    assert result.out.splitlines()[0] == wording
    assert "Error: no picture could be written, first: " in result.err
    assert review("list").status == 0


@pytest.mark.slow
def test_list__picture_shows_the_mask_that_waits(
    studio: Studio, images: list[Image], review: Run, tmp_path: Path
) -> None:
    review("list", "--pictures", tmp_path / "before")
    studio.server.edit(1, result=FIX)
    studio.pull()
    review("list", "--pictures", tmp_path / "after")
    same = {
        path.name: path.read_bytes() == (tmp_path / "after" / path.name).read_bytes()
        for path in (tmp_path / "before").iterdir()
    }
    assert same == {"1-1.png": False, "2-2.png": True, "3-3.png": True}


@pytest.mark.slow
def test_accept__in_the_terminal(studio: Studio, images: list[Image], review: Run) -> None:
    result = review("accept", "1.png", "--reviewer", REVIEWER, "--comment", " fine ")
    assert (result.status, result.out) == (0, f"1.png (#{images[0].id}): accepted\n")
    assert studio.states() == {"accepted": 1, "submitted": 2}
    [row] = studio.rows("reviews")
    assert (row["reviewer"], row["verdict"], row["comment"]) == (REVIEWER, "accept", "fine")
    as_json = review("accept", "2.png", "--output", "json").json
    assert as_json == {
        "id": images[1].id,
        "name": "2.png",
        "verdict": "accept",
        "state": "accepted",
    }
    assert studio.rows("reviews")[1]["reviewer"] == "manager"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_reject__in_the_terminal_is_shown_to_the_annotator(
    studio: Studio, images: list[Image], review: Run
) -> None:
    result = review("reject", "1.png", "--reviewer", REVIEWER, "--comment", "the rim")
    assert result.out == f"1.png (#{images[0].id}): rework\n"
    studio.push()
    assert studio.server.tasks[1].data["review_comment"] == f"{REVIEWER}: the rim"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_reject__without_a_comment(studio: Studio, images: list[Image], review: Run) -> None:
    assert review("reject", "1.png").status == 2
    empty = review("reject", "1.png", "--comment", "  ")
    assert (empty.status, empty.out) == (1, "")
    assert "--comment is empty: say what the annotator should correct" in empty.err
    assert studio.states() == {"submitted": 3}


@pytest.mark.slow
def test_self_review__in_the_terminal(studio: Studio, images: list[Image], review: Run) -> None:
    for name in (ANNOTATOR, ANNOTATOR.upper(), f" {ANNOTATOR}"):
        for verdict in ("accept", "reject"):
            result = review(verdict, "1.png", "--reviewer", name, "--comment", "mine")
            assert (result.status, result.out) == (1, "")
            assert "a mask needs a second person" in result.err
    assert studio.states() == {"submitted": 3}
    assert studio.rows("reviews") == []


@pytest.mark.slow
def test_decide__image_without_a_mask_in_review(
    studio: Studio, images: list[Image], review: Run
) -> None:
    review("accept", "1.png")
    says = "1.png has no mask in review (it is accepted): 'ddiseg review list' shows"
    for verdict in ("accept", "reject"):
        result = review(verdict, "1.png", "--comment", "x")
        assert (result.status, result.out) == (1, "")
        assert says in result.err
        assert review(verdict, "no.png", "--comment", "x").status == 1


@pytest.mark.slow
def test_decided_in_the_terminal__leaves_the_reviewers_tabs(
    studio: Studio, images: list[Image], review: Run
) -> None:
    review("push")
    task = studio.review_task(images[0])
    review("accept", "1.png")
    review("push")
    assert studio.server.tasks[task].data["waits"] == "no"
    studio.decide(task, "reject", "too late")
    result = review("pull")
    assert "1 refused" in result.out
    assert studio.state(images[0]) == "accepted"
    studio.check(all_pulled=True)


def test_terminal__needs_no_server(ddiseg: Run, workspace: Workspace, filled: Workspace) -> None:
    image = filled.catalogue.images.find("2.png")
    digest = filled.store_mask(skin_and_lesion(5))
    drawn = NewMask(image.id, digest, 8, 6, "same", [1, 4], "1.0", ANNOTATOR)
    filled.catalogue.masks.submit([drawn])
    result = ddiseg("review", "accept", "2.png", "--workspace", filled.root)
    assert (result.status, result.err) == (0, "")
    assert filled.catalogue.events.contradictions() == []
