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

from ddiseg.labelstudio.accounts import Account, read_accounts
from ddiseg.labelstudio.folder import Folder
from ddiseg.labelstudio.server import FIRST_PORT, HOST
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
    task = _tasks(root, up["url"])[0]
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
    """All there is is this machine itself; at another port than before, the catalogue knows it still."""
    apart = ["unshare", "--map-root-user", "--net", "--"]
    loopback = ["ip", "link", "set", "lo", "up"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*apart, *loopback], check=False).returncode
    ):
        pytest.skip("this machine can't take the network away: no unshare, no ip, or no right to")
    _answer(root, "label", "up", "--port", lasting_port())
    assert _counts(root, "push") == {"added": IMAGES, "unchanged": 0}
    _answer(root, "label", "down")
    steps = [
        ("label", "up", "--port", lasting_port(below=28180)),
        ("label", "push"),
        ("label", "down"),
    ]
    lines = [shlex.join(loopback), "! ip route get 192.0.2.1"]
    for step, words in enumerate(steps):
        command = [DDISEG, *words, "--workspace", root, "--output", "json"]
        lines.append(f"{shlex.join(map(str, command))} > {tmp_path / str(step)}")
    done = subprocess.run(
        [*apart, "sh", "-ec", "\n".join(lines)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    up, pushed, down = (json.loads((tmp_path / str(step)).read_text()) for step in range(3))
    assert up["new"]
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
