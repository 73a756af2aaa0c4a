"""The two projects of a workspace: made once, found again, kept as the protocol says."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread

import pytest

from annotation_protocol import load_protocol
from annotation_protocol.label_studio_config import (
    CLICK,
    annotation_config,
    differences,
    read_config,
    review_config,
)
from ddiseg.catalogue import Purpose
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.projects import ProjectRef, ensure_project, ensure_projects, set_clicks
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import Studio
from tests.fake_label_studio import Fault, cut, done_then_cut, meanwhile
from tests.fake_label_studio.talk import Talk
from tests.wording import Refusal

PROTOCOL = load_protocol()

#: By the number of the project on a new server.
CONFIGS = {1: review_config(PROTOCOL), 2: annotation_config(PROTOCOL)}


def home(studio: Studio) -> list[tuple[str, str]]:
    """Title and description of the projects as Home lists them."""
    found = Talk(studio.server.url, studio.server.token).ask("GET", "/api/projects/")
    return [(project["title"], project["description"]) for project in found["results"]]


def made_by_older_version(studio: Studio, *, known: bool) -> None:
    """Both projects as ddiseg 0.1 made them; not `known`: it was stopped before it wrote down where."""
    talk = Talk(studio.server.url, studio.server.token)
    for purpose, title in ((Purpose.ANNOTATION, "Annotate w"), (Purpose.REVIEW, "Review w")):
        row = studio.catalogue.tasks.project(studio.connection.server, purpose)
        text = f"Filled and emptied by ddiseg; do not remove this mark: ddiseg:{row.key}"
        plain = annotation_config if purpose is Purpose.ANNOTATION else review_config
        settings = {"title": title, "description": text, "label_config": plain(PROTOCOL)}
        number = talk.ask("POST", "/api/projects/", settings)["id"]
        if known:
            studio.catalogue.tasks.set_remote_id(row.id, number)


def open_annotation(studio: Studio, *, keep_config: bool = True) -> ProjectRef:
    with Client(studio.connection) as client:
        return ensure_project(
            studio.workspace, client, studio.connection, Purpose.ANNOTATION, keep_config=keep_config
        )


def config(studio: Studio) -> str:
    return str(studio.server.projects[1].settings["label_config"])


def rename_lesion(studio: Studio) -> None:
    """As the administrator does in Settings > Labeling Interface."""
    renamed = config(studio).replace('value="lesion"', 'value="Lesion"')
    assert renamed != config(studio)
    studio.server.projects[1].settings["label_config"] = renamed


def test_ensure_projects__one_for_each_purpose(studio: Studio) -> None:
    places = ensure_projects(studio.workspace, studio.connection)
    assert {purpose: place.number for purpose, place in places.items()} == {
        Purpose.ANNOTATION: 2,
        Purpose.REVIEW: 1,
    }
    made = {number: row.settings for number, row in studio.server.projects.items()}
    assert [made[n]["title"] for n in (2, 1)] == ["Annotate: w", "Review: w"]
    assert [differences(made[n]["label_config"], wanted) for n, wanted in CONFIGS.items()] == [
        [],
        [],
    ]
    assert [made[n]["show_skip_button"] for n in (2, 1)] == [True, False]
    assert [made[n]["enable_empty_annotation"] for n in (2, 1)] == [False, False]
    assert {(s["maximum_annotations"], s["model_version"]) for s in made.values()} == {
        (1, "ddiseg")
    }
    assert made[2]["skip_queue"] == "IGNORE_SKIPPED"
    place = places[Purpose.ANNOTATION]
    assert place.url == f"{studio.server.url}/projects/2/data"
    assert place.link(7) == f"{studio.server.url}/projects/2/data?task=7"


def test_ensure_projects__what_people_read_on_home(studio: Studio) -> None:
    """Annotating comes first, in words for people; the mark is for ddiseg alone."""
    ensure_projects(studio.workspace, studio.connection)
    assert home(studio) == [
        ("Annotate: w", "Outline the lesion on each photograph, or skip it with a reason."),
        ("Review: w", "Accept, fix or reject masks that others drew: open the tab with your name."),
    ]
    for purpose in Purpose:
        row = studio.catalogue.tasks.project(studio.connection.server, purpose)
        remote = studio.server.projects[row.remote_id or 0]
        assert f"ddiseg:{row.key}" in remote.settings["label_config"]
        assert row.key not in remote.settings["expert_instruction"]


@pytest.mark.parametrize("known", [True, False], ids=["known", "found again"])
@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "a team's"])
def test_ensure_projects__made_by_an_older_version(
    studio: Studio, known: bool, embedded: bool
) -> None:
    """Annotation first, and the mark in the description, where it is found and put out of sight."""
    if not embedded:
        studio.connection = replace(studio.connection, embedded=False, media=None)
    made_by_older_version(studio, known=known)
    for _ in range(2):
        places = ensure_projects(studio.workspace, studio.connection)
        assert [place.number for place in places.values()] == [1, 2]
        listed = [title for title, _ in home(studio)]
        # On a team's server a pin would put the project before everyone's.
        assert listed == ["Annotate: w", "Review: w"][:: 1 if embedded else -1]
    assert not [text for _, text in home(studio) if "ddiseg:" in text]
    assert studio.server.projects[1].settings["pinned_at"] is None or embedded
    row = studio.catalogue.tasks.project(studio.connection.server, Purpose.ANNOTATION)
    studio.catalogue.tasks.set_remote_id(row.id, None)
    assert open_annotation(studio).number == 1, "by the mark in its configuration"


def test_ensure_projects__older_and_described_by_somebody(studio: Studio) -> None:
    made_by_older_version(studio, known=True)
    settings = studio.server.projects[1].settings
    settings["title"] = "Moles of Ward 3"
    settings["description"] = f"Ask Ward 3. {settings['description']}"
    ensure_projects(studio.workspace, studio.connection)
    assert ("Moles of Ward 3", settings["description"]) in home(studio)
    assert settings["description"].startswith("Ask Ward 3.")


def test_ensure_projects__again_makes_nothing(studio: Studio) -> None:
    before = ensure_projects(studio.workspace, studio.connection)
    writes = studio.server.count("POST", "*"), studio.server.count("PATCH", "*")
    again = ensure_projects(studio.workspace, studio.connection)
    assert (studio.server.count("POST", "*"), studio.server.count("PATCH", "*")) == writes
    assert [place.number for place in again.values()] == [p.number for p in before.values()]


@pytest.mark.parametrize("fault", [cut(), done_then_cut()], ids=["cut", "done, then cut"])
@pytest.mark.parametrize("path", ["/api/projects/", "/api/storages/localfiles/"])
def test_ensure_projects__cut_while_one_is_made_then_again(
    studio: Studio, fault: Fault, path: str, refusal: Refusal
) -> None:
    studio.server.misbehave("POST", path, fault)
    with refusal(ServerError):
        ensure_projects(studio.workspace, studio.connection)
    ensure_projects(studio.workspace, studio.connection)
    assert len(studio.server.projects) == 2
    assert len(studio.server.storages) == 2


def test_open_place__storage_that_adds_no_tasks_once(studio: Studio) -> None:
    for _ in range(2):
        open_annotation(studio)
    [storage] = studio.server.storages.values()
    assert studio.connection.media is not None
    assert storage.settings["path"] == str(studio.connection.media / "images")
    assert (storage.settings["use_blob_urls"], storage.settings["regex_filter"]) == (True, "(?!)")


def test_open_place__a_team_s_server_has_no_storage(team: Studio) -> None:
    open_annotation(team)
    assert len(team.server.projects) == 1
    assert not team.server.storages


def test_open_place__two_workspaces_on_one_server(studio: Studio) -> None:
    """Another workspace's project has the same title and another mark."""
    open_annotation(studio)
    row = studio.catalogue.tasks.project(studio.connection.server, Purpose.ANNOTATION)
    studio.server.projects[1].settings["label_config"] = annotation_config(PROTOCOL)
    studio.catalogue.tasks.set_remote_id(row.id, None)
    assert open_annotation(studio).number == 2


