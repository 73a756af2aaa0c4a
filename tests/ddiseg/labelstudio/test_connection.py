"""The connection to a team's server: its faults, its token, and which server a workspace uses."""

from __future__ import annotations

import json
import socket
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

import pytest

from ddiseg.errors import InputError, ServerError, WorkspaceError
from ddiseg.labelstudio import connection
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.embedded import server
from ddiseg.labelstudio.embedded.accounts import generate_accounts, read_accounts
from ddiseg.labelstudio.embedded.process import Process
from ddiseg.labelstudio.folder import Folder
from tests.wording import Refusal

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJI.eyJ0b2tlbl90.WMeHlfow2xz"
VERSION, WHOAMI, REFRESH = "/api/version", "/api/current-user/whoami", "/api/token/refresh/"

Answer: TypeAlias = tuple[int, dict[str, str], bytes]


def as_json(content: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode()


class Scripted:
    """A server whose answers are written down by path; `requests` is what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {
            VERSION: as_json({"release": "1.23.2", "edition": "Community"}),
            WHOAMI: as_json({"id": 2, "email": "data-manager@example.org"}),
            REFRESH: as_json({"access": "short-lived"}),
        }
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        self.silent = Event()
        self.url = ""


@contextmanager
def serving() -> Iterator[Scripted]:
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            signed = self.headers.get("Authorization")
            script.requests.append((self.command, self.path, signed, body))
            script.silent.wait(0 if self.path in script.answers else 5)
            status, headers, content = script.answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        script.url = f"http://127.0.0.1:{listening.server_port}"
        try:
            yield script
        finally:
            script.silent.set()
            listening.shutdown()
            thread.join()


@pytest.fixture
def team() -> Iterator[Scripted]:
    """A team's Label Studio."""
    with serving() as script:
        yield script


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (connection.TOKEN_VARIABLE, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)


class Keyring(types.ModuleType):
    """A keyring that keeps passwords in a dict, and refuses where it is locked."""

    class Errors:
        class KeyringError(Exception):
            pass

    errors = Errors
    priority = 5

    def __init__(self) -> None:
        super().__init__("keyring")
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_keyring(self) -> Keyring:
        return self

    def get_password(self, service: str, name: str) -> str | None:
        self._open()
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, password: str) -> None:
        self._open()
        self.kept[service, name] = password

    def delete_password(self, service: str, name: str) -> None:
        self._open()
        del self.kept[service, name]

    def _open(self) -> None:
        if self.locked:
            raise self.errors.KeyringError("the collection is locked")


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    made = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", made)
    return made


def test_connect_team__is_checked_and_kept_without_its_token(
    tmp_path: Path, team: Scripted
) -> None:
    found = connection.connect_team(tmp_path, f" {team.url}/ ", f"{TOKEN}\n")
    assert found.connection == Connection(team.url, TOKEN, embedded=False, media=None)
    assert (found.version, found.user) == ("1.23.2", "data-manager@example.org")
    # What may be no Label Studio is asked for its version first, and shown no token.
    assert team.requests == [
        ("GET", VERSION, None, b""),
        ("GET", WHOAMI, f"Token {TOKEN}", b""),
    ]
    assert connection.team_url(tmp_path) == team.url
    kept = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.name for p in kept] == ["connection.json"]
    assert json.loads(kept[0].read_text()) == {"url": team.url}
    assert kept[0].stat().st_mode & 0o077 == 0


def test_connect_team__personal_access_token_is_exchanged(tmp_path: Path, team: Scripted) -> None:
    assert connection.connect_team(tmp_path, team.url, PERSONAL).connection.token == PERSONAL
    assert team.requests[1:] == [
        ("POST", REFRESH, None, json.dumps({"refresh": PERSONAL}).encode()),
        ("GET", WHOAMI, "Bearer short-lived", b""),
    ]


HTML = (200, {"Content-Type": "text/html"}, b"<!doctype html><title>Sign in</title>")
SSO = {"Location": "https://sso.example.org/login?token=x"}


