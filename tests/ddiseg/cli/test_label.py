"""`ddiseg label`: what its commands print, and that they never print a secret."""

from __future__ import annotations

import signal
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
import pytest

from ddiseg.errors import ServerError
from ddiseg.labelstudio import connection
from ddiseg.labelstudio.connection import Connection, Team
from ddiseg.labelstudio.embedded import server
from ddiseg.labelstudio.embedded.accounts import generate_accounts, read_accounts
from ddiseg.labelstudio.embedded.process import Process
from ddiseg.labelstudio.folder import Folder
from ddiseg.outcomes import Stages
from ddiseg.workspace.workspace import Workspace

Run = Callable[..., Any]
TEAM = "https://label.example.org"
TOKEN = "0123456789abcdef0123456789abcdef01234567"


class Purpose(StrEnum):
    ANNOTATION = "annotation"


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Connection]]:
    """The workspaces and connections that projects were made for; the rest has tests of its own."""
    calls: list[tuple[Path, Connection]] = []

    def ensure_projects(workspace: Workspace, to: Connection) -> dict[Purpose, Any]:
        calls.append((workspace.root, to))
        return {Purpose.ANNOTATION: types.SimpleNamespace(url=f"{to.url}/projects/1/data")}

    projects = types.ModuleType("projects")
    projects.ensure_projects = ensure_projects  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ddiseg.labelstudio.projects", projects)
    monkeypatch.delenv(connection.TOKEN_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)
    return calls


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> server.Running:
    """As if `label up` had started a server, which answers."""
    started = server.Running(Process(4711, "x"), 8080, "2026-01-01T10:00:00+00:00", "1.23.2", True)

    def up(root: Path, port: int | None, stages: Stages) -> server.Running:
        Folder(root).make()
        generate_accounts(Folder(root))
        server.logger.info("making the accounts")
        return replace(started, port=port or started.port, new=port is not None)

    monkeypatch.setattr(server, "up", up)
    for module in (server, connection):
        monkeypatch.setattr(module, "find_running", lambda _root: started)
    monkeypatch.setattr(server, "answers", lambda _running: True)
    return started


def secrets(root: Path) -> list[str]:
    return [text for a in read_accounts(root).values() for text in (a.password, a.token)]


def test_up__says_where_everything_is_and_no_secret(
    here: Run,
    workspace: Workspace,
    running: server.Running,
    prepared: list[tuple[Path, Connection]],
) -> None:
    result = here("label", "up")
    folder = Folder(workspace.root)
    assert result.out.splitlines() == [
        "Label Studio 1.23.2 runs since 2026-01-01T10:00:00+00:00: http://127.0.0.1:8080",
        "  project annotation: http://127.0.0.1:8080/projects/1/data",
        "  admin: admin@ddiseg.local",
        "  annotator: annotator@ddiseg.local",
        "  reviewer: reviewer@ddiseg.local",
        f"  passwords: {folder.secrets}",
        "  'ddiseg label down' stops it and keeps everything",
    ]
    assert result.err == "making the accounts\n"
    as_json = here("label", "up", "--port", "8085", "--output", "json")
    assert as_json.json == {
        "url": "http://127.0.0.1:8085",
        "port": 8085,
        "pid": 4711,
        "since": running.since,
        "version": "1.23.2",
        "new": True,
        "accounts": {role: f"{role}@ddiseg.local" for role in ("admin", "annotator", "reviewer")},
        "secrets": str(folder.secrets),
        "log": str(folder.log),
        "projects": {"annotation": "http://127.0.0.1:8080/projects/1/data"},
    }
    printed = result.out + result.err + as_json.out + as_json.err
    assert not [secret for secret in secrets(workspace.root) if secret in printed]
    assert [(root, to.embedded) for root, to in prepared] == [(workspace.root, True)] * 2


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("new", [True, False])
def test_up__stopped_while_it_makes_the_projects(
    here: Run,
    workspace: Workspace,
    running: server.Running,
    monkeypatch: pytest.MonkeyPatch,
    sign: signal.Signals,
    new: bool,
) -> None:
    """What this command started, and told nobody of, ends; one that was running stays."""
    stopped: list[Path] = []

    def ensure_projects(*_: Any) -> None:
        signal.raise_signal(sign)

    def down(root: Path) -> bool:
        stopped.append(root)
        return True

    monkeypatch.setattr(
        sys.modules["ddiseg.labelstudio.projects"], "ensure_projects", ensure_projects
    )
    monkeypatch.setattr(server, "down", down)
    port = ("--port", "8085") if new else ()
    before = signal.getsignal(sign)
    assert before in (signal.SIG_DFL, signal.default_int_handler), "another test has replaced it"
    result = here("label", "up", *port)
    assert (result.status, result.out) == (130, "")
    assert stopped == ([workspace.root] if new else [])
    assert ("stopping the Label Studio that was started" in result.err) is new
    assert signal.getsignal(sign) is before


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_up__port_that_is_none(here: Run, port: str) -> None:
    assert here("label", "up", "--port", port).status == 2


