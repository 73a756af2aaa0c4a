"""The embedded Label Studio of a workspace: start it, find it again, stop it.

It listens on this machine only, works without a network, and keeps all it has in the workspace's
folder `labelstudio/`. One command at a time starts or stops it; the others wait.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddiseg.errors import ServerError, WorkspaceError
from ddiseg.labelstudio.embedded.accounts import (
    Account,
    generate_accounts,
    put_into_database,
    read_accounts,
)
from ddiseg.labelstudio.embedded.environment import VERSION, ensure_environment
from ddiseg.labelstudio.embedded.process import Process
from ddiseg.labelstudio.embedded.settings import HOST, ensure_key, environment_variables
from ddiseg.labelstudio.folder import (
    Folder,
    Say,
    damaged,
    open_private,
    read_json,
    silent,
    write_json,
)
from ddiseg.outcomes import Stages, silent_stages

#: The first port that is tried where none is asked for.
FIRST_PORT = 8080
#: Seconds that a start may take; the first one makes the database, which slow machines take long for.
PATIENCE = 900.0


@dataclass(frozen=True)
class Running:
    """A Label Studio of this workspace whose process lives."""

    process: Process
    port: int  #: until it is ready: the one that it was told to take
    since: str  #: ISO 8601, UTC
    version: str
    ready: bool  #: it answered, and has its accounts
    new: bool = False  #: started by the call that returned this

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def up(
    root: Path, port: int | None = None, say: Say = silent, stages: Stages = silent_stages
) -> Running:
    """Start the server, or find it running; it answers and has its accounts when this returns.

    `port` must be free; without one, 8080 or the next free port above is taken. Raises
    WorkspaceError where the workspace uses a team's server or the port is taken, ServerError where
    the server does not come up. Then, and where a person stops the call, nothing that it started
    is left running.
    """
    folder = Folder(root)
    if folder.team.exists():
        raise WorkspaceError(
            f"{root} is connected to a team's Label Studio: 'ddiseg label connect --forget' first, "
            "to start one of its own"
        )
    with folder.locked(say):
        running = _recorded(folder)
        if running is not None and port not in (None, running.port):
            raise WorkspaceError(
                f"Label Studio runs on port {running.port} already: 'ddiseg label down' first, "
                f"to start it on port {port}"
            )
        if running is not None:
            return _make_ready(folder, running, port, say)
        running = _start(folder, port, say, stages)
        try:
            return replace(_make_ready(folder, running, port, say), new=True)
        except BaseException:
            say("stopping the Label Studio that was starting")
            _stop(folder, running)
            raise


def down(root: Path, say: Say = silent) -> bool:
    """Stop the server; False where none ran. A process that is not ours is never touched."""
    folder = Folder(root)
    if not folder.path.exists():
        return False
    with folder.locked(say):
        running = _recorded(folder)
        if running is not None:
            _stop(folder, running)
        folder.server.unlink(missing_ok=True)
    return running is not None


def find_running(root: Path) -> Running | None:
    """The server of a workspace, where it runs."""
    return _recorded(Folder(root))


def answers(running: Running) -> bool:
    return running.ready and _is_up(running.port)


def logs(root: Path, lines: int) -> list[str]:
    """The last lines of the server's log; raises WorkspaceError where there is none."""
    folder = Folder(root)
    if not folder.log.exists():
        raise WorkspaceError(f"{folder.log} is not there: 'ddiseg label up' starts Label Studio")
    return folder.last_lines(lines)


def _recorded(folder: Folder) -> Running | None:
    """The server of server.json, as long as that very process lives."""
    content = read_json(folder.server)
    if content is None:
        return None
    try:
        running = Running(**{**content, "process": Process(**content["process"])})
    except (KeyError, TypeError) as error:
        raise damaged(folder.server) from error
    return running if running.process.alive else None


def _record(folder: Folder, running: Running) -> None:
    content = asdict(running)
    del content["new"]  # it is about one call
    write_json(folder.server, content)