@pytest.mark.parametrize("path", [VERSION, WHOAMI, REFRESH])
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (as_json({"detail": "no"}, 403), 403),
        (as_json({}, 429), 429),
        ((503, {}, b""), 503),
        ((418, {}, b""), 418),
        ((200, {}, b""), 200),
        ((302, SSO, b""), 302),
        ((301, {}, b""), 301),
        # What a proxy or a login page answers is not Label Studio's status.
        ((404, {}, b"<html>"), None),
        ((500, {}, b"<html>"), None),
        (HTML, None),
        (as_json(["1.23.2"]), None),
    ],
)
def test_connect_team__fault_of_the_server(
    tmp_path: Path, team: Scripted, path: str, answer: Answer, status: int | None
) -> None:
    team.answers[path] = answer
    with pytest.raises(ServerError) as error:
        connection.connect_team(tmp_path, team.url, PERSONAL)
    assert error.value.status == status
    assert str(error.value).startswith(team.url)
    assert "\n" not in str(error.value)
    assert PERSONAL not in str(error.value)
    assert ("sso.example.org" in str(error.value)) is (answer[1] is SSO)
    assert connection.team_url(tmp_path) is None


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (WHOAMI, as_json({"detail": "Token is invalid"}, 401)),
        (REFRESH, as_json({"detail": "Token is invalid"}, 401)),
        # A login before the server: no token was shown yet, so it is not the token's fault.
        (VERSION, (401, {"WWW-Authenticate": "Basic"}, b"")),
    ],
    ids=["whoami", "refresh", "login before the server"],
)
def test_connect_team__not_let_in(
    tmp_path: Path, team: Scripted, path: str, answer: Answer, refusal: Refusal
) -> None:
    team.answers[path] = answer
    with refusal(ServerError):
        connection.connect_team(tmp_path, team.url, PERSONAL)


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        (VERSION, {"release": "2.19.0"}, "is Label Studio 2.19.0, and this ddiseg works with 1.x"),
        (VERSION, {"release": "10.0"}, "is Label Studio 10.0,"),
        (VERSION, {"version": "1.0"}, "is no Label Studio, as it tells no version"),
        (VERSION, {"release": None}, "is no Label Studio"),
        (WHOAMI, {"username": "x"}, "answered without 'email'"),
        (REFRESH, {}, "answered without 'access'"),
    ],
)
def test_connect_team__answers_of_something_else(
    tmp_path: Path, team: Scripted, path: str, content: object, said: str
) -> None:
    team.answers[path] = as_json(content)
    with pytest.raises(ServerError) as error:
        connection.connect_team(tmp_path, team.url, PERSONAL)
    assert said in str(error.value)


@pytest.mark.parametrize("how", ["down", "silent", "https", "proxy"])
def test_connect_team__no_answer(
    tmp_path: Path, team: Scripted, monkeypatch: pytest.MonkeyPatch, how: str, refusal: Refusal
) -> None:
    url = team.url
    if how == "down":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    elif how == "silent":
        monkeypatch.setattr(connection, "TIMEOUT", 0.1)
        del team.answers[VERSION]
    elif how == "https":
        url = url.replace("http:", "https:")
    else:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        url = "http://label.example.org"
    with refusal(ServerError):
        connection.connect_team(tmp_path, url, TOKEN)


def test_connect_team__no_redirect_takes_the_token_elsewhere(
    tmp_path: Path, team: Scripted, refusal: Refusal
) -> None:
    with serving() as elsewhere:
        for path in (WHOAMI, REFRESH):
            team.answers[path] = (307, {"Location": elsewhere.url + path}, b"")
        for token in (TOKEN, PERSONAL):
            with refusal(ServerError):
                connection.connect_team(tmp_path, team.url, token)
        assert elsewhere.requests == []


def test_connect_team__a_failure_keeps_the_server_before(tmp_path: Path, team: Scripted) -> None:
    connection.connect_team(tmp_path, team.url, TOKEN)
    with serving() as other:
        other.answers[WHOAMI] = as_json({}, 401)
        with pytest.raises(ServerError):
            connection.connect_team(tmp_path, other.url, TOKEN)
    assert connection.team_url(tmp_path) == team.url


@pytest.mark.parametrize("token", ["", "  ", "abc def", "abc\r\nX-Header: 1", "\u0430bc", "a\0b"])
def test_connect_team__what_can_be_no_token(tmp_path: Path, team: Scripted, token: str) -> None:
    with pytest.raises(InputError) as error:
        connection.connect_team(tmp_path, team.url, token)
    assert "copy it once more" in str(error.value)
    assert not token.strip() or token.strip() not in str(error.value)
    assert team.requests == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://label.example.org", "https://label.example.org"),
        (" https://label.example.org/ \n", "https://label.example.org"),
        ("http://10.0.0.7:8080//", "http://10.0.0.7:8080"),
        ("https://example.org/label-studio/", "https://example.org/label-studio"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_checked_url__as_it_is_kept(given: str, kept: str) -> None:
    assert connection.checked_url(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        *("label.example.org", "localhost:8080", "ftp://label.example.org", "https://", ""),
        *("http://host:notaport", "http://host:99999", "http://[::1", "http://two words"),
        *("https://anna:secret@example.org", "https://example.org/?next=/"),
        *("https://example.org/#top", "https://example.org/projects/12/data"),
        *("https://example.org/ls/user/account", "https://api.example.org/api"),
    ],
)
def test_checked_url__refused(given: str, refusal: Refusal) -> None:
    with refusal(InputError) as error:
        connection.checked_url(given)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "openly"),
    [
        ("https://label.example.org", False),
        ("http://label.example.org", True),
        ("http://10.0.0.7:8080", True),
        ("http://localhost.example.org", True),
        ("http://localhost:8080", False),
        ("http://127.0.0.5", False),
        ("http://[::1]:8080", False),
    ],
)
def test_travels_openly(url: str, openly: bool) -> None:
    assert connection.travels_openly(url) is openly


