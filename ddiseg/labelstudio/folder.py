"""The folder `labelstudio/` of a workspace: what lies where, readable by its owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ddiseg.errors import WorkspaceError

#: Called with a line for the person who waits.
Say = Callable[[str], None]


def silent(_line: str) -> None:
    """A Say that says nothing."""


class Folder:
    """Where the embedded server and the connection to a team's server keep their files."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.path = self.root / "labelstudio"
        self.data = self.path / "data"  #: Label Studio's database and uploads
        self.media = self.path / "media"  #: document root: images are served from below it
        self.secrets = self.path / "secrets.json"  #: accounts with passwords and tokens
        self.server = self.path / "server.json"  #: the process that runs
        self.log = self.path / "server.log"
        self.team = self.path / "connection.json"  #: the team's server, if one was connected

    def make(self) -> None:
        """Make the folders that are missing; nobody else may enter them."""
        for folder in (self.path, self.data, self.media):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)

    @contextlib.contextmanager
    def locked(self, say: Say) -> Iterator[None]:
        """Let one command at a time start or stop the server; the others wait."""
        self.make()
        busy = "another ddiseg command starts or stops Label Studio here: waiting for it"
        with exclusive(self.path / "lock", busy, say):
            yield

    def last_lines(self, lines: int) -> list[str]:
        """The end of the server's log."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]

    def last_words(self) -> str:
        """The end of the server's log for an error's one line, and where the rest is."""
        words = [line.strip() for line in self.last_lines(10) if line.strip()][-3:]
        return f"{' | '.join(words) or 'it said nothing'} (all of it: {self.log})"


@contextlib.contextmanager
def exclusive(path: Path, busy: str, say: Say) -> Iterator[IO[bytes]]:
    """Hold a lock on `path`, which ends with the process; says `busy` where another one holds it.

    Yields the open file: a child process that inherits it holds the lock as long as it lives.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def open_private(path: Path) -> int:
    """A descriptor of a new file, to append to, that nobody else can read from its first byte on."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a private file; it is there whole, or not at all."""
    part = path.with_name(f".{path.name}.part")
    with open(open_private(part), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """What write_json wrote; None where there is nothing.

    Raises WorkspaceError where the file is damaged.
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
    """The error of a file that holds something else than it should."""
    return WorkspaceError(
        f"{path} is damaged: delete it, then run the same command again to have it written anew"
    )
