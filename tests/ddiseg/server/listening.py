"""A server in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def listening(
    code: str, root: Path, *options: str, argument: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of a workspace and its address, once it listens; it is killed in the end.

    Args:
        code: Python code that runs the command line.
        argument: what the code reads before the command line.
    """
    line = [sys.executable, "-c", code, *([] if argument is None else [argument])]
    line += ["--workspace", str(root), "--output", "json"]
    line += ["serve", "--port", "0", "--device", "cpu", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DDISEG_")}
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        try:
            said = ""
            while not said.endswith("}\n"):
                more = server.stdout.readline()
                assert more, server.stderr and server.stderr.read()
                said += more
            yield server, json.loads(said)["url"]
        finally:
            server.kill()
