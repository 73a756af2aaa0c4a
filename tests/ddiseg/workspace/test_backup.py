"""Backups of the catalogue: consistent, checked, rolling; a restore is whole or nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic import command

from ddiseg import images
from ddiseg.catalogue.database import Database, _alembic
from ddiseg.catalogue.leases import SERVE
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.workspace.backup import Reason, backup, new_name, newest, roll_backup
from ddiseg.workspace.restore import restore
from ddiseg.workspace.settings import find_setting
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import Part, verify
from ddiseg.workspace.workspace import Workspace

pytestmark = pytest.mark.slow


def _catalogue(workspace: Workspace) -> Path:
    return workspace.root / "catalogue.sqlite"


def _lose(workspace: Workspace) -> None:
    workspace.catalogue.close()
    for each in workspace.root.glob("catalogue.sqlite*"):
        each.unlink()


def _names(workspace: Workspace) -> list[str]:
    opened = Workspace.open(workspace.root)
    names = [image.name for image in opened.catalogue.images.select()]
    opened.catalogue.close()
    return names


def test_backup_and_restore__lost_catalogue(filled: Workspace) -> None:
    file = backup(filled)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    _lose(filled)
    done = restore(filled.root, file)
    assert (done.images, done.masks, done.kept) == (3, 1, None)
    assert _names(filled) == ["1.png", "2.png", "3.png"]
    assert verify(Workspace.open(filled.root)).problems == []


def test_backup__while_a_writer_has_begun(filled: Workspace) -> None:
    with closing(sqlite3.connect(_catalogue(filled))) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE images SET diagnosis = 'half done'")
        file = backup(filled)
        writer.rollback()
    with closing(sqlite3.connect(file)) as copy:
        assert copy.execute("SELECT diagnosis FROM images").fetchall() == [(None,)] * 3


def test_backup__existing_file_is_kept(filled: Workspace, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(InputError, match="exists: give --to"):
        backup(filled, tmp_path / "b")
    assert (tmp_path / "b").read_text() == "mine"


def test_restore__keeps_the_replaced_catalogue(filled: Workspace) -> None:
    file = backup(filled)
    filled.catalogue.images.skip(2, "poor-quality", None, "anna")
    done = restore(filled.root, file)
    assert [i.state for i in filled.catalogue.images.select()].count("skipped") == 0
    assert done.kept is not None
    restore(filled.root, done.kept)
    assert [i.state for i in filled.catalogue.images.select()].count("skipped") == 1


def test_restore__old_log_beside_a_lost_catalogue_is_not_applied(filled: Workspace) -> None:
    file = backup(filled)
    shutil.copy(_catalogue(filled), filled.root / "x")
    with closing(sqlite3.connect(_catalogue(filled))) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("UPDATE images SET diagnosis = 'lost'")
        other.commit()
        wal = (filled.root / "catalogue.sqlite-wal").read_bytes()
    _lose(filled)
    (filled.root / "catalogue.sqlite-wal").write_bytes(wal)
    restore(filled.root, file)
    opened = Workspace.open(filled.root)
    assert {image.diagnosis for image in opened.catalogue.images.select()} == {None}
    assert verify(opened).problems == []


def test_restore__damaged_catalogue_is_moved(filled: Workspace) -> None:
    file = backup(filled)
    _lose(filled)
    _catalogue(filled).write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    done = restore(filled.root, file)
    assert done.kept is not None
    assert done.kept.read_bytes().endswith(b"xxx")
    assert len(_names(filled)) == 3


def _text(path: Path) -> None:
    path.write_text("no database")


def _other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [_text, _other_database, _cut_short, _newer, _gone])
def test_restore__bad_file_changes_nothing(
    filled: Workspace, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "b.sqlite"
    backup(filled, file)
    if harm is _other_database:
        file.unlink()
    harm(file)
    with pytest.raises((InputError, WorkspaceError), match=r"b\.sqlite"):
        restore(filled.root, file)
    assert len(_names(filled)) == 3
    assert not list((filled.root / "backups").glob("*"))
    assert not list((filled.root / "backups").glob(".*"))


def test_restore__older_schema_is_upgraded(filled: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "old.sqlite"
    backup(filled, file)
    database = Database(f"sqlite:///{file}")
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0006")
    database.engine.dispose()
    assert restore(filled.root, file).schema == "0006"
    assert len(_names(filled)) == 3


def test_restore__full_disk_changes_nothing(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = backup(filled)
    filled.catalogue.images.skip(2, "poor-quality", None, "anna")

    def full(_source: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddiseg.workspace.restore.overwrite_database", full)
    with pytest.raises(WorkspaceError, match="No space left"):
        restore(filled.root, file)
    assert [i.state for i in filled.catalogue.images.select()].count("skipped") == 1
    assert not list((filled.root / "backups").glob(".*"))


def test_restore__refused_while_a_server_runs(filled: Workspace) -> None:
    file = backup(filled)
    with (
        filled.catalogue.leases.hold(SERVE),
        pytest.raises(WorkspaceError, match=r"ddiseg serve runs .*: stop it"),
    ):
        restore(filled.root, file)


@pytest.mark.process
def test_restore__killed_in_the_middle_leaves_the_old_catalogue(filled: Workspace) -> None:
    file = backup(filled)
    filled.catalogue.images.skip(2, "poor-quality", None, "anna")
    filled.catalogue.close()
    code = (
        "import os, sqlite3, sys; from pathlib import Path\n"
        "from ddiseg.workspace import restore as r\n"
        "def half(source, target):\n"
        "    a, b = sqlite3.connect(source), sqlite3.connect(target)\n"
        "    a.backup(b, pages=5, progress=lambda *_: os.kill(os.getpid(), 9))\n"
        "r.overwrite_database = half\n"
        "r.restore(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, filled.root, file], check=False)
    assert done.returncode == -9
    opened = Workspace.open(filled.root)
    assert [i.state for i in opened.catalogue.images.select()].count("skipped") == 1
    assert verify(opened).problems == []
    opened.catalogue.close()
    assert restore(filled.root, file).images == 3


def test_roll_backup__keeps_the_newest(filled: Workspace) -> None:
    filled.set(find_setting("backup.keep"), 2, "tester")
    filled.set(find_setting("backup.hours"), 0.0, "tester")
    requested = backup(filled)
    for _ in range(4):
        roll_backup(filled)
    rolling = sorted(filled.root.glob("backups/*-rolling.sqlite"))
    assert len(rolling) == 2
    assert requested.exists()
    assert newest(filled.root) == rolling[-1]


def test_roll_backup__once_a_day(filled: Workspace) -> None:
    roll_backup(filled)
    roll_backup(filled)
    [file] = filled.root.glob("backups/*-rolling.sqlite")
    os.utime(file, (1, 1))
    roll_backup(filled)
    assert len(list(filled.root.glob("backups/*-rolling.sqlite"))) == 2


def test_roll_backup__failure_is_logged(
    filled: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    (filled.root / "backups").write_text("in the way")
    roll_backup(filled)
    assert "no backup of the catalogue was written" in caplog.text


def test_init__backup_before_an_upgrade(filled: Workspace) -> None:
    filled.catalogue.close()
    database = Database(f"sqlite:///{_catalogue(filled)}")
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0006")
    database.engine.dispose()
    Workspace.create(filled.root).catalogue.close()
    [file] = filled.root.glob("backups/*-before-upgrade.sqlite")
    with closing(sqlite3.connect(file)) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == ("0006",)
    Workspace.create(filled.root).catalogue.close()
    assert len(list(filled.root.glob("backups/*"))) == 1, "nothing was upgraded"


@pytest.mark.parametrize("work", [Workspace.open, Workspace.create])
@pytest.mark.parametrize("state", ["missing", "empty database"])
def test_lost_catalogue__backup_is_named(
    filled: Workspace, work: Callable[[Path], Workspace], state: str
) -> None:
    file = backup(filled)
    _lose(filled)
    if state != "missing":
        with closing(sqlite3.connect(_catalogue(filled))) as connection:
            connection.execute("PRAGMA user_version = 1")
            connection.commit()
    with pytest.raises(WorkspaceError) as error:
        work(filled.root)
    assert f"restore the newest backup with 'ddiseg restore {file}'" in str(error.value)
    assert "is lost" in str(error.value)


def test_create__store_without_settings_and_catalogue(filled: Workspace) -> None:
    _lose(filled)
    (filled.root / "ddiseg.toml").unlink()
    with pytest.raises(WorkspaceError, match=r"whose ddiseg\.toml and catalogue are lost"):
        Workspace.create(filled.root)


def test_verify__empty_catalogue_over_a_full_store(
    filled: Workspace, empty_catalogue: Path
) -> None:
    _lose(filled)
    shutil.copy(empty_catalogue, _catalogue(filled))
    opened = Workspace.open(filled.root)
    [problem] = verify(opened).problems
    assert problem.part is Part.CATALOGUE
    assert "the store has 3 images and 1 masks" in problem.line


def test_names_sort_by_time(tmp_path: Path) -> None:
    names = [new_name(tmp_path, Reason.ROLLING).name for _ in range(3)]
    assert names == sorted(names)


@pytest.mark.postgres
def test_postgresql__commands_are_named(postgres_url: str, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", postgres_url)
    roll_backup(workspace)  # nothing to do
    said = r"pg_dump --format=custom .* pg_restore --clean"
    with pytest.raises(InputError, match=said):
        backup(workspace)
    workspace.catalogue.close()
    with pytest.raises(InputError, match=said):
        restore(workspace.root, tmp_path / "b")


@pytest.mark.postgres
def test_postgresql__emptied_database_is_lost(
    new_database: Callable[[str | None], str], tmp_path: Path
) -> None:
    Workspace.create(tmp_path / "w", new_database(None)).catalogue.close()
    settings = tmp_path / "w" / "ddiseg.toml"
    settings.write_text(f'catalogue = "{new_database(None)}"\n')
    for work in (Workspace.open, Workspace.create):
        with pytest.raises(
            WorkspaceError, match=r"is lost, its database is an empty database: .*pg_r"
        ):
            work(tmp_path / "w")


def test_restore__catalogue_of_another_workspace(filled: Workspace, tmp_path: Path) -> None:
    """Its photographs are not in the store: refused, unless it is forced, and told."""
    file = backup(filled)
    other = Workspace.create(tmp_path / "other")
    pixels = np.zeros((4, 4, 3), np.uint8)
    other.store.put(Kind.IMAGE, images.content_hash(pixels), images.encode_png(pixels))
    with pytest.raises(InputError, match=r"0 of 3 photographs .* another workspace"):
        restore(other.root, file)
    assert _names(other) == []
    assert not list((other.root / "backups").glob("*"))
    done = restore(other.root, file, force=True)
    assert (done.stored, done.expected, done.images) == (0, 3, 3)


def test_restore__store_is_lost_too(filled: Workspace) -> None:
    file = backup(filled)
    shutil.rmtree(filled.root / "store")
    done = restore(filled.root, file)
    assert (done.stored, done.expected) == (0, 3), "its own, as far as an empty store can tell"


def test_damaged_catalogue__newest_backup_is_named(filled: Workspace) -> None:
    file = backup(filled)
    catalogue = _catalogue(filled)
    filled.catalogue.close()
    for each in catalogue.parent.glob(f"{catalogue.name}-*"):
        each.unlink()
    catalogue.write_bytes(catalogue.read_bytes()[:20_000])
    with pytest.raises(WorkspaceError, match=f"malformed; .*ddiseg restore {file}"):
        Workspace.open(filled.root).catalogue.images.select()