def _start(folder: Folder, port: int | None, say: Say, stages: Stages) -> Running:
    port = _choose_port(port)
    programs = ensure_environment(say, stages) / "bin"
    first = "" if any(folder.data.iterdir()) else ", the first time takes a minute"
    say(f"starting Label Studio on port {port}{first}")
    ensure_key(folder)
    # Not by its first line, which may hold where the environment lay once.
    program = [str(programs / "python"), str(programs / "label-studio")]
    options = ["start", "--no-browser", "--internal-host", HOST, "--port", str(port)]
    if folder.log.exists():
        os.replace(folder.log, folder.log.with_name(f"{folder.log.name}.1"))
    log = open_private(folder.log)
    try:
        process = Process.spawn(
            [*program, *options], environment_variables(folder), folder.data, log
        )
    finally:
        os.close(log)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    running = Running(process, port, since, VERSION, ready=False)
    try:
        _record(folder, running)
    except BaseException:
        process.stop()  # nobody would find it again
        raise
    return running


def _stop(folder: Folder, running: Running) -> None:
    running.process.stop()
    folder.server.unlink(missing_ok=True)


def _choose_port(asked: int | None) -> int:
    if asked is None:
        for port in range(FIRST_PORT, FIRST_PORT + 100):
            if _is_free(port):
                return port
        raise WorkspaceError(
            f"ports {FIRST_PORT} to {FIRST_PORT + 99} are all taken: give a free one with --port"
        )
    if not _is_free(asked):
        raise WorkspaceError(
            f"port {asked} is taken by another program: end that one, give another --port, "
            "or leave --port out to have a free one taken"
        )
    return asked


def _is_free(port: int) -> bool:
    with socket.socket() as probe:  # elsewhere than on Linux, one may bind beside another
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        # As the server does: a connection that was just closed there does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise WorkspaceError(
                f"port {port} is not for everyone's programs: give one from 1024 up"
            ) from error
        except OSError:
            return False
    return True


def _make_ready(folder: Folder, running: Running, asked: int | None, say: Say) -> Running:
    """Wait until the server answers, and see to it that it has its accounts."""
    if not running.ready:
        running = replace(running, port=_wait_for_port(folder, running, say))
        if asked not in (None, running.port):
            raise WorkspaceError(
                f"another program took port {asked} while Label Studio started: "
                "end that one, or give another --port"
            )
    generate_accounts(folder)
    accounts = read_accounts(folder.root).values()
    if not all(_knows(running, account) for account in accounts):
        say("making the accounts")
        put_into_database(folder, ensure_environment(say))
        if not all(_knows(running, account) for account in accounts):
            raise ServerError(
                f"Label Studio on port {running.port} does not take the accounts of {folder.secrets}: "
                f"'ddiseg label down', then 'ddiseg label up' again; {folder.last_words()}"
            )
    running = replace(running, ready=True)
    _record(folder, running)
    return running


def _wait_for_port(folder: Folder, running: Running, say: Say) -> int:
    """The port on which the server answers: where the one it was told is taken, it takes another."""
    began = time.monotonic()
    said = 0
    while True:
        port = _logged_port(folder)
        if port is not None and _is_up(port):
            return port
        if not running.process.alive:
            raise ServerError(f"Label Studio ended while it started: {folder.last_words()}")
        waited = time.monotonic() - began
        if waited > PATIENCE:
            raise ServerError(
                f"Label Studio does not answer after {PATIENCE:.0f} s: 'ddiseg label down', "
                f"then 'ddiseg label up' again; {folder.last_words()}"
            )
        if waited // 10 > said:
            said = int(waited // 10)
            say(f"waiting for Label Studio, {said * 10} s")
        time.sleep(0.2)


def _logged_port(folder: Folder) -> int | None:
    """The port that the server says it listens on; only it knows."""
    log = folder.log.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"Starting development server at http://{re.escape(HOST)}:(\d+)/", log)
    return int(found[1]) if found else None


def _is_up(port: int) -> bool:
    return _get(port, "/health") == {"status": "UP"}


def _knows(running: Running, account: Account) -> bool:
    who = _get(running.port, "/api/current-user/whoami", account.token)
    return who is not None and who.get("email") == account.email


def _get(port: int, path: str, token: str | None = None) -> dict[str, Any] | None:
    """The JSON object that the server answers with; None where it answers anything else.

    Neither a proxy nor a redirect is followed: a token must not leave this machine.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(
            "GET", path, headers={"Authorization": f"Token {token}"} if token else {}
        )
        response = connection.getresponse()
        content = json.loads(response.read()) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return content if isinstance(content, dict) else None
