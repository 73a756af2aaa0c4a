"""The embedded server: stopped and started again with all that is in it, offline, at a busy port."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from ddiseg.labelstudio.embedded.accounts import Account, read_accounts
from ddiseg.labelstudio.embedded.server import FIRST_PORT
from ddiseg.labelstudio.embedded.settings import HOST
from ddiseg.labelstudio.folder import Folder
from tests.live.blobs import blob_workspace
from tests.live.commands import Command
from tests.live.conftest import DDISEG
from tests.live.site import lasting_port, stroke

IMAGES = 4

#: Where no request gets anywhere: nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def root(tmp_path: Path, started_once: Path) -> Iterator[Path]:
    """A workspace of a few pictures, whose server is stopped in the end."""
    root = blob_workspace(tmp_path / "work", IMAGES, seed=8)
    shutil.copytree(started_once, Folder(root).path)
    yield root
    Command(root, "label", "down").done()


def test_up_down_up__all_is_as_it_was(root: Path, tell: Callable[[str], None]) -> None:
    port = lasting_port()
    up = _answer(root, "label", "up", "--port", port)
    assert _counts(root, "push") == {"added": IMAGES, "unchanged": 0}
    task = _tasks(root, up)[0]
    path = f"{up['url']}/api/tasks/{task['id']}/annotations/"
    answer = {"result": [stroke(np.random.default_rng(1))], "lead_time": 2.5}
    _ask(read_accounts(root)["annotator"], "POST", path, json=answer)
    before = _everything(root, up)
    if Path("/proc/self/environ").exists():
        assert _processes(root)

    assert _answer(root, "label", "down") == {"stopped": True}
    assert not _processes(root), "left by 'label down'"
    with pytest.raises(requests.ConnectionError):
        requests.get(up["url"], timeout=10)
    assert _answer(root, "label", "down") == {"stopped": False}

    began = time.monotonic()
    again = _answer(root, "label", "up", "--port", port)
    tell(f"second start: {time.monotonic() - began:.1f} s")
    assert again["new"]
    assert _everything(root, again) == before
    assert _counts(root, "push") == {"added": 0, "unchanged": IMAGES}
    assert _counts(root, "pull") == {"added": 1, "unchanged": 0}


def test_up__asked_port_is_taken(root: Path) -> None:
    with closing(_listener()) as taken:
        port = taken.getsockname()[1]
        done = Command(root, "label", "up", "--port", port).done()
    assert done.status == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: port {port} is taken by another program: ")
    assert not _processes(root)
    assert not Folder(root).server.exists()


def test_up__first_port_is_taken(root: Path) -> None:
    """The next free one is taken; whoever has the first one here, test or not, keeps it."""
    with closing(_listener(FIRST_PORT)):
        done = Command(root, "label", "up").done()
    port = done.answer["port"]
    assert FIRST_PORT < port < FIRST_PORT + 100
    assert done.answer["url"] == f"http://{HOST}:{port}"
    assert f"on port {port}" in done.stderr
    assert requests.get(f"{done.answer['url']}/health", timeout=10).json() == {"status": "UP"}


def test_up__no_network(root: Path, tmp_path: Path) -> None:
    """Nothing but this machine itself can be reached. At another port, the projects are known still."""
    loopback = ["ip", "link", "set", "lo", "up"]
    if not _can_be_cut_off(loopback):
        pytest.skip("this machine's network can't be taken away: no unshare, no ip, or no right to")
    port = lasting_port()
    _answer(root, "label", "up", "--port", port)
    assert _counts(root, "push") == {"added": IMAGES, "unchanged": 0}
    _answer(root, "label", "down")
    steps = [("label", "up", "--port", port + 1000), ("label", "push"), ("label", "down")]
    lines = [shlex.join(loopback), "! ip route get 192.0.2.1 2> /dev/null"]
    for step, words in enumerate(steps):
        command = [DDISEG, *words, "--workspace", root, "--output", "json"]
        lines.append(f"{shlex.join(map(str, command))} > {tmp_path / str(step)}")
    done = _cut_off(["sh", "-ec", "\n".join(lines)])
    assert done.returncode == 0, done.stderr
    up, pushed, down = (json.loads((tmp_path / str(step)).read_text()) for step in range(3))
    assert up["port"] == port + 1000
    assert pushed["counts"]["unchanged"] == IMAGES
    assert down == {"stopped": True}


def test_up__proxy_that_leads_nowhere(root: Path) -> None:
    """What is on this machine is not asked for through a proxy."""
    proxies = {f"{name}_PROXY": NOWHERE for name in ("HTTP", "HTTPS", "ALL")}
    proxies |= {name.lower(): value for name, value in proxies.items()} | {
        "NO_PROXY": "",
        "no_proxy": "",
    }
    for words in (("up", "--port", lasting_port()), ("push",), ("pull",)):
        assert Command(root, "label", *words, variables=proxies).done().answer


def _answer(root: Path, *words: object) -> dict[str, Any]:
    return Command(root, *words).done().answer


def _counts(root: Path, command: str) -> dict[str, int]:
    """How many images or annotations were new to a push or pull, and how many not; no others."""
    counts = _answer(root, "label", command)["counts"]
    assert counts["repaired"] == counts["refused"] == 0
    return {name: counts[name] for name in ("added", "unchanged")}


def _everything(root: Path, up: dict[str, Any]) -> list[Any]:
    """What people find on the server: their accounts, the projects, all tasks with all work."""
    accounts = read_accounts(root)
    for account in accounts.values():
        _log_in(up["url"], account)
    whoami = f"{up['url']}/api/current-user/whoami"
    return [
        Folder(root).secrets.read_bytes(),
        [_ask(account, "GET", whoami)["id"] for account in accounts.values()],
        up["projects"],
        _tasks(root, up),
    ]


def _tasks(root: Path, up: dict[str, Any]) -> list[dict[str, Any]]:
    """All tasks of the annotation project, with predictions and annotations."""
    project = up["projects"]["annotation"].split("/")[-2]
    path = f"{up['url']}/api/tasks?project={project}&page_size=100&fields=all"
    tasks: list[dict[str, Any]] = _ask(read_accounts(root)["admin"], "GET", path)["tasks"]
    return tasks


def _ask(account: Account, method: str, url: str, **more: Any) -> Any:
    token = {"Authorization": f"Token {account.token}"}
    response = requests.request(method, url, headers=token, timeout=60, **more)
    response.raise_for_status()
    return response.json()


def _log_in(url: str, account: Account) -> None:
    """With the password, as a person does."""
    with requests.Session() as browser:
        browser.get(f"{url}/user/login/", timeout=60)
        form = {"email": account.email, "password": account.password}
        token = {"X-CSRFToken": browser.cookies["csrftoken"]}
        answer = browser.post(
            f"{url}/user/login/", data=form, headers=token, timeout=60, allow_redirects=False
        )
        assert answer.status_code == 302, f"{account.email} is not let in"


def _processes(root: Path) -> list[str]:
    """The processes that know of a workspace's server data, by their command or environment."""
    data = os.fsencode(Folder(root).data)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            command = (process / "cmdline").read_bytes()
            if data in command or data in (process / "environ").read_bytes():
                found.append(f"{process.name}: {os.fsdecode(command)}")
    return found


def _listener(port: int = 0) -> socket.socket:
    """Another program at a port; at one that is taken already, nobody else is needed."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with suppress(OSError):
        listener.bind((HOST, port))
        listener.listen()
    return listener


def _can_be_cut_off(loopback: list[str]) -> bool:
    return shutil.which("unshare") is not None and _cut_off(loopback).returncode == 0


def _cut_off(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that sees no network but the loopback, and that one down."""
    apart = ["unshare", "--map-root-user", "--net", "--", *command]
    return subprocess.run(apart, check=False, capture_output=True, text=True, timeout=300)
