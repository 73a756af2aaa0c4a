from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from ddiseg.errors import InputError, WorkspaceError
from ddiseg.server.auth import VARIABLES, Credentials, credentials_file, ensure_credentials
from tests.wording import Refusal

KNOWN = Credentials("ddiseg", "pass:word", "secret")


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    "header", [_basic("ddiseg:pass:word"), "Bearer pass:word", "bearer pass:word "]
)
def test_allow__the_right_ones(header: str) -> None:
    assert KNOWN.allow(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Bearer",
        "Bearer ",
        _basic("ddiseg:wrong"),
        _basic("other:pass:word"),
        _basic("ddiseg"),
        _basic("ddisegpass:word"),
        "Basic !!!!",
        "Basic \u00e4",
        "Bearer \u00e4",
        "Digest pass:word",
        "pass:word",
    ],
)
def test_allow__not_the_wrong_ones(header: str | None) -> None:
    assert not KNOWN.allow(header)


def test_knows__the_webhook_s_secret_only() -> None:
    assert KNOWN.allow_webhook("secret")
    assert not any(
        KNOWN.allow_webhook(given) for given in (None, "", "Secret", "pass:word", "\udc80")
    )


def test_ensure_credentials__made_once_and_private(tmp_path: Path) -> None:
    first = ensure_credentials(tmp_path)
    path = credentials_file(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_credentials(tmp_path) == first
    assert len(first.password) >= 32
    assert first.password != first.webhook_secret
    assert first.password not in repr(first)
    assert first.webhook_secret not in repr(first)


def test_ensure_credentials__environment_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ensure_credentials(tmp_path)
    monkeypatch.setenv("DDISEG_SERVER_PASSWORD", "mine")
    found = ensure_credentials(tmp_path)
    assert (found.password, found.webhook_secret) == ("mine", kept.webhook_secret)
    assert "mine" not in credentials_file(tmp_path).read_text()


def test_ensure_credentials__variable_set_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setenv("DDISEG_WEBHOOK_SECRET", " ")
    with refusal(InputError):
        ensure_credentials(tmp_path)


@pytest.mark.parametrize(
    "secret", ["a/b", "YQ==", "a+b", "a b", "a?b", "a%2Fb", "\u00e4", "ab\n", "..", "."]
)
def test_ensure_credentials__webhook_secret_that_no_address_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str, refusal: Refusal
) -> None:
    monkeypatch.setenv("DDISEG_WEBHOOK_SECRET", secret)
    with refusal(InputError) as refused:
        ensure_credentials(tmp_path)
    assert secret not in str(refused.value).split(":")[0]
    monkeypatch.setenv("DDISEG_WEBHOOK_SECRET", "aZ0-_.~")
    assert ensure_credentials(tmp_path).webhook_secret == "aZ0-_.~"


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"user": "a", "password": ""})])
def test_ensure_credentials__damaged_file(tmp_path: Path, content: str) -> None:
    ensure_credentials(tmp_path)
    credentials_file(tmp_path).write_text(content)
    with pytest.raises(WorkspaceError, match="is damaged"):
        ensure_credentials(tmp_path)
