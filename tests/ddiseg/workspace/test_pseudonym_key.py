"""The key of the pseudonyms: kept with each backup, restored with it, missed by verify."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ddiseg.errors import InputError, WorkspaceError
from ddiseg.workspace.backup import backup, roll_backup
from ddiseg.workspace.pseudonym_key import KEY_FILE, TABLE_FILE, key_of_backup
from ddiseg.workspace.pseudonyms import Pseudonyms, write_table
from ddiseg.workspace.restore import restore
from ddiseg.workspace.settings import find_setting
from ddiseg.workspace.verify import Part, verify
from ddiseg.workspace.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def released(filled: Workspace) -> Workspace:
    """A workspace that has made a release."""
    write_table(filled, Pseudonyms.of(filled))
    return filled


def _problems(workspace: Workspace) -> list[str]:
    return [p.line for p in verify(workspace).problems if p.part is Part.PSEUDONYMS]


def test_restore__the_key_comes_with_the_backup(released: Workspace, tmp_path: Path) -> None:
    before = Pseudonyms.of(released)
    file = backup(released, tmp_path / "b")
    assert stat.S_IMODE(key_of_backup(file).stat().st_mode) == 0o600
    for name in (KEY_FILE, TABLE_FILE):
        (released.root / name).unlink()
    done = restore(released.root, file)
    assert (done.key, done.warning) == (True, None)
    assert stat.S_IMODE((released.root / KEY_FILE).stat().st_mode) == 0o600
    assert Pseudonyms.of(Workspace.open(released.root)) == before
    assert restore(released.root, file).key is False


def test_restore__another_key_is_replaced_and_kept(released: Workspace, tmp_path: Path) -> None:
    before = (released.root / KEY_FILE).read_text()
    file = backup(released, tmp_path / "b")
    (released.root / KEY_FILE).write_text("ab" * 32 + "\n")
    done = restore(released.root, file)
    assert (released.root / KEY_FILE).read_text() == before
    assert done.kept is not None
    assert key_of_backup(done.kept).read_text() == "ab" * 32 + "\n"


def test_restore__catalogue_without_its_key_is_told(released: Workspace, tmp_path: Path) -> None:
    file = backup(released, tmp_path / "b")
    key_of_backup(file).unlink()
    for name in (KEY_FILE, TABLE_FILE):
        (released.root / name).unlink()
    done = restore(released.root, file)
    assert done.warning is not None
    assert "is lost, with which earlier releases were made: copy it from a backup" in done.warning
    with pytest.raises(WorkspaceError, match="is lost"):
        Pseudonyms.of(Workspace.open(released.root))


def test_restore__damaged_key_changes_nothing(released: Workspace, tmp_path: Path) -> None:
    file = backup(released, tmp_path / "b")
    key_of_backup(file).write_text("x")
    with pytest.raises(InputError, match=r"b\.key is damaged"):
        restore(released.root, file)
    assert not list((released.root / "backups").glob("*"))


def test_backup__existing_key_file_is_kept(released: Workspace, tmp_path: Path) -> None:
    (tmp_path / "b.key").write_text("mine")
    with pytest.raises(InputError, match=r"b\.key exists"):
        backup(released, tmp_path / "b")
    assert (tmp_path / "b.key").read_text() == "mine"
    assert not (tmp_path / "b").exists()


def test_roll_backup__keys_go_with_their_backups(released: Workspace) -> None:
    released.set(find_setting("backup.keep"), 1, "tester")
    released.set(find_setting("backup.hours"), 0.0, "tester")
    roll_backup(released)
    roll_backup(released)
    [file] = released.root.glob("backups/*.sqlite")
    assert list(released.root.glob("backups/*.key")) == [key_of_backup(file)]


@pytest.mark.parametrize("table", [True, False])
def test_verify__missing_key(released: Workspace, table: bool) -> None:
    assert _problems(released) == []
    file = backup(released)
    (released.root / KEY_FILE).unlink()
    if not table:
        (released.root / TABLE_FILE).unlink()
    [line] = _problems(released)
    assert f"is lost, with which earlier releases were made: copy {key_of_backup(file)}" in line


def test_verify__another_key(released: Workspace) -> None:
    (released.root / KEY_FILE).write_text("ab" * 32 + "\n")
    [line] = _problems(released)
    assert "is not the key of the last release" in line
    write_table(released, Pseudonyms.of(released))
    assert _problems(released) == []


def test_verify__damaged_key(released: Workspace) -> None:
    (released.root / KEY_FILE).write_text("ab")
    [line] = _problems(released)
    assert "is damaged" in line


def test_verify__no_release_was_made(filled: Workspace) -> None:
    assert _problems(filled) == []
