"""The files of an imported folder: listed in a fixed order and read with checks."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ddiseg.errors import InputError
from ddiseg.locate import SETTINGS

#: A larger file is not read into memory, in bytes: 2 GB holds any photograph that is taken.
MAX_BYTES = 2_000_000_000


#: The longest path and name that the catalogue holds.
MAX_PATH, MAX_NAME = 1000, 500


class FileStatus(NamedTuple):
    """What tells whether a file was changed."""

    size: int  #: bytes
    modified_ns: int


class RemotePlace(Protocol):
    """A file of a server, see `ddiseg.ingest.source`."""

    def read(self, max_bytes: int) -> tuple[bytes, FileStatus]: ...

    def status(self) -> FileStatus | None: ...


@dataclass(frozen=True)
class FoundFile:
    """A file: its path in messages and the place to read it from."""

    path: str  #: relative to the folder, with /
    place: Path  #: where it lies; of a file that a server has, where a copy would lie
    fault: str | None = None  #: why it can't be taken, found without opening it
    remote: RemotePlace | None = None  #: where to read it from, if not from this machine

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        return self.name.rsplit(".", 1)[0]

    @property
    def path_stem(self) -> str:
        return without_ending(self.path)

    def status(self) -> FileStatus | None:
        """Return what tells whether it was changed, None where its server does not say.

        Raises:
            InputError: it can't be read.
        """
        if self.remote is not None:
            return self.remote.status()
        try:
            status = os.stat(self.place)
        except OSError as error:
            raise InputError(f"can't be read ({error.strerror})") from error
        return FileStatus(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Listing:
    """The files of a folder, by path."""

    files: tuple[FoundFile, ...]  #: those with one of the endings asked for
    others: tuple[str, ...]  #: paths of the rest


def list_folder(folder: Path, endings: tuple[str, ...]) -> Listing:
    """List all files under `folder`; hidden ones are left out, endings compared without case.

    Links are followed to files inside the folder only; what leads out of it carries a fault.

    Raises:
        InputError: `folder` is none, or can't be read.
    """
    if not folder.is_dir():
        if not folder.exists():
            raise InputError(f"{folder.absolute()} does not exist")
        raise InputError(f"{folder} is a file: give the folder that it lies in")
    root = folder.resolve()
    files, others = [], []
    for entry, fault in _walk(root):
        path = _path_text(os.path.relpath(entry, root))
        if fault is None and not entry.name.lower().endswith(endings):
            others.append(path)
        else:
            unreadable = "\ufffd" in path and fault is None
            fault = "its name is not UTF-8: rename the file" if unreadable else fault
            fault = fault or path_fault(path)
            files.append(FoundFile(path, Path(entry.path), fault))
    files.sort(key=lambda f: f.path)
    return Listing(tuple(files), tuple(sorted(others)))


def path_fault(path: str) -> str | None:
    """Return why the catalogue can't hold a path, None where it can."""
    if len(path) <= MAX_PATH and len(path.rpartition("/")[2]) <= MAX_NAME:
        return None
    return f"its path has over {MAX_PATH} characters, or its name over {MAX_NAME}: rename it"


def other_kinds(paths: Iterable[str]) -> list[str]:
    """Return the note on files that are left alone, by their endings; none where there are none."""
    endings = Counter(Path(path).suffix.lower() or "no ending" for path in paths)
    if not endings:
        return []
    kinds = ", ".join(f"{n} {ending}" for ending, n in endings.most_common())
    return [f"files of other kinds left alone: {kinds}"]


def read_file(file: FoundFile, max_bytes: int = MAX_BYTES) -> tuple[bytes, FileStatus]:
    """Return the bytes of a file and its status at that moment; raise InputError where it can't."""
    if file.fault:
        raise InputError(file.fault)
    if file.remote is not None:
        return file.remote.read(max_bytes)
    try:
        with open(file.place, "rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_size > max_bytes:
                raise InputError(
                    f"is {status.st_size / 1e6:,.0f} MB large; {max_bytes / 1e6:,.0f} MB at most"
                )
            return opened.read(), FileStatus(status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror or error})") from error


def without_ending(path: str) -> str:
    """Return a path without the ending of its last part."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.rsplit(".", 1)[0]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises InputError where it can't be read or is not JSON."""
    if not path.exists():
        raise InputError(f"{path.absolute()} does not exist")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the JSON file in it")
    try:
        data, _ = read_file(FoundFile(path.name, path))
        return json.loads(data)
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except (ValueError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{path} is not JSON ({first}): export it again, and copy it whole"
        ) from error


def _walk(root: Path) -> Iterator[tuple[os.DirEntry[str], str | None]]:
    """Yield the files under `root`, and whatever else has a fault; folders are left out."""
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as scan:
                entries = [e for e in scan if not e.name.startswith(".")]
        except OSError as error:
            raise InputError(
                f"{folder} can't be read ({error.strerror}): make it readable, or give another folder"
            ) from error
        is_workspace = any(e.name == SETTINGS for e in entries)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                # A workspace inside the folder: what its store holds was imported already.
                if not (is_workspace and entry.name == "store"):
                    waiting.append(entry.path)
            else:
                yield from _with_fault(entry, root)


def _with_fault(
    entry: os.DirEntry[str], root: Path
) -> Iterator[tuple[os.DirEntry[str], str | None]]:
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(root):
            yield (
                entry,
                f"is a link that leads out of the folder, to {target}: copy the file itself",
            )
            return
        if target.is_dir():  # its files are found at their own place
            return
    try:
        regular = stat.S_ISREG(entry.stat().st_mode)
    except OSError as error:
        yield entry, f"can't be read ({error.strerror})"
        return
    yield entry, None if regular else "is no regular file"


def _path_text(path: str) -> str:
    """Return a path with / and without bytes that are no UTF-8: it can be printed and stored."""
    return os.fsencode(path).decode("utf-8", "replace").replace(os.sep, "/")
