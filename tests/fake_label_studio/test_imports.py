"""What is put on the server, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_label_studio import FakeLabelStudio
from tests.fake_label_studio.conftest import IMPORT, items, push, where
from tests.fake_label_studio.conversation import CONFIG, region
from tests.fake_label_studio.talk import Talk


def test_import__dedupes_nothing(label_studio: FakeLabelStudio, talk: Talk) -> None:
    first = push(talk, "a", "b")
    second = push(talk, "a", "b")
    assert [label_studio.tasks[n].data["key"] for n in first + second] == ["a", "b", "a", "b"]
    query = where("data.key", "in_list", "List", ["a"])
    answer = talk.ask("GET", "/api/tasks", project=1, query=query)
    assert [t["id"] for t in answer["tasks"]] == [first[0], second[0]]


def test_import__one_bad_item_keeps_all_out(label_studio: FakeLabelStudio, talk: Talk) -> None:
    answer = talk.ask("POST", IMPORT, [*items("a"), {"data": {"key": "b"}}])
    assert talk.status == 400
    assert answer["validation_errors"]["non_field_errors"][0] == {}
    assert "Error at item 1" in answer["validation_errors"]["non_field_errors"][1]
    assert not label_studio.tasks


def test_import__first_one_sets_the_model_version(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    push(talk, "a")
    later = items("b")
    later[0]["predictions"][0]["model_version"] = "m2"
    talk.ask("POST", IMPORT, later)
    assert label_studio.projects[1].settings["model_version"] == "m1"


def test_import__goes_to_as_many_readers_as_the_project_says(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    talk.ask("PATCH", "/api/projects/1/", {"maximum_annotations": 2})
    (task,) = push(talk, "a")
    assert label_studio.tasks[task].overlap == 2


def test_storage__must_lie_in_the_document_root(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with FakeLabelStudio(document_root=tmp_path) as server:
        talk = Talk(server.url, server.token)
        talk.ask("POST", "/api/projects/", {"title": "masks"})
        for path, fault in (
            (inside, None),
            (tmp_path, "cannot be the same"),
            (Path("/"), "must be a subdirectory"),
            (tmp_path / "nowhere", "does not exist"),
        ):
            sent = {"project": 1, "path": str(path)}
            answer = talk.ask("POST", "/api/storages/localfiles/", sent)
            assert talk.status == (400 if fault else 201)
            assert fault is None or fault in str(answer["validation_errors"])
        shown = talk.ask("GET", "/api/storages/localfiles/", project=1)
    assert [storage["path"] for storage in shown] == [str(inside)]


@pytest.mark.parametrize(
    ("old", "new", "change", "validate"),
    [
        ('name="mask"', 'name="paint"', 400, 400),
        ('<Label value="lesion"/>', "", 200, 400),
        ('<Label value="lesion"/>', '<Label value="tumour"/>', 200, 400),
        ('<Label value="skin"/>', "", 200, 200),
        ('name="note"', 'name="remark"', 200, 200),
    ],
)
def test_config__what_may_change_once_people_have_painted(
    label_studio: FakeLabelStudio,
    talk: Talk,
    annotator: int,
    old: str,
    new: str,
    change: int,
    validate: int,
) -> None:
    (task,) = push(talk, "a")
    label_studio.annotate(task, annotator, [region("lesion")])
    config = {"label_config": CONFIG.replace(old, new)}
    talk.ask("POST", "/api/projects/1/validate/", config)
    assert talk.status == validate
    talk.ask("PATCH", "/api/projects/1/", config)
    assert talk.status == change


def test_config__anything_goes_before(talk: Talk) -> None:
    push(talk, "a")
    talk.ask("PATCH", "/api/projects/1/", {"label_config": CONFIG.replace("mask", "paint")})
    assert talk.status == 200
