"""`ddiseg label push` and `ddiseg label pull` as they are typed, on a team's server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddiseg.catalogue.batches import NewMember
from ddiseg.catalogue.evaluations import Compared
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import TOKEN_VARIABLE
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import (
    ANNOTATOR,
    SECOND,
    Studio,
    box,
    chosen,
    stroke,
    team_server,
)
from tests.fake_label_studio import done_then_cut, html, meanwhile, status

Run = Callable[..., Any]

LESION = [stroke("lesion", box(slice(2), slice(3)))]


@pytest.fixture
def studio(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with team_server(workspace, monkeypatch) as studio:
        yield studio


@pytest.fixture
def label(ddiseg: Run, workspace: Workspace) -> Run:
    """label("push", ...): the result of that command in the workspace."""
    return lambda *words: ddiseg("label", *words, "--workspace", workspace.root)


def one_line_error(result: Any) -> str:
    """What a failed command says, and that it says nothing else."""
    assert (result.status, result.out) == (1, "")
    [line] = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert result.err.splitlines()[-1] == line
    assert "Traceback" not in result.err
    return str(line)


@pytest.mark.training
def test_push__says_what_became_of_each_and_where_to_go(studio: Studio, label: Run) -> None:
    images = studio.add_images(2) + studio.add_images(1, "V-VI")
    studio.predict(images[:2])
    result = label("push")
    project = f"{studio.server.url}/projects/1/data"
    assert (result.status, result.out.splitlines()) == (
        0,
        [
            "3 images: 3 added, 0 unchanged, 0 repaired, 0 refused",
            "new, painted: 2 images (I-II 2)",
            "new, bare: 1 image (V-VI 1)",
            f"annotate: {project}",
        ],
    )
    assert result.err.startswith("Sending images: 3 in ")
    again = label("push", "--output", "json").json
    assert again["counts"] == {"added": 0, "unchanged": 3, "repaired": 0, "refused": 0}
    assert (again["project"], again["arms"], again["returned"]) == (project, {}, None)
    studio.check()


@pytest.mark.training
def test_push__images_by_name_and_by_subset(studio: Studio, label: Run) -> None:
    images = studio.add_images(4)
    studio.catalogue.subsets.store({"pilot": [images[2].id]}, {"by": "hand"}, "manager")
    assert label("push", "1.png", "#2").out.startswith("2 images: 2 added")
    assert label("push", "--subset", "pilot").out.startswith("1 image: 1 added")
    assert label("push", "1.png", "--subset", "pilot").status == 2
    assert "no.png" in one_line_error(label("push", "no.png"))
    assert "no-subset" in one_line_error(label("push", "--subset", "no-subset"))
    assert len(studio.server.tasks) == 3
    studio.check()


@pytest.mark.training
def test_push__images_of_a_batch(studio: Studio, label: Run) -> None:
    images = studio.add_images(4)
    members = [NewMember(images[k].id, True, "next by seed") for k in (1, 2)]
    studio.catalogue.batches.store("week-1", members, {}, "manager")
    studio.catalogue.subsets.store({"pilot": [i.id for i in images[2:]]}, {"by": "hand"}, "manager")
    assert label("push", "--batch", "week-1", "--subset", "pilot").out.startswith("1 image: 1 add")
    assert label("push", "--batch", "week-1").out.startswith("2 images: 1 added, 1 unchanged")
    assert label("push", "1.png", "--batch", "week-1").status == 2
    assert "no batch called 'no-batch'" in one_line_error(label("push", "--batch", "no-batch"))
    assert len(studio.server.tasks) == 2
    studio.check()


@pytest.mark.training
def test_push__a_batch_of_images_that_annotators_have_gets_a_tab(
    studio: Studio, label: Run, ddiseg: Run
) -> None:
    studio.predict(studio.add_images(5) + studio.add_images(3, "unknown"))
    label("push")
    studio.submit(1, LESION)
    label("pull")
    root = studio.workspace.root
    drawn = ddiseg("batch", "draw", "week-1", "--size", "4", "--workspace", root)
    assert drawn.out.startswith("week-1: added, 4 images (I-II 2, unknown 2)\n")
    assert "  note     7 of those that may be drawn are in Label Studio already, " in drawn.out
    members = set(studio.catalogue.batches.image_ids("week-1"))
    assert 1 not in members
    project = f"{studio.server.url}/projects/1/data"
    result = label("push", "--batch", "week-1", "--control", "50")
    assert (result.status, result.out.splitlines()) == (
        0,
        [
            "4 images: 0 added, 4 unchanged, 0 repaired, 0 refused",
            "with annotators before: 4, which stay as they are: a control arm takes new images only",
            f"annotate: {project}",
            f"annotate week-1 alone: {project}?tab=2",
        ],
    )
    shown = {t.data["image_id"] for t in studio.server.tasks.values() if "batch" in t.data}
    assert shown == members
    with Client(studio.connection) as client:
        [_, tab] = client.plain.views(1)
    assert tab["data"]["title"] == "Batch week-1"
    assert [(c["filter"], c["value"]) for c in tab["data"]["filters"]["items"]] == [
        ("filter:tasks:data.batch", "week-1")
    ]
    before = [request for request in studio.server.requests if request.method == "PATCH"]
    assert label("push", "--batch", "week-1", "--output", "json").json["tab"] == f"{project}?tab=2"
    assert [r for r in studio.server.requests if r.method == "PATCH"] == before
    studio.check()


@pytest.mark.training
def test_push__a_new_batch_gets_a_tab_too(studio: Studio, label: Run) -> None:
    images = studio.add_images(3)
    members = [NewMember(image.id, True, "next by seed") for image in images[:2]]
    studio.catalogue.batches.store("week-1", members, {}, "manager")
    data = label("push", "--batch", "week-1", "--control", "50", "--output", "json").json
    assert (data["given_before"], data["tab"]) == (0, f"{data['project']}?tab=2")
    assert [task.data["batch"] for task in studio.server.tasks.values()] == ["week-1"] * 2
    again = label("push", "--output", "json").json
    assert (again["given_before"], again["tab"]) == (2, None)
    studio.check()


@pytest.mark.training
def test_push__options_reach_the_tasks(studio: Studio, label: Run) -> None:
    studio.predict(studio.add_images(4, size=(100, 50)))
    options = "--control 50 --readers 2 --sample 50 --seed 3 --hide-tone --longest 64"
    result = label("push", *options.split())
    assert "new, control: 2 images (I-II 2)" in result.out
    tasks = studio.tasks()
    assert sorted(task.readers for task in tasks) == [1, 1, 2, 2]
    assert {(task.width, task.height) for task in tasks} == {(64, 32)}
    assert not any("tone" in task.data for task in studio.server.tasks.values())
    event = studio.catalogue.events.last("push")
    assert event is not None
    assert event.detail["seed"] == 3
    studio.check()


@pytest.mark.training
@pytest.mark.parametrize("option", ["--control", "--sample", "--readers", "--longest"])
def test_push__option_that_makes_no_sense(studio: Studio, label: Run, option: str) -> None:
    studio.add_images()
    result = label("push", option, "-5")
    assert result.status == 2
    assert f"Invalid value for '{option}'" in result.err
    assert not studio.server.tasks


@pytest.mark.training
def test_push__refused_images(studio: Studio, label: Run) -> None:
    images = studio.add_images(2)
    Path(studio.workspace.store.path(Kind.IMAGE, images[0].content_hash)).unlink()
    result = label("push")
    assert result.status == 0
    assert "1 added, 0 unchanged, 0 repaired, 1 refused" in result.out
    assert "  refused  1.png: " in result.out
    strict = label("push", "--strict")
    assert strict.status == 1
    assert "--strict: 1 of 2 images refused" in strict.err
    studio.check()


@pytest.mark.training
def test_pull__beside_a_server_that_took_it_already(studio: Studio, label: Run) -> None:
    """`studio.pull` is what 'ddiseg serve' and rounds do."""
    studio.add_images(4)
    label("push")
    studio.submit(1, LESION)
    studio.pull()
    nothing, all_of_it = (
        "0 annotations: 0 added, 0 unchanged, 0 repaired, 0 refused",
        "'ddiseg serve' or a round",
    )
    assert label("pull").out.splitlines() == [
        nothing,
        f"already taken before by {all_of_it}: 1 annotation",
    ]
    assert label("pull").out.splitlines() == [nothing]
    studio.submit(2, LESION)
    studio.skip(3, "blurry")
    studio.pull()
    event = studio.catalogue.events.last("label_pull")
    assert event is not None
    assert label("pull").out.splitlines() == [
        nothing,
        f"already taken since the last 'ddiseg label pull' ({event.at[:16]} UTC) by {all_of_it}: "
        "2 annotations",
    ]
    studio.submit(4, LESION)
    own = label("pull", "--output", "json").json
    assert (own["counts"]["added"], own["taken_before"]) == (1, 0)
    assert label("pull", "--full", "--output", "json").json["taken_before"] == 0
    studio.check(all_pulled=True)


@pytest.mark.training
def test_pull__beside_a_server_that_was_quicker(studio: Studio, label: Run) -> None:
    """The server takes it while the command is at work."""
    studio.add_images()
    label("push")
    studio.submit(1, LESION)
    studio.server.misbehave("GET", "/api/version", meanwhile(studio.pull))
    assert label("pull", "--output", "json").json["taken_before"] == 1
    assert label("pull", "--output", "json").json["taken_before"] == 0


@pytest.mark.training
def test_pull__refused_is_not_taken(studio: Studio, label: Run) -> None:
    studio.add_images()
    label("push")
    studio.submit(1, [chosen("skip_reason", "blurry")])
    studio.pull()
    result = label("pull")
    assert "still refused  1.png" in result.out
    assert "already taken" not in result.out


@pytest.mark.training
def test_push__returned_images_have_a_tab(studio: Studio, label: Run) -> None:
    [image] = studio.add_images()
    label("push")
    studio.submit(1, LESION)
    label("pull")
    studio.catalogue.masks.review(studio.in_review(image).id, "reviewer-1", "reject", "the rim")
    result = label("push")
    assert f"returned by the reviewer: {studio.server.url}/projects/1/data?tab=2" in result.out
    assert studio.server.tasks[1].data["review_comment"] == "reviewer-1: the rim"


@pytest.mark.training
def test_pull__says_what_came_back(studio: Studio, label: Run) -> None:
    studio.add_images(5)
    label("push")
    studio.submit(1, LESION)
    studio.submit(2, [])
    studio.skip(3, by=SECOND)
    studio.skip(4, "other")
    studio.skip(5, "other", "a tattoo")
    result = label("pull")
    problem = (
        "it was submitted without any region: draw one, or skip the task with a reason; "
        f"see {studio.link(2)}"
    )
    assert (result.status, result.out.splitlines()) == (
        0,
        [
            "5 annotations: 4 added, 0 unchanged, 0 repaired, 1 refused",
            f"  refused  2.png: {problem}",
            f"  added  3.png: skipped without a reason: ask {SECOND}",
            f"skipped without saying why: 3.png by {SECOND}; ask, then 'ddiseg skip'",
            f"skipped without saying why: 4.png by {ANNOTATOR}; ask, then 'ddiseg skip'",
        ],
    )
    again = label("pull")
    assert f"still refused  2.png: {problem}" in again.out
    as_json = label("pull", "--full", "--output", "json").json
    assert as_json["problems"] == [f"2.png: {problem}"]
    assert as_json["full"] is True
    assert as_json["unexplained_skips"] == [f"3.png by {SECOND}", f"4.png by {ANNOTATOR}"]
    strict = label("pull", "--strict")
    assert strict.status == 1
    assert "--strict: still refused: 1 annotation" in strict.err
    studio.check(all_pulled=True)


@pytest.mark.training
def test_pull__a_reason_given_in_the_terminal_ends_the_asking(
    studio: Studio, label: Run, ddiseg: Run
) -> None:
    studio.add_images()
    label("push")
    studio.skip(1)
    assert "skipped without saying why" in label("pull").out
    root = studio.workspace.root
    ddiseg("skip", "1.png", "--reason", "blurry", "--annotator", ANNOTATOR, "--workspace", root)
    for words in (("pull",), ("pull", "--full")):
        assert "skipped without saying why" not in label(*words).out
    assert [s.reason for s in studio.catalogue.images.skips()] == ["blurry"]
    studio.check(all_pulled=True)


@pytest.mark.training
def test_pull__strict_with_a_fresh_refusal(studio: Studio, label: Run) -> None:
    studio.add_images()
    label("push")
    studio.submit(1, [])
    result = label("pull", "--strict")
    assert result.status == 1
    assert "--strict: 1 of 1 annotations refused" in result.err


@pytest.mark.training
@pytest.mark.parametrize("command", ["push", "pull"])
def test_fault__one_line_on_stderr(studio: Studio, label: Run, command: str) -> None:
    studio.add_images()
    label("push")
    for fault, says in (
        (status(401), "has another login before Label Studio"),
        (status(403), "403 for its version: this account may not do that there"),
        (html(), "answered with a web page instead of data"),
        (status(500), "had an error of its own (500, its version)"),
    ):
        studio.server.misbehave("GET", "/api/version", fault, times=4)
        line = one_line_error(label(command))
        assert line.startswith(f"Error: {studio.server.url}")
        assert says in line
        studio.server.behave()
    studio.server.version = "2.0.0"
    assert "is Label Studio 2.0.0" in one_line_error(label(command))
    studio.server.stop()
    assert "can't be reached" in one_line_error(label(command))
    studio.check()


@pytest.mark.parametrize("command", ["push", "pull"])
def test_connection__none(workspace: Workspace, ddiseg: Run, command: str) -> None:
    line = one_line_error(ddiseg("label", command, "--workspace", workspace.root))
    assert "'ddiseg label up' starts one, 'ddiseg label connect URL' uses a team's" in line


@pytest.mark.parametrize("command", ["push", "pull"])
def test_connection__no_token(
    studio: Studio, label: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE)
    assert f"put it into the environment variable {TOKEN_VARIABLE}" in one_line_error(
        label(command)
    )


@pytest.mark.training
def test_token__in_no_output_and_no_file(
    studio: Studio, label: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    studio.add_images()
    for token in (studio.server.token, studio.server.pat):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        studio.server.misbehave("POST", "/api/projects/*/import", done_then_cut())
        studio.server.misbehave("GET", "/api/tasks", status(401), times=2, skip=2)
        for words in (("push", "--debug"), ("push",), ("pull", "--debug"), ("pull", "--full")):
            result = label(*words)
            assert token not in result.out + result.err
        assert token not in caplog.text
        for path in studio.workspace.root.rglob("*"):
            assert path.is_dir() or token.encode() not in path.read_bytes()
    assert studio.states() == {"in_labelling": 1}


@pytest.mark.training
def test_push__test_images_are_told(studio: Studio, label: Run, ddiseg: Run) -> None:
    """They were compared with a true mask: drawn and accepted, they would be learned from."""
    images = studio.add_images(3)
    studio.predict(images)
    predictions = studio.catalogue.masks.newest_predictions()
    compared = [Compared(i.id, predictions[i.id].id, "d" * 64, 0.5) for i in images[:2]]
    studio.catalogue.evaluations.add({}, compared, "tester")
    status = ddiseg("status", "--workspace", studio.workspace.root).out
    assert "(test images among them: 2; once accepted, they are learned from)" in status
    said = label("push").out.splitlines()
    assert said[2].startswith("2 of these are test images of 'ddiseg evaluate --truth': once their")
