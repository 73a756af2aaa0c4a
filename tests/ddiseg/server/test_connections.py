"""Clients that send half a request neither shut others out nor fill the log."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from ddiseg.server.auth import credentials_file
from ddiseg.server.repeated import RepeatedMessages
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.server.conftest import until
from tests.ddiseg.server.listening import listening

_SERVER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import ddiseg.server.connections as c
c.HEAD_SECONDS, c.BODY_SECONDS = float(sys.argv.pop(1)), 1.0
from ddiseg.cli.main import main
main()
"""


@contextmanager
def _server(root: Path, head_seconds: float) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A server with 128 descriptors, its host and port."""
    seconds = str(head_seconds)
    with listening(_SERVER, root, "--interval", "0", argument=seconds) as (server, address):
        url = urlsplit(address)
        until(lambda: _answers(url.port or 0))
        yield server, str(url.hostname), url.port or 0


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    except requests.RequestException:
        return False


def _error_output(server: subprocess.Popen[str]) -> str:
    server.send_signal(signal.SIGTERM)
    return server.communicate(timeout=60)[1]


@pytest.mark.process
@pytest.mark.parametrize(
    "half",
    [
        b"GET /health HTTP/1.1\r\nHost: a\r\n",
        b"",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{",
    ],
    ids=["half a head", "nothing", "half a body without credentials"],
)
def test_server__half_sent_requests_shut_nobody_out(workspace: Workspace, half: bytes) -> None:
    with _server(workspace.root, 60) as (server, host, port), ExitStack() as opened:
        for _ in range(200):
            client = opened.enter_context(socket.create_connection((host, port), timeout=10))
            client.sendall(half)
        for _ in range(3):
            started = time.monotonic()
            assert requests.get(f"http://{host}:{port}/health", timeout=10).status_code == 200
            assert time.monotonic() - started < 1
        log = _error_output(server)
    assert len(log) < 2000, log[:2000]


@pytest.mark.process
def test_server__a_slow_head_ends_with_408(workspace: Workspace) -> None:
    with _server(workspace.root, 0.5) as (server, host, port):
        with socket.create_connection((host, port), timeout=20) as client:
            client.sendall(b"GET /health HTTP/1.1\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection((host, port), timeout=20) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            client.sendall(b"GET /health HTTP/1.1\r\n")  # half of a second one
            answer = client.recv(1000)
            assert not answer or b" 408 " in answer or b"UP" in answer
        assert _error_output(server) == ""


@pytest.mark.process
@pytest.mark.parametrize("leaves", [True, False], ids=["client leaves", "client is silent"])
def test_server__an_upload_that_is_not_finished_is_one_line(
    workspace: Workspace, leaves: bool
) -> None:
    with _server(workspace.root, 10) as (server, host, port):
        known = json.loads(credentials_file(workspace.root).read_text())
        head = requests.Request(
            "POST", f"http://{host}:{port}/predict", auth=(known["user"], known["password"])
        ).prepare()
        text = f"POST /predict HTTP/1.1\r\nHost: a\r\nAuthorization: {head.headers['Authorization']}\r\n"
        with socket.create_connection((host, port), timeout=20) as client:
            client.sendall(f"{text}Content-Length: 1000\r\n\r\n{{".encode())
            if not leaves:
                assert client.recv(100) == b""
        time.sleep(0.5)
        log = _error_output(server)
    assert log == "/predict: the client left before it had sent all of the body\n"


@pytest.mark.parametrize("start", [0.0, 0.3, 12345.6, 9e6 + 0.1])
def test_repeated_messages__once_with_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, start: float
) -> None:
    now = [start]
    monkeypatch.setattr("ddiseg.server.repeated.time.monotonic", lambda: now[0])
    logger = logging.getLogger("repeated")
    repeated = RepeatedMessages(seconds=0.2)
    logger.addFilter(repeated)
    for number in range(50):
        logger.warning("descriptor %d is bad", number)
    logger.warning("another")
    now[0] += 0.25
    logger.warning("descriptor 3 is bad")
    logger.removeFilter(repeated)
    first, other, again = (record.getMessage() for record in caplog.records)
    assert (first, other) == ("descriptor 0 is bad", "another")
    assert again.startswith("descriptor 3 is bad (49 more in ")
