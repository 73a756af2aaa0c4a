"""`ddiseg catalogue copy`, and what the other commands say of a catalogue that is being copied or was moved."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.marks import Mark, UnfinishedCopyError, store_version
from ddiseg.catalogue.transfer import transfer
from ddiseg.locate import SETTINGS
from ddiseg.workspace.backup import backup
from ddiseg.workspace.workspace import Workspace
from tests.postgres import binaries

Run = Callable[..., Any]


@pytest.fixture
def closed(filled: Workspace) -> Workspace:
    """Three photographs in a workspace that no program has open."""
    filled.catalogue.close()
    return filled


def _without_digest(text: str) -> str:
    """Return text without a hash that depends on the times in the rows."""
    return re.sub(r"SHA-256 \w+", "SHA-256 <digest>", text)


def test_copy__to_a_file_and_again(
    ddiseg: Run, closed: Workspace, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    target = tmp_path / "copy.sqlite"
    first = ddiseg("catalogue", "copy", closed.root, target)
    assert first.status == 0
    assert _without_digest(first.out) == wording
    again = ddiseg("catalogue", "copy", closed.root, target)
    assert _without_digest(again.out) == wording
    data = ddiseg("--output", "json", "catalogue", "copy", closed.root, target).json
    assert (data["outcome"], data["total"]) == ("unchanged", sum(data["rows"].values()))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert ddiseg("--workspace", closed.root, "status").status == 0


@pytest.mark.postgres
def test_copy__switch_to_postgresql_and_back(
    ddiseg: Run,
    closed: Workspace,
    emptied_url: str,
    monkeypatch: pytest.MonkeyPatch,
    wording: SnapshotAssertion,
) -> None:
    settings = closed.root / SETTINGS
    settings.write_text(f"# mine\n{settings.read_text()}\n[study]\ncontrol = 20\n")
    monkeypatch.setenv("CLINIC_DATABASE", emptied_url)
    there = ddiseg("catalogue", "copy", closed.root, "env:CLINIC_DATABASE", "--switch")
    assert there.status == 0, there.err
    assert there.out.startswith(f"18 rows of {closed.root}/catalogue.sqlite copied to postgresql")
    assert settings.read_text() == wording
    assert "3 images" in ddiseg("--workspace", closed.root, "status").out
    again = ddiseg("catalogue", "copy", closed.root / "catalogue.sqlite", "env:CLINIC_DATABASE")
    assert again.status == 0, again.err  # the move is known
    moved = Workspace.open(closed.root)
    moved.catalogue.images.skip(3, "blurry", None, "anna")
    event = moved.catalogue.events.last("move-catalogue")
    moved.catalogue.close()
    assert event is not None
    assert "env:CLINIC_DATABASE" in event.detail["new"]
    old = closed.root / "catalogue.sqlite"
    old.rename(closed.root / "old.sqlite")
    back = ddiseg("catalogue", "copy", closed.root, old, "--switch")
    assert back.status == 0, back.err
    assert 'catalogue = ""' in settings.read_text()
    home = Workspace.open(closed.root)
    assert home.catalogue.images.find("3.png").state == "skipped"
    home.catalogue.close()


@pytest.mark.parametrize(
    "words",
    [
        ("{tmp}/none.sqlite", "{tmp}/copy.sqlite"),
        ("{tmp}", "{tmp}/copy.sqlite"),
        ("{w}", "{tmp}"),
        ("{w}", "{w}"),
        ("{w}", "{tmp}/none/copy.sqlite"),
        ("{w}", "mysql://x/y"),
        ("{w}/catalogue.sqlite", "{tmp}/copy.sqlite", "--switch"),
        ("{w}", "postgresql://anna:secret@host/x"),
        ("{w}", "env:NOT_SET_ANYWHERE"),
    ],
)
def test_copy__refused(
    ddiseg: Run,
    closed: Workspace,
    tmp_path: Path,
    words: tuple[str, ...],
    wording: SnapshotAssertion,
) -> None:
    before = (closed.root / SETTINGS).read_text()
    places = [word.format(tmp=tmp_path, w=closed.root) for word in words]
    result = ddiseg("catalogue", "copy", *places)
    assert result.status == 1
    assert result.err.splitlines()[-1] == wording
    assert "secret" not in result.err
    assert not list(tmp_path.glob("*copy*"))
    assert (closed.root / SETTINGS).read_text() == before
    assert ddiseg("--workspace", closed.root, "status").status == 0


COMMANDS = [
    ("init", "{w}"),
    ("status",),
    ("show", "1.png"),
    ("import", "{tmp}"),
    ("skip", "1.png", "--reason", "blurry"),
    ("verify",),
    ("backup",),
    ("restore", "{tmp}/backup.sqlite"),
    ("report", "--to", "{tmp}/report.html"),
    ("config", "show"),
    ("datasets", "list"),
    ("batch", "list"),
    ("models", "list"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_unfinished_copy__each_command_says_what_to_do(
    ddiseg: Run, filled: Workspace, tmp_path: Path, command: tuple[str, ...]
) -> None:
    backup(filled, tmp_path / "backup.sqlite")
    with filled.catalogue._database.write() as session:
        store_version(session, Mark.copying("0011", "0a1b2c3d4e5f"))
    filled.catalogue.close()
    with pytest.raises(UnfinishedCopyError) as error:
        Workspace.open(filled.root)
    words = [word.format(tmp=tmp_path, w=filled.root) for word in command]
    result = ddiseg("--workspace", filled.root, *words)
    assert (result.status, result.out, result.err) == (1, "", f"Error: {error.value}\n")


def test_moved__restored_from_the_file_it_was_moved_from(
    ddiseg: Run, closed: Workspace, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    """The way back where the new database is lost."""
    ddiseg("catalogue", "copy", closed.root, tmp_path / "copy.sqlite", "--switch")
    settings, old = closed.root / SETTINGS, closed.root / "catalogue.sqlite"
    assert str(tmp_path / "copy.sqlite") in settings.read_text()
    settings.write_text("")
    assert ddiseg("--workspace", closed.root, "status").err == wording
    os.replace(old, tmp_path / "old.sqlite")
    assert ddiseg("--workspace", closed.root, "restore", tmp_path / "old.sqlite").status == 0
    assert "3 images" in ddiseg("--workspace", closed.root, "status").out


@pytest.fixture
def on_postgres(closed: Workspace, emptied_url: str) -> Workspace:
    """The three photographs, in a catalogue on PostgreSQL."""
    source, target = Database(f"sqlite:///{closed.root}/catalogue.sqlite"), Database(emptied_url)
    transfer(source, target)
    for database in (source, target):
        database.engine.dispose()
    (closed.root / SETTINGS).write_text(f'catalogue = "{emptied_url}"\n')
    return closed


@pytest.mark.postgres
def test_verify__on_postgresql(ddiseg: Run, on_postgres: Workspace) -> None:
    result = ddiseg("--workspace", on_postgres.root, "verify")
    assert result.status == 0, result.err


@pytest.mark.postgres
def test_backup__the_printed_commands_bring_the_catalogue_back(
    ddiseg: Run, on_postgres: Workspace, emptied_url: str, tmp_path: Path
) -> None:
    said = ddiseg("--workspace", on_postgres.root, "backup")
    assert said.status == 1
    dump, restore = (
        shlex.split(each.replace("FILE", str(tmp_path / "dump")))
        for each in re.findall(r"(pg_dump .*?|pg_restore .*?)(?= and restore|$)", said.err.strip())
    )
    path = {**os.environ, "PATH": f"{binaries()}:{os.environ['PATH']}"}

    def digest() -> str:
        source = Database(emptied_url)
        copy = Database(f"sqlite:///{tmp_path / 'compared.sqlite'}")
        copied = transfer(source, copy)
        source.engine.dispose()
        copy.engine.dispose()
        (tmp_path / "compared.sqlite").unlink()
        return copied.digest

    before = digest()
    subprocess.run(dump, check=True, env=path)
    with closing(psycopg.connect(emptied_url.replace("+psycopg", ""))) as connection, connection:
        connection.execute("DROP TABLE acceptances; DELETE FROM events")
    subprocess.run(restore, check=True, env=path)
    assert digest() == before
    Catalogue.open(emptied_url).close()