def test_open_place__another_server_gets_projects_of_its_own(studio: Studio) -> None:
    open_annotation(studio)
    other = replace(studio.connection, embedded=False, media=None)
    with Client(other) as client:
        place = ensure_project(studio.workspace, client, other, Purpose.ANNOTATION)
    assert place.number == 2
    assert open_annotation(studio).number == 1


@pytest.mark.parametrize("used", [True, False])
def test_config__cosmetic_change_is_put_right_without_a_word(studio: Studio, used: bool) -> None:
    if used:
        studio.push(studio.add_images())
    else:
        open_annotation(studio)
    prettier = config(studio).replace("#56b4e9", "#ff0000").replace('hotkey="1"', 'hotkey="z"')
    assert prettier != config(studio)
    studio.server.projects[1].settings["label_config"] = prettier
    open_annotation(studio)
    assert differences(config(studio), annotation_config(PROTOCOL)) == []


def test_config__mark_that_somebody_removed_comes_back(studio: Studio) -> None:
    """Label Studio's visual editor writes the configuration anew."""
    open_annotation(studio)
    marked = config(studio)
    studio.server.projects[1].settings["label_config"] = annotation_config(PROTOCOL)
    open_annotation(studio)
    assert config(studio) == marked


def test_config__white_space_is_left_alone(studio: Studio) -> None:
    open_annotation(studio)
    spaced = config(studio).replace("\n", "\n\n")
    studio.server.projects[1].settings["label_config"] = spaced
    open_annotation(studio)
    assert config(studio) == spaced


