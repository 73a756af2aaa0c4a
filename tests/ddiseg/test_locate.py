"""Which folder is the workspace: as it was named, or found upwards; what is said where none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddiseg.errors import WorkspaceError
from ddiseg.locate import CATALOGUE, OPTION, SETTINGS, VARIABLE, enclosing, locate, place_to_make


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a workspace `work` and an empty folder `sub/deep` in it."""
    (tmp_path / "work" / "store").mkdir(parents=True)
    (tmp_path / "work" / SETTINGS).touch()
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _refused(given: str | None, named_by: str) -> str:
    with pytest.raises(WorkspaceError) as error:
        locate(None if given is None else Path(given), named_by)
    return str(error.value)


@pytest.mark.parametrize("inside", ["work", "work/store"])
def test_locate__upwards_from_the_current_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    monkeypatch.chdir(home / inside)
    assert locate(None, "") == home / "work"


def test_locate__the_nearest_of_two(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / SETTINGS).touch()
    monkeypatch.chdir(home / "work" / "store")
    assert locate(None, "") == home / "work"
    monkeypatch.chdir(home / "sub" / "deep")
    assert locate(None, "") == home


@pytest.mark.parametrize("named_by", [OPTION, VARIABLE])
def test_locate__as_it_was_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    (home / "sub" / SETTINGS).touch()
    monkeypatch.chdir(home / "sub" / "deep")
    for given in (Path("../../work"), home / "work"):
        assert locate(given, named_by) == home / "work"


@pytest.mark.parametrize("named_by", [OPTION, VARIABLE])
def test_locate__a_named_folder_inside_a_workspace_is_not_that_workspace(
    home: Path, named_by: str
) -> None:
    said = _refused("work/store", named_by)
    assert said.startswith(f"{named_by} is 'work/store', and {home / 'work' / 'store'} is no work")
    assert f"{home / 'work'} is one" in said


def test_relative_variable__names_the_workspace_of_that_name_further_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "sub" / "deep")
    assert _refused("work", VARIABLE) == (
        f"DDISEG_WORKSPACE is 'work', and {home / 'sub' / 'deep' / 'work'} is no workspace: "
        f"{home / 'work'} is one, use it with 'export DDISEG_WORKSPACE={home / 'work'}'"
    )


def test_relative_variable__that_names_nothing_never_leads_to_init(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "sub")
    said = _refused("other", VARIABLE)
    assert f"DDISEG_WORKSPACE is 'other', and {home / 'sub' / 'other'} is no workspace: " in said
    assert "set the variable to the absolute path of your workspace" in said
    assert "init" not in said


def test_absolute_variable__that_names_nothing(home: Path) -> None:
    empty = home / "sub"
    assert _refused(str(empty), VARIABLE) == (
        f"DDISEG_WORKSPACE is '{empty}', which is no workspace: correct the variable, or make one "
        f"there with 'ddiseg init {empty}'"
    )


def test_option__with_a_slip_in_it_names_what_is_beside_it(home: Path) -> None:
    said = _refused("wrok", OPTION)
    assert said.endswith(f"{home / 'work'} is one, give --workspace {home / 'work'}")
    assert "init" not in said


def test_current_folder__names_a_workspace_in_it(home: Path) -> None:
    assert _refused(None, "") == (
        f"no workspace in {home} or in a folder above it: {home / 'work'} is one, use it with "
        f"'cd {home / 'work'}' or --workspace {home / 'work'}"
    )


def test_current_folder__several_in_it(home: Path) -> None:
    for name in "abcd":
        (home / name).mkdir()
        (home / name / SETTINGS).touch()
    said = _refused(None, "")
    assert f"there are {home / 'a'}, {home / 'b'}, {home / 'c'} and 2 more; " in said


def test_current_folder__with_none_near(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "sub")
    assert _refused(None, "") == (
        f"no workspace in {home / 'sub'} or in a folder above it: give --workspace, set "
        "DDISEG_WORKSPACE, or make one with 'ddiseg init DIRECTORY'"
    )


@pytest.mark.parametrize(
    ("given", "named_by"), [(None, ""), (".", OPTION), (".", VARIABLE), ("ABSOLUTE", VARIABLE)]
)
def test_settings_are_gone__are_restored_rather_than_made(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, named_by: str
) -> None:
    root = home / "work"
    (root / SETTINGS).rename(root / CATALOGUE)
    monkeypatch.chdir(root)
    said = _refused(str(root) if given == "ABSOLUTE" else given, named_by)
    assert f"has a catalogue.sqlite but no ddiseg.toml: restore {root / SETTINGS}" in said
    assert "init" not in said
    assert named_by in said


def test_a_folder_that_is_gone_or_shut__is_one_line(home: Path) -> None:
    shut = home / "sub" / "deep"
    shut.chmod(0)
    try:
        assert "no workspace" in _refused(str(shut / "work"), OPTION)
    finally:
        shut.chmod(0o755)
    assert "is no workspace" in _refused("no/such/folder", OPTION)


def test_enclosing__none(tmp_path: Path) -> None:
    assert enclosing(tmp_path) is None


def test_place_to_make__where_it_was_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "work" / "store")
    named = home / "work" / "store" / "new"
    assert place_to_make(Path("new"), None, "") == named
    assert place_to_make(None, Path("new"), OPTION) == named
    assert place_to_make(Path("new"), Path("other"), VARIABLE) == named


def test_place_to_make__the_variable_or_the_current_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "sub")
    assert place_to_make(None, None, "") == home / "sub"
    assert place_to_make(None, Path("new"), VARIABLE) == home / "sub" / "new"
    assert place_to_make(None, home / "new", VARIABLE) == home / "new"
    assert place_to_make(None, home / "work", VARIABLE) == home / "work"


@pytest.mark.parametrize("given", [None, "new", "ABSOLUTE"])
def test_place_to_make__never_inside_another_unasked(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.chdir(home / "work" / "store")
    absolute = home / "work" / "store" / "new"
    path = {None: None, "ABSOLUTE": absolute}.get(given, Path("new"))
    with pytest.raises(WorkspaceError, match=f"{home / 'work'}") as error:
        place_to_make(None, path, VARIABLE if given else "")
    place = absolute if given else home / "work" / "store"
    assert f"type 'ddiseg init {place}'" in str(error.value)


def test_place_to_make__not_a_second_one_of_a_relative_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "sub")
    with pytest.raises(WorkspaceError, match=f"export DDISEG_WORKSPACE={home / 'work'}"):
        place_to_make(None, Path("work"), VARIABLE)


def test_locate__settings_that_are_no_file_are_left_to_whoever_opens_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "sub" / SETTINGS).symlink_to("gone")
    (home / "sub" / "deep" / SETTINGS).mkdir()
    for folder in (home / "sub", home / "sub" / "deep"):
        monkeypatch.chdir(folder)
        assert locate(None, "") == folder
        assert locate(folder, OPTION) == folder
