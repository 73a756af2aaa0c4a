"""The place of the catalogue: never with a password in ddiseg.toml, nor in what is printed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ddiseg.catalogue.tables import Event
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.locate import SETTINGS
from ddiseg.workspace.backup import backup
from ddiseg.workspace.catalogue_location import CatalogueLocation, to_store
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.cli.conftest import ddiseg
from tests.postgres import PASSWORD
from tests.wording import Refusal

__all__ = ["ddiseg"]  # a fixture


def test_to_store__means_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert to_store("") == ""
    assert to_store("env:PLACE") == "env:PLACE"
    assert to_store("file:url") == to_store(f"file://{tmp_path}/url") == f"file:{tmp_path}/url"
    assert to_store("sqlite:///rows.sqlite") == f"sqlite:///{tmp_path}/rows.sqlite"
    assert to_store("postgresql://anna@host/db") == "postgresql+psycopg://anna@host/db"


@pytest.mark.parametrize(
    "given", ["postgresql://anna:hush@host/db", "postgresql://host/db?password=hush"]
)
def test_to_store__password_is_refused(given: str, refusal: Refusal, tmp_path: Path) -> None:
    with refusal(WorkspaceError) as caught:
        Workspace.create(tmp_path / "w", given)
    assert "hush" not in str(caught.value)
    assert not (tmp_path / "w").exists()


@pytest.fixture
def urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Lines of ddiseg.toml that lead to a URL with a password."""
    url = "postgresql+psycopg://anna:hush@host/db"
    monkeypatch.setenv("PLACE", f"{url}\n")
    (tmp_path / "url").write_text(f"{url}\n")
    (tmp_path / "url").chmod(0o600)
    return {"env": "env:PLACE", "file": f"file:{tmp_path / 'url'}", "relative": "file:url"}


@pytest.mark.parametrize("how", ["env", "file", "relative"])
def test_read__url_from_elsewhere(
    tmp_path: Path, urls: dict[str, str], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    location = CatalogueLocation.read(tmp_path, urls[how])
    assert location.url.password == "hush"
    assert location.file is None
    assert str(location) == f"postgresql+psycopg://anna@host/db (from {urls[how]})"
    assert not caplog.records


def test_read__sqlite_file_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", f"sqlite:///{tmp_path / 'x.sqlite'}")
    assert CatalogueLocation.read(tmp_path, "env:PLACE").file == tmp_path / "x.sqlite"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "env:PLACE"),
        ("", "file:url"),
        ("one\ntwo", "file:url"),
        ("nonsense", "file:url"),
        (None, "file:missing"),
    ],
)
def test_read__no_url_there(
    tmp_path: Path,
    content: str | None,
    line: str,
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PLACE", raising=False)
    if content is not None:
        (tmp_path / "url").write_text(content)
        (tmp_path / "url").chmod(0o600)
    with refusal(WorkspaceError):
        CatalogueLocation.read(tmp_path, line)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_read__a_file_that_others_can_read_is_told(
    tmp_path: Path, urls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "url").chmod(0o640)
    CatalogueLocation.read(tmp_path, urls["file"])
    assert "chmod 600" in caplog.text


def test_read__password_in_an_older_file_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = "postgresql+psycopg://anna:hush@host/db"
    assert CatalogueLocation.read(tmp_path, old).url.password == "hush"
    assert "holds the catalogue's password" in caplog.text
    assert "hush" not in caplog.text


@pytest.fixture
def with_password(guarded_url: str) -> str:
    return guarded_url.replace("@", f":{PASSWORD}@", 1)


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["variable", "option", "file", "pgpass", "service"])
def test_init__each_way_of_giving_the_password(
    how: str,
    guarded_url: str,
    with_password: str,
    tmp_path: Path,
    ddiseg: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret, place = tmp_path / "secret", "env:DDISEG_CATALOGUE_URL"
    host, name = guarded_url.partition("host=")[2], guarded_url.partition("@/")[2].partition("?")[0]
    options = ["--catalogue", place]
    if how in ("variable", "option"):
        monkeypatch.setenv("DDISEG_CATALOGUE_URL", with_password)
        options = options if how == "option" else []
    elif how == "file":
        secret.write_text(with_password)
        options[1] = f"file:{secret}"
    elif how == "pgpass":
        secret.write_text(f"*:*:{name}:guarded:{PASSWORD}\n")
        monkeypatch.setenv("PGPASSFILE", str(secret))
        options[1] = guarded_url
    else:
        secret.write_text(
            f"[clinic]\nhost={host}\ndbname={name}\nuser=guarded\npassword={PASSWORD}\n"
        )
        monkeypatch.setenv("PGSERVICEFILE", str(secret))
        options[1] = "postgresql:///?service=clinic"
    if secret.exists():
        secret.chmod(0o600)
    said = []
    for command in (
        ["init", tmp_path / "w", *options],
        ["--workspace", tmp_path / "w", "init", *options],
        ["--workspace", tmp_path / "w", "config", "set", "study.control", "20"],
        ["--workspace", tmp_path / "w", "status"],
        ["--workspace", tmp_path / "w", "config", "show"],
    ):
        for output in ("text", "json"):
            result = ddiseg(*command, "--output", output)
            assert result.status == 0, result.err
            assert "postgresql+psycopg://" in result.out or "set" in command
            said.append(result.out + result.err)
    workspace = Workspace.open(tmp_path / "w")
    with pytest.raises(InputError, match="pg_dump") as caught:
        backup(workspace)
    said += [str(caught.value), caplog.text, (tmp_path / "w" / SETTINGS).read_text()]
    with workspace.catalogue._database.read() as session:
        events = [repr(event.detail) for event in session.scalars(select(Event))]
    said += events
    workspace.catalogue.close()
    assert not [text for text in said if PASSWORD in text]
    assert events
    assert f"catalogue: {workspace.location}" in said[0]


@pytest.mark.postgres
def test_init__wrong_or_no_password(
    guarded_url: str,
    with_password: str,
    tmp_path: Path,
    ddiseg: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLACE", with_password.replace(PASSWORD, "wr0ng-word"))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    for place in ("env:PLACE", guarded_url):
        result = ddiseg("init", tmp_path / "w", "--catalogue", place)
        assert result.status == 1
        assert "~/.pgpass" in result.err
        assert result.err.count("\n") == 1
        assert "wr0ng-word" not in result.err
    assert not (tmp_path / "w" / SETTINGS).exists()
