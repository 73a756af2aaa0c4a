"""The folder `labelstudio/` of a workspace, readable by its owner only."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from annotation_protocol.files import PRIVATE, atomic_write, locked
from ddiseg.errors import WorkspaceError

logger = logging.getLogger(__name__)


class Folder:
    """Paths of the embedded server's files, and of the connection to a team's server."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.path = self.root / "labelstudio"
        self.data = self.path / "data"  #: Label Studio's database and uploads
        self.media = self.path / "media"  #: document root: images are served from below it
        self.secrets = self.path / "secrets.json"  #: accounts with passwords and tokens
        self.server = self.path / "server.json"  #: the running process
        self.log = self.path / "server.log"
        self.team = self.path / "connection.json"  #: the connected team's server, if any

    def make(self) -> None:
        """Create missing folders; only the owner may enter them."""
        for folder in (self.path, self.data, self.media):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def locked(self) -> AbstractContextManager[int]:
        """Let one command at a time start or stop the server; the others wait."""
        self.make()
        busy = "another ddiseg command starts or stops Label Studio here: waiting for it"
        return locked(self.path / "lock", busy, wait=logger.info)

    def last_lines(self, lines: int) -> list[str]:
        """Return the end of the server's log."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]

    def log_excerpt(self) -> str:
        """Return the end of the server's log for a one-line error, and the path of the log."""
        lines = [line.strip() for line in self.last_lines(10) if line.strip()][-3:]
        return f"{' | '.join(lines) or 'it said nothing'} (all of it: {self.log})"


def create_log(path: Path) -> int:
    """Create a new log file, private from its first byte; returns a descriptor to append to."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, PRIVATE)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a private JSON file atomically."""
    atomic_write(path, json.dumps(content, indent=1), mode=PRIVATE)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if there is no file.

    Raises:
        WorkspaceError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(path) from error
    if not isinstance(content, dict):
        raise damaged(path)
    return content


def damaged(path: Path) -> WorkspaceError:
    """Return the error of a file with unexpected content."""
    return WorkspaceError(
        f"{path} is damaged: delete it, then run the same command again to have it written anew"
    )