@pytest.mark.parametrize(
    "words",
    [("up",), ("down",), ("status",), ("logs",), ("connect", TEAM), ("connect", "--forget")],
)
def test_label__no_workspace(ddiseg: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = ddiseg("label", *words, "--workspace", tmp_path)
    assert result.status == 1
    assert "which is no workspace: give another --workspace" in result.err
    assert list(tmp_path.iterdir()) == []


def test_down__twice(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here("label", "down").out == "not running\n"
    monkeypatch.setattr(server, "down", lambda _root: True)
    assert here("label", "down").out == "stopped\n"
    as_json = here("label", "down", "--output", "json")
    assert as_json.json == {"stopped": True}


def test_status__not_running(here: Run, workspace: Workspace) -> None:
    result = here("label", "status")
    assert result.out.startswith("not running: 'ddiseg label up' starts it")
    assert here("label", "status", "--output", "json").json == {
        "team": None,
        "team_version": None,
        "team_fault": None,
        "projects": {},
        "running": False,
        "answers": False,
        "secrets": str(Folder(workspace.root).secrets),
        "log": str(Folder(workspace.root).log),
    }


def test_status__running(
    here: Run, running: server.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_line() -> str:
        result = here("label", "status")
        return str(result.out.splitlines()[0])

    since = "Label Studio 1.23.2 runs since 2026-01-01T10:00:00+00:00"
    assert first_line() == f"{since} and answers: http://127.0.0.1:8080"
    monkeypatch.setattr(server, "answers", lambda _running: False)
    assert first_line() == f"{since} and does not answer: http://127.0.0.1:8080"
    monkeypatch.setattr(server, "find_running", lambda _root: replace(running, ready=False))
    assert first_line() == f"{since} and is starting: http://127.0.0.1:8080"


def test_status__of_a_team(
    here: Run, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "server_version", lambda _url: "1.23.2")
    Folder(workspace.root).make()
    Folder(workspace.root).team.write_text(f'{{"url": "{TEAM}"}}')
    result = here("label", "status")
    assert result.out == f"connected to {TEAM}: Label Studio 1.23.2 answers\n"


def test_status__of_a_team_that_is_down(
    here: Run, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(url: str) -> str:
        raise ServerError(f"{url}: can't be reached")

    monkeypatch.setattr(connection, "server_version", refuses)
    Folder(workspace.root).make()
    Folder(workspace.root).team.write_text(f'{{"url": "{TEAM}"}}')
    result = here("label", "status")
    assert (result.status, result.out) == (
        0,
        f"connected to a team's server: {TEAM}: can't be reached\n",
    )


def test_logs__last_lines(here: Run, ddiseg: Run, workspace: Workspace) -> None:
    nothing = here("label", "logs")
    assert nothing.status == 1
    assert "'ddiseg label up' starts Label Studio" in nothing.err
    Folder(workspace.root).make()
    Folder(workspace.root).log.write_text("one\ntwo\nthree\n")
    assert here("label", "logs").out == "one\ntwo\nthree\n"
    args = ("label", "logs", "--lines", "2", "--workspace", workspace.root)
    assert ddiseg(*args).out == "two\nthree\n"
    assert ddiseg(*args, "--output", "json").json == {"lines": ["two", "three"]}


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """As if TEAM were a server that knows every token; (URL, token) of each connection made."""
    made: list[tuple[str, str]] = []

    def connect_team(root: Path, url: str, token: str) -> Team:
        made.append((url, token))
        Folder(root).make()
        Folder(root).team.write_text(f'{{"url": "{url}"}}')
        return Team(Connection(url, token, False, None), "1.20.0", "data-manager@example.org")

    monkeypatch.setattr(connection, "connect_team", connect_team)
    return made


def test_connect__token_of_the_environment(
    here: Run,
    team: list[tuple[str, str]],
    prepared: list[tuple[Path, Connection]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    result = here("label", "connect", f"{TEAM}/")
    assert result.out.splitlines() == [
        f"connected to {TEAM}: Label Studio 1.20.0, as data-manager@example.org",
        f"  project annotation: {TEAM}/projects/1/data",
    ]
    assert result.err == ""
    assert team == [(TEAM, TOKEN)]
    assert [(to.url, to.token) for _, to in prepared] == [(TEAM, TOKEN)]
    as_json = here("label", "connect", TEAM, "--output", "json")
    assert TOKEN not in as_json.out
    assert as_json.json["user"] == "data-manager@example.org"


def test_connect__warns_of_an_open_line_before_the_token_is_sent(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)

    def refuse(*_args: object) -> Team:
        raise ServerError("no answer")

    monkeypatch.setattr(connection, "connect_team", refuse)
    result = here("label", "connect", "http://10.0.0.7:8080")
    assert result.status == 1
    assert result.err.startswith("Warning: to http://10.0.0.7:8080 the token and the images travel")
    assert result.err.endswith("Error: no answer\n")


def test_connect__no_token_and_nobody_to_ask(here: Run, team: list[tuple[str, str]]) -> None:
    result = here("label", "connect", TEAM)
    assert result.status == 1
    assert "put it into the environment variable LABEL_STUDIO_API_KEY" in result.err
    assert team == []


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """terminal("y"): a person who types TOKEN where it is hidden and "y" where it is seen."""

    def sit_down(answer: str) -> list[str]:
        prompts: list[str] = []

        def type_in(text: str) -> Callable[[str], str]:
            def typed(prompt: str = "") -> str:
                prompts.append(prompt)
                return text

            return typed

        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(click.termui, "hidden_prompt_func", type_in(TOKEN))
        monkeypatch.setattr(click.termui, "visible_prompt_func", type_in(answer))
        return prompts

    return sit_down


@pytest.mark.parametrize(("answer", "kept"), [("y", [(TEAM, TOKEN)]), ("n", [])])
def test_connect__asked_for_the_token_and_offered_to_keep_it(
    here: Run,
    team: list[tuple[str, str]],
    terminal: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    kept: list[tuple[str, str]],
) -> None:
    in_keyring: list[tuple[str, str]] = []
    monkeypatch.setattr(connection, "has_keyring", lambda: True)
    monkeypatch.setattr(connection, "keep_in_keyring", lambda *pair: in_keyring.append(pair))
    terminal(answer)
    result = here("label", "connect", TEAM)
    assert result.status == 0
    assert team == [(TEAM, TOKEN)]
    assert in_keyring == kept
    assert TOKEN not in result.out + result.err


def test_connect__asked_without_a_keyring(
    here: Run, team: list[tuple[str, str]], terminal: Callable[[str], list[str]]
) -> None:
    terminal("")
    result = here("label", "connect", TEAM)
    assert result.status == 0
    assert "put the token into LABEL_STUDIO_API_KEY or install ddiseg[keyring]" in result.err


@pytest.mark.parametrize("words", [(), (TEAM, "--forget")])
def test_connect__url_or_forget(here: Run, words: tuple[str, ...]) -> None:
    result = here("label", "connect", *words)
    assert result.status == 2
    assert "give the URL of a server, or --forget alone" in result.err


def test_connect__address_that_is_none(here: Run, terminal: Callable[[str], list[str]]) -> None:
    prompts = terminal("")
    result = here("label", "connect", "label.example.org")
    assert result.status == 1
    assert "is no address of a server" in result.err
    assert prompts == []  # a person is not asked for a token that has nowhere to go


def test_connect__forget(ddiseg: Run, workspace: Workspace) -> None:
    forget = ("label", "connect", "--forget", "--workspace", workspace.root)
    assert ddiseg(*forget).out == "was not connected\n"
    Folder(workspace.root).make()
    Folder(workspace.root).team.write_text(f'{{"url": "{TEAM}"}}')
    assert ddiseg(*forget).out == f"no longer connected to {TEAM}\n"
    assert ddiseg(*forget, "--output", "json").json == {"forgotten": None}


def test_label__imports_nothing_heavy() -> None:
    code = "import sys, ddiseg.cli.label; print([m for m in ('requests', 'ddiseg.labelstudio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
