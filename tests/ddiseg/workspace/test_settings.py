"""The sections [study] and [training] of ddiseg.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddiseg.errors import InputError, WorkspaceError
from ddiseg.workspace.settings import (
    KEYS,
    Setting,
    StudySettings,
    TrainingSettings,
    find_setting,
    read_toml,
    write_line,
    write_setting,
)
from ddiseg.workspace.workspace import Workspace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ddiseg.toml"
    path.write_text('# ours\ncatalogue = ""\nstore = ""\n', "utf-8")
    return path


def test_read__what_is_given_wins_over_the_file_and_the_file_over_the_default(file: Path) -> None:
    for key, value in (("study.control", 20.0), ("study.readers", 2)):
        write_setting(file, KEYS[key], value)
    found = StudySettings.read(file.parent, control=30.0, readers=None)
    assert found == StudySettings(control=30, readers=2)
    assert found.changed() == {"study.control": 30, "study.readers": 2}
    assert TrainingSettings.read(file.parent) == TrainingSettings()


@pytest.mark.parametrize(
    "values",
    [
        {"control": 101}, {"control": float("nan")}, {"control": True}, {"control": "5"},
        {"sample": -1}, {"review_sample": float("inf")}, {"readers": 0}, {"readers": 1.5},
        {"readers": True}, {"hide_tone": 1}, {"seed": -1},
    ],
)  # fmt: skip
def test_study__values_that_can_not_be(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(values)).replace('_', '-')} is "):
        StudySettings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": ""}, {"backbone": "a\nb"}, {"max_drop": 1.1}, {"max_drop": float("nan")}, {"every": 0},
        {"max_age": 0.0}, {"max_age": 36_501}, {"cache_gb": -1}, {"device": 0}, {"ensemble": "median"}, {"ensemble": ""},
    ],
)  # fmt: skip
def test_training__values_that_can_not_be(values: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TrainingSettings(**values)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("study = 3", "study must be a section"),
        ("[study]\ncontrl = 3", "no setting 'contrl'"),
        ("[study]\ncontrol = 300", "config set study.control VALUE"),
        ("[study]\ncontrol = ", "can't be read"),
    ],
)
def test_read__a_file_broken_by_hand(file: Path, lines: str, named: str) -> None:
    file.write_text(lines, "utf-8")
    with pytest.raises(WorkspaceError, match=named) as raised:
        StudySettings.read(file.parent)
    assert str(raised.value).startswith(f"{file}")
    assert "\n" not in str(raised.value)


def test_write__keeps_comments_and_other_lines(file: Path) -> None:
    file.write_text(
        '# ours\ncatalogue = ""\n\n[study] # how\nreaders = 2  # two of us\ncontrol = 3\n\n'
        "[training]\nevery = 5",
        "utf-8",
    )
    write_setting(file, KEYS["study.readers"], 3)
    write_setting(file, KEYS["study.hide-tone"], True)
    write_setting(file, KEYS["training.backbone"], 'a "b" # c')
    assert file.read_text("utf-8") == (
        '# ours\ncatalogue = ""\n\n[study] # how\nreaders = 3  # two of us\ncontrol = 3\n'
        'hide-tone = true\n\n[training]\nevery = 5\nbackbone = "a \\"b\\" # c"\n'
    )
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("lines", ["study = {control = 3}", '[study]\n"control" = 3', "study = 1"])
def test_write__a_line_that_only_a_person_can_change(file: Path, lines: str) -> None:
    file.write_text(lines, "utf-8")
    with pytest.raises(WorkspaceError, match=r"write 'control = 4' under \[study\]"):
        write_setting(file, KEYS["study.control"], 4)
    assert file.read_text("utf-8") == lines


VALUES = {
    bool: st.booleans(),
    int: st.integers(1, 10**9),
    float: st.floats(0.001, 1),
    str: st.text(min_size=1).filter(str.isprintable),
}


@pytest.mark.property
@given(
    st.lists(
        st.sampled_from(list(KEYS.values())).flatmap(
            lambda setting: st.tuples(st.just(setting), VALUES[type(setting.default)])
        ),
        max_size=6,
    )
)
def test_write__is_read_again(tmp_path_factory: Any, changes: list[tuple[Setting, Any]]) -> None:
    path = tmp_path_factory.mktemp("w") / "ddiseg.toml"
    path.write_text('store = "x"\n', "utf-8")
    wanted: dict[str, Any] = {"store": "x"}
    for setting, value in changes:
        section, _, name = setting.key.partition(".")
        write_setting(path, setting, value)
        wanted.setdefault(section, {})[name] = value
    read = read_toml(path)
    for part in (wanted.get("study", {}), wanted.get("training", {})):
        for name, value in part.items():
            if isinstance(value, float):
                part[name] = pytest.approx(value)
    assert read == wanted


@pytest.mark.training
def test_set__is_an_event_with_old_and_new(workspace: Workspace) -> None:
    setting = find_setting("study.control")
    assert workspace.set(setting, 20.0, "maria") == 0
    assert workspace.set(setting, 20.0, "maria") == 20, "unchanged: no event"
    event = workspace.catalogue.events.last("config")
    assert event is not None
    assert (event.actor, event.detail) == (
        "maria",
        {"key": "study.control", "old": 0.0, "new": 20.0},
    )
    assert workspace.set(setting, 30.0, "tom") == 20
    assert workspace.study().control == 30


def test_set__no_event_no_change(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise WorkspaceError("the catalogue is locked")

    file = workspace.root / "ddiseg.toml"
    before = file.read_text("utf-8")
    monkeypatch.setattr(type(workspace.catalogue.events), "record", refuse)
    with pytest.raises(WorkspaceError, match="locked"):
        workspace.set(find_setting("study.control"), 20.0, "maria")
    assert file.read_text("utf-8") == before
    tomllib.loads(before)


def test_check__a_choice_in_any_case() -> None:
    setting = TrainingSettings.settings()["precision"]
    assert setting.parse("BFLOAT16") == "bfloat16"
    assert TrainingSettings(precision="BFloat16").precision == "bfloat16"
    with pytest.raises(InputError):
        setting.parse("BFLOAT8")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('# ours\ncatalogue = ""\nstore = ""\n', '# ours\ncatalogue = "new"\nstore = ""\n'),
        ("", 'catalogue = "new"\n'),
        ("# ours\n[study]\ncontrol = 2\n", '# ours\ncatalogue = "new"\n[study]\ncontrol = 2\n'),
        ("[x]\ncatalogue = 1\n", 'catalogue = "new"\n[x]\ncatalogue = 1\n'),
    ],
)
def test_write_line__all_others_stay(file: Path, before: str, after: str) -> None:
    file.write_text(before)
    write_line(file, "catalogue", "new")
    assert file.read_text() == after


def test_write_line__written_in_a_way_that_only_a_person_can_change(file: Path) -> None:
    file.write_text('"catalogue" = "old"\n')
    with pytest.raises(WorkspaceError, match="write 'catalogue = \"new\"' yourself"):
        write_line(file, "catalogue", "new")
    assert file.read_text() == '"catalogue" = "old"\n'