def test_config__renamed_label_of_an_empty_project_is_put_back(studio: Studio) -> None:
    open_annotation(studio)
    rename_lesion(studio)
    open_annotation(studio)
    assert differences(config(studio), annotation_config(PROTOCOL)) == []


def test_config__renamed_label_is_refused_where_people_may_have_used_it(studio: Studio) -> None:
    studio.push(studio.add_images())
    rename_lesion(studio)
    renamed = config(studio)
    with pytest.raises(InputError) as raised:
        open_annotation(studio)
    line = str(raised.value)
    assert line.startswith(f"project 1 on {studio.server.url} has label 'Lesion' of mask, which")
    assert "put the old name back (in the project under Settings > Labeling Interface" in line
    assert "\n" not in line
    assert config(studio) == renamed
    assert open_annotation(studio, keep_config=False).number == 1
    assert config(studio) == renamed


def test_open_place__project_was_deleted(studio: Studio) -> None:
    ensure_projects(studio.workspace, studio.connection)
    studio.server.projects.clear()
    for purpose, command in ((Purpose.ANNOTATION, "label"), (Purpose.REVIEW, "review")):
        with Client(studio.connection) as client, pytest.raises(ServerError) as raised:
            ensure_project(studio.workspace, client, studio.connection, purpose)
        assert raised.value.status == 404
        assert f"'ddiseg {command} pull --full' takes note of that" in str(raised.value)
    assert not studio.server.projects


@pytest.mark.slow
def test_ensure_projects__two_at_once(studio: Studio) -> None:
    """'ddiseg label up' while a push that waited for the server is about to make its project."""
    other = Thread(
        target=lambda: ensure_projects(Workspace.open(studio.workspace.root), studio.connection)
    )

    def other_comes() -> None:
        other.start()
        other.join(0.5)  # time enough to make them both, if it could

    studio.server.misbehave("POST", "/api/projects/", meanwhile(other_comes))
    ensure_projects(studio.workspace, studio.connection)
    other.join()
    assert len(studio.server.projects) == 2
    assert len(studio.server.storages) == 2


def test_clicks__stay_as_they_are_on_the_server(studio: Studio) -> None:
    """What a project was given is kept by the pushes that come after."""
    place = ensure_projects(studio.workspace, studio.connection)[Purpose.ANNOTATION]
    with Client(studio.connection) as client:
        for clicks in (True, False):
            set_clicks(studio.workspace, client, place, clicks=clicks)
            ensure_projects(studio.workspace, studio.connection)
            shown = read_config(client.project(place.number).config).controls
            assert (CLICK in shown) is clicks
