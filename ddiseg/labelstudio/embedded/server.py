"""The embedded Label Studio of a workspace: start it, find it again, stop it.

It listens on this machine only, works without a network, and stores everything in the workspace's
folder `labelstudio/`. One command at a time starts or stops it; the others wait.
"""

from __future__ import annotations

import logging
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
from ddiseg.labelstudio.folder import Folder, create_log, damaged, read_json, write_json
from ddiseg.labelstudio.http import HttpClient
from ddiseg.outcomes import Stages, silent_stages

logger = logging.getLogger(__name__)

#: The first port that is tried if none is given.
FIRST_PORT = 8080
#: Seconds that a start may take; the first one creates the database, which is slow.
PATIENCE = 900.0
#: Seconds to wait for an answer of the server.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Running:
    """A running Label Studio of this workspace."""

    process: Process
    port: int  #: the requested port, until the server is ready
    since: str  #: ISO 8601, UTC
    version: str
    ready: bool  #: it has answered, and has its accounts
    new: bool = False  #: started by the call that returned this

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def up(root: Path, port: int | None = None, stages: Stages = silent_stages) -> Running:
    """Start the server, or find it running, and wait until it answers and has its accounts.

    An error or interrupt leaves nothing running that this call started.

    Args:
        port: must be free; by default 8080, or the next free port.

    Raises:
        WorkspaceError: the workspace uses a team's server, or the port is taken.
        ServerError: the server does not come up.
    """
    if os.name != "posix":
        raise WorkspaceError(
            "a Label Studio of its own runs on Linux and macOS only: connect the workspace with "
            "another machine's, 'ddiseg label connect URL'"
        )
    folder = Folder(root)
    if folder.team.exists():
        raise WorkspaceError(
            f"{root} is connected to a team's Label Studio: 'ddiseg label connect --forget' first, "
            "to start one of its own"
        )
    with folder.locked():
        running = _recorded(folder)
        if running is not None and port not in (None, running.port):
            raise WorkspaceError(
                f"Label Studio runs on port {running.port} already: 'ddiseg label down' first, "
                f"to start it on port {port}"
            )
        if running is not None:
            return _make_ready(folder, running, port)
        running = _start(folder, port, stages)
        try:
            return replace(_make_ready(folder, running, port), new=True)
        except BaseException:
            logger.info("stopping the Label Studio that was starting")
            _stop(folder, running)
            raise


def down(root: Path) -> bool:
    """Stop the server; returns whether one ran. Processes of others are never touched."""
    folder = Folder(root)
    if not folder.path.exists():
        return False
    with folder.locked():
        running = _recorded(folder)
        if running is not None:
            _stop(folder, running)
        folder.server.unlink(missing_ok=True)
    return running is not None


def find_running(root: Path) -> Running | None:
    """Return the server of a workspace; None if it does not run."""
    return _recorded(Folder(root))


def answers(running: Running) -> bool:
    """Whether the server is ready and answers."""
    return running.ready and _is_up(running.port)


def logs(root: Path, lines: int) -> list[str]:
    """Return the last lines of the server's log; raises WorkspaceError if there is none."""
    folder = Folder(root)
    if not folder.log.exists():
        raise WorkspaceError(f"{folder.log} is missing: 'ddiseg label up' starts Label Studio")
    return folder.last_lines(lines)


def _recorded(folder: Folder) -> Running | None:
    """Return the server of server.json, if exactly that process still runs."""
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
    del content["new"]  # a property of one call
    write_json(folder.server, content)


def _start(folder: Folder, port: int | None, stages: Stages) -> Running:
    port = _choose_port(port)
    programs = ensure_environment(stages) / "bin"
    first = "" if any(folder.data.iterdir()) else ", the first time takes a minute"
    logger.info(f"starting Label Studio on port {port}{first}")
    ensure_key(folder)
    # Not by its shebang line, which may hold an outdated path of the environment.
    program = [str(programs / "python"), str(programs / "label-studio")]
    options = ["start", "--no-browser", "--internal-host", HOST, "--port", str(port)]
    if folder.log.exists():
        os.replace(folder.log, folder.log.with_name(f"{folder.log.name}.1"))
    log = create_log(folder.log)
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
        process.stop()  # no later command would find it
        raise
    return running


def _stop(folder: Folder, running: Running) -> None:
    running.process.stop()
    folder.server.unlink(missing_ok=True)


def _choose_port(requested: int | None) -> int:
    if requested is None:
        for port in range(FIRST_PORT, FIRST_PORT + 100):
            if _is_free(port):
                return port
        raise WorkspaceError(
            f"ports {FIRST_PORT} to {FIRST_PORT + 99} are all taken: give a free one with --port"
        )
    if not _is_free(requested):
        raise WorkspaceError(
            f"port {requested} is taken by another program: end that one, give another --port, "
            "or leave --port out to have a free one taken"
        )
    return requested


def _is_free(port: int) -> bool:
    with socket.socket() as probe:  # except on Linux, two sockets may bind the same port
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        # As the server does, so that connections closed just now do not count.
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


def _make_ready(folder: Folder, running: Running, requested: int | None) -> Running:
    """Wait until the server answers, and create its accounts if they are missing."""
    if not running.ready:
        running = replace(running, port=_wait_for_port(folder, running))
        if requested not in (None, running.port):
            raise WorkspaceError(
                f"another program took port {requested} while Label Studio started: "
                "end that one, or give another --port"
            )
    generate_accounts(folder)
    accounts = read_accounts(folder.root).values()
    if not all(_knows(running, account) for account in accounts):
        logger.info("making the accounts")
        put_into_database(folder, ensure_environment())
        if not all(_knows(running, account) for account in accounts):
            raise ServerError(
                f"Label Studio on port {running.port} does not take the accounts of {folder.secrets}: "
                f"'ddiseg label down', then 'ddiseg label up' again; {folder.log_excerpt()}"
            )
    running = replace(running, ready=True)
    _record(folder, running)
    return running


def _wait_for_port(folder: Folder, running: Running) -> int:
    """Return the port on which the server answers: it chooses another if its port is taken."""
    began = time.monotonic()
    reported = 0
    while True:
        port = _logged_port(folder)
        if port is not None and _is_up(port):
            return port
        if not running.process.alive:
            raise ServerError(f"Label Studio ended while it started: {folder.log_excerpt()}")
        waited = time.monotonic() - began
        if waited > PATIENCE:
            raise ServerError(
                f"Label Studio does not answer after {PATIENCE:.0f} s: 'ddiseg label down', "
                f"then 'ddiseg label up' again; {folder.log_excerpt()}"
            )
        if waited // 10 > reported:
            reported = int(waited // 10)
            logger.info(f"waiting for Label Studio, {reported * 10} s")
        time.sleep(0.2)


def _logged_port(folder: Folder) -> int | None:
    """Return the port that the server's log says it listens on."""
    log = folder.log.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"Starting development server at http://{re.escape(HOST)}:(\d+)/", log)
    return int(found[1]) if found else None


def _is_up(port: int) -> bool:
    return _get(port, "/health") == {"status": "UP"}


def _knows(running: Running, account: Account) -> bool:
    who = _get(running.port, "/api/current-user/whoami", account.token)
    return who is not None and who.get("email") == account.email


def _get(port: int, path: str, token: str = "") -> dict[str, Any] | None:
    """Return the server's JSON object; None for any other answer, or none."""
    client = HttpClient(f"http://{HOST}:{port}", token, direct=True, timeout=TIMEOUT, retries=0)
    with client:
        try:
            return client.get(path, path, signed=bool(token))
        except ServerError:
            return None
