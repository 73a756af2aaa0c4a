"""Webhooks at 50 requests a second for 20 s: goal 99 % of them answered within 100 ms.

The server is a process of its own, `ddiseg serve`, over an empty workspace with one project. Requests
leave at their appointed time whether or not earlier ones are answered, each on a connection of its
own, as Label Studio sends them. Its worker is at work all the while: each webhook asks for a pull,
which fails, as there is no Label Studio. The peer is GET /health of the same server, asked likewise,
which does nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

from ddiseg.catalogue import Purpose
from ddiseg.labelstudio.connection import EMBEDDED
from ddiseg.server.auth import ensure_credentials
from ddiseg.workspace.workspace import Workspace

RATE, SECONDS, PROJECT = 50, 20, 7

#: A submitted annotation's payload is about this large.
PADDING = 20_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        workspace = Workspace.create(root)
        project = workspace.catalogue.tasks.project(EMBEDDED, Purpose.ANNOTATION)
        workspace.catalogue.tasks.set_remote_id(project.id, PROJECT)
        workspace.catalogue.close()
        with _server(root) as url:
            secret = {"X-Ddiseg-Secret": ensure_credentials(root).webhook_secret}
            body = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}}
            text = json.dumps({**body, "annotation": {"result": "x" * PADDING}})
            ours = _paced(
                lambda: requests.post(f"{url}/webhook", data=text, headers=secret, timeout=10)
            )
            peer = _paced(lambda: requests.get(f"{url}/health", timeout=10))
    for name, found in (("POST /webhook", ours), ("GET /health ", peer)):
        print(
            f"{name}  p50 {_percentile(found, 50):.1f} ms, p99 {_percentile(found, 99):.1f} ms, "
            f"longest {1000 * max(found):.1f} ms"
        )
    print(
        f"webhook p99 is {_percentile(ours, 99) / _percentile(peer, 99):.2f} x that of /health "
        f"({RATE} requests/s for {SECONDS} s each, {len(text):,} bytes a webhook)"
    )


def _paced(request: Callable[[], requests.Response]) -> list[float]:
    """Seconds of each of RATE * SECONDS requests, from its appointed time to its answer."""
    begin = time.perf_counter() + 0.5

    def at(number: int) -> float:
        appointed = begin + number / RATE
        time.sleep(max(0.0, appointed - time.perf_counter()))
        request().raise_for_status()
        return time.perf_counter() - appointed

    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(at, range(RATE * SECONDS)))


def _percentile(seconds: list[float], percent: int) -> float:
    """Milliseconds."""
    return 1000 * statistics.quantiles(seconds, n=100)[percent - 1]


@contextmanager
def _server(root: Path) -> Iterator[str]:
    """The address of a server that is started here and stopped in the end."""
    run = "from ddiseg.cli.main import main; main()"
    line = [sys.executable, "-c", run, "--workspace", str(root), "--output", "json"]
    line += ["serve", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            said = b""
            while not said.endswith(b"}\n"):
                said += process.stdout.readline()
            url: str = json.loads(said)["url"]
            while not _answers(url):
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).ok
    except requests.ConnectionError:
        return False
