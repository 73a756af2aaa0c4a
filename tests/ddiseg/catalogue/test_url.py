"""URLs of databases, and what of them is shown."""

from __future__ import annotations

import sys

import pytest

from ddiseg.catalogue.url import has_password, parse_url, shown, without_password
from ddiseg.errors import WorkspaceError


@pytest.mark.parametrize(
    "scheme", ["postgresql://", "postgres://", "postgresql+psycopg://", " postgresql://"]
)
def test_parse_url__served_by_psycopg_3(scheme: str) -> None:
    assert parse_url(f"{scheme}anna@host/name").drivername == "postgresql+psycopg"


def test_parse_url__only_psycopg_2_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ddiseg.catalogue.url.find_spec", lambda name: None if name == "psycopg" else sys
    )
    assert parse_url("postgresql://host/name").drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("postgresql+psycopg://anna@host:5432/db", "postgresql+psycopg://anna@host:5432/db"),
        ("postgresql+psycopg://anna:hush@host/db", "postgresql+psycopg://anna:***@host/db"),
        ("postgresql+psycopg://anna:hu/sh@host/db", "postgresql+psycopg://anna:***@host/db"),
        (
            "postgresql+psycopg://host/db?password=hush&sslmode=require&sslpassword=hush",
            "postgresql+psycopg://host/db?sslmode=require",
        ),
        ("postgresql+psycopg:///?service=clinic", "postgresql+psycopg:///?service=clinic"),
        ("sqlite:////a/b.sqlite", "sqlite:////a/b.sqlite"),
    ],
)
def test_shown__no_secret(given: str, public: str) -> None:
    url = parse_url(given)
    assert shown(url) == public
    assert has_password(url) == ("hush" in given or "hu/sh" in given)
    assert not has_password(without_password(url))
    assert without_password(url).host == url.host


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://anna:hu@sh@host/db",
        "postgresql://anna:hush@host:port/db",
        "anna:hush@host",
        "host=db password=hush",
    ],
)
def test_parse_url__a_bad_one_is_not_repeated(given: str) -> None:
    with pytest.raises(WorkspaceError, match="not shown") as caught:
        parse_url(given)
    assert "sh@" not in str(caught.value)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None, "nor by a traceback"