def test_team_token__environment_then_keyring_then_asking(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://label.example.org"
    asked: list[str] = []

    def ask(server_url: str) -> str:
        asked.append(server_url)
        return "typed"

    assert connection.team_token(url, ask) == "typed"
    assert asked == [url]
    connection.keep_in_keyring(url, "kept")
    assert connection.team_token(url, ask) == "kept"
    assert connection.team_token(f"{url}:8443", ask) == "typed"  # a token of each server's own
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "exported\n")
    assert connection.team_token(url, ask) == "exported"
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "")
    keyring.locked = True
    assert connection.team_token(url, ask) == "typed"


@pytest.mark.parametrize("state", ["no keyring", "empty", "locked"])
def test_team_token__nowhere(state: str, request: pytest.FixtureRequest, refusal: Refusal) -> None:
    if state != "no keyring":
        request.getfixturevalue("keyring").locked = state == "locked"
    with refusal(WorkspaceError):
        connection.team_token("https://x.org")


def test_keyring__missing_or_refusing(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    assert connection.has_keyring()
    keyring.locked = True
    with refusal(WorkspaceError):
        connection.keep_in_keyring("https://x.org", TOKEN)
    monkeypatch.setattr(keyring, "priority", 0)  # what the package has where no backend works
    assert not connection.has_keyring()
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert not connection.has_keyring()
    with pytest.raises(WorkspaceError, match=r"pip install ddiseg\[keyring\]"):
        connection.keep_in_keyring("https://x.org", TOKEN)


def remember(root: Path, url: str) -> None:
    Folder(root).make()
    Folder(root).team.write_text(json.dumps({"url": url}))


def test_forget_team__and_its_token_in_the_keyring(tmp_path: Path, keyring: Keyring) -> None:
    url = "https://label.example.org"
    assert connection.forget_team(tmp_path) is None
    remember(tmp_path, url)
    keyring.kept = {("ddiseg", url): TOKEN, ("ddiseg", "https://other.org"): TOKEN}
    assert connection.forget_team(tmp_path) == url
    assert connection.team_url(tmp_path) is None
    assert list(keyring.kept) == [("ddiseg", "https://other.org")]


def test_forget_team__keyring_that_refuses(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    remember(tmp_path, "https://x.org")
    connection.keep_in_keyring("https://x.org", TOKEN)

    def refuse(*_args: str) -> None:
        raise keyring.errors.KeyringError("denied")

    monkeypatch.setattr(keyring, "delete_password", refuse)
    with refusal(WorkspaceError):
        connection.forget_team(tmp_path)
    assert connection.team_url(tmp_path) == "https://x.org"


@pytest.mark.parametrize("content", ["", "{}", '{"url": 5}', "[1]", '"https://x.org"'])
def test_team_url__damaged(tmp_path: Path, content: str, refusal: Refusal) -> None:
    Folder(tmp_path).make()
    Folder(tmp_path).team.write_text(content)
    with refusal(WorkspaceError):
        connection.team_url(tmp_path)


Embedded: TypeAlias = Callable[[bool], server.Running]


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embedded:
    """embedded(ready): as if the workspace tmp_path had a server of its own that runs."""

    def make(ready: bool) -> server.Running:
        Folder(tmp_path).make()
        generate_accounts(Folder(tmp_path))
        running = server.Running(Process(1, "x"), 8080, "2026-01-01", "1.23.2", ready=ready)
        monkeypatch.setattr(connection, "find_running", lambda _root: running)
        return running

    return make


def test_find__own_server(tmp_path: Path, embedded: Embedded) -> None:
    running = embedded(True)
    found = connection.find(tmp_path)
    assert (found.url, found.embedded) == (running.url, True)
    assert found.token == read_accounts(tmp_path)["admin"].token
    assert found.media == tmp_path / "labelstudio" / "media"
    assert found.server == "embedded"
    assert found.token not in repr(found)


def test_find__own_server_that_is_starting(
    tmp_path: Path, embedded: Embedded, refusal: Refusal
) -> None:
    embedded(False)
    with refusal(WorkspaceError):
        connection.find(tmp_path)


def test_find__none(tmp_path: Path, refusal: Refusal) -> None:
    with refusal(WorkspaceError):
        connection.find(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_find__teams_server_wins_over_ones_own(
    tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded(True)
    remember(tmp_path, "https://label.example.org")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    found = connection.find(tmp_path)
    assert found == Connection("https://label.example.org", TOKEN, embedded=False, media=None)
    assert found.server == "https://label.example.org"
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    assert connection.find(tmp_path, lambda _url: "typed").token == "typed"
    with pytest.raises(WorkspaceError, match=r"no token for"):
        connection.find(tmp_path)


def test_stored_token__file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.delenv(connection.TOKEN_VARIABLE, raising=False)
    monkeypatch.setenv(connection.TOKEN_FILE_VARIABLE, str(tmp_path / "token"))
    with refusal(WorkspaceError):
        connection.stored_token("https://label-studio.example.org")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert connection.stored_token("https://label-studio.example.org") == TOKEN
