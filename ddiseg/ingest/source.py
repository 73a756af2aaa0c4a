"""What an import reads: a folder of this machine, a prefix of an object store, or files of the web.

Photographs are read from their server one by one, when their turn comes. Whatever describes them
(tables, COCO files, masks) is copied into the workspace's cache first, where the readers of all
formats find it as they find any other file; the copies are removed once the import is over.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotation_protocol.files import atomic_write, locked
from ddiseg.errors import DdisegError, InputError, StoreError
from ddiseg.images import ENDINGS, pixels_in
from ddiseg.ingest import web
from ddiseg.ingest.folder import FileStatus, FoundFile, Listing, list_folder, path_fault, read_file
from ddiseg.object_stores import (
    Entry,
    ObjectStore,
    is_object_store,
    last_part,
    parent,
    without_secrets,
)
from ddiseg.outcomes import counted, is_storable, worker_threads
from ddiseg.workspace.store_url import OBJECT_STORES, protocol_of
from ddiseg.workspace.workspace import Workspace

_logger = logging.getLogger(__name__)

#: Files that are copied or read from a server at a time.
AT_A_TIME = 16

#: The largest file that is copied: 4 GB hold the COCO file of a million masks.
MAX_COPY = 4_000_000_000

#: Which files of a prefix are copied, by their paths.
Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class Source:
    """What an import reads."""

    path: Path  #: the folder or file; of a remote one, its copy with what describes the photographs
    url: str | None = None  #: without secrets; None on this machine
    files: Sequence[FoundFile] = ()  #: all that a remote one has, by path
    listed: bool = False  #: they were named one by one: their endings do not matter

    @classmethod
    def of(cls, place: Path | Source) -> Source:
        return place if isinstance(place, Source) else cls(place)

    def __str__(self) -> str:
        return self.url or str(self.path)

    def list(self, endings: tuple[str, ...]) -> Listing:
        """List the files; see `ddiseg.ingest.folder.list_folder`."""
        if self.url is None and not self.listed:
            return list_folder(self.path, endings)
        taken, others = [], []
        for file in self.files:
            if self.listed or file.fault or file.path.lower().endswith(endings):
                taken.append(file)
            else:
                others.append(file.path)
        return Listing(tuple(taken), tuple(others))


def everything(_path: str) -> bool:
    """Return True: masks and tables are copied whatever they are called."""
    return True


def photograph_facts(path: str) -> bool:
    """Return whether a file is needed to import the photographs next to it."""
    return path in ("ddi_metadata.csv", "ddiseg-release.json")


def coco_facts(path: str) -> bool:
    """Return whether a file may be the COCO file of a prefix."""
    return path.lower().endswith(".json")


@contextlib.contextmanager
def open_source(
    workspace: Workspace, place: Path | str, wanted: Wanted = everything, use: str = ""
) -> Iterator[Source]:
    """Provide what a path or URL names; errors name the URL, not the copy.

    Args:
        wanted: which files are copied before anything is read.
        use: what for, where one command reads the same URL for two purposes.

    Raises:
        InputError: there is nothing, or it can't be read.
        StoreError: its server can't be used; what was copied is kept for the next run.
    """
    if isinstance(place, Path):
        yield Source(place)
        return
    _check(place, workspace)
    web.forget_hosts()
    digest = hashlib.sha256(f"{use} {without_secrets(place)}".encode()).hexdigest()[:16]
    copies = workspace.root / "cache" / "sources" / digest
    copies.mkdir(parents=True, exist_ok=True)
    shown = without_secrets(place)
    with locked(copies / ".lock", f"process {{holder}} imports from {shown}"):
        with _named(copies, None, shown):
            source = (
                _open_web(place, copies)
                if web.is_web(place)
                else _open_store(place, copies, wanted)
            )
        try:
            with _named(copies, source, shown):
                yield source
        except BaseException:
            if sum(file.remote is None for file in source.files) <= 1:  # soon copied again
                shutil.rmtree(copies, ignore_errors=True)
            raise
        shutil.rmtree(copies, ignore_errors=True)


def photographs_beside(place: str) -> str | None:
    """Return the URL of the folder of a remote COCO file, None where it can't be known."""
    if not (is_object_store(place) and place.lower().endswith(".json")):
        return None
    above = parent(place)
    return parent(above) if last_part(above) == "annotations" else above


@dataclass(frozen=True)
class _StoreFile:
    """An object as the place of a file."""

    url: str  #: of the prefix
    key: str
    listed: FileStatus | None  #: None where only its address is known

    def read(self, max_bytes: int) -> tuple[bytes, FileStatus]:
        store = ObjectStore(self.url)
        status = self.status()
        if status is None:
            raise InputError("is not there: check the address")
        if status.size > max_bytes:
            raise InputError(
                f"is {status.size / 1e6:,.0f} MB large; {max_bytes / 1e6:,.0f} MB at most"
            )
        data = store.read(self.key)
        if len(data) != status.size:
            raise InputError(f"ended after {len(data):,} of {status.size:,} bytes: import it again")
        return data, status

    def status(self) -> FileStatus | None:
        if self.listed is not None:
            return self.listed
        entry = ObjectStore(self.url).facts(self.key)
        return None if entry is None else FileStatus(entry.size, entry.modified_ns)


@dataclass(frozen=True)
class _WebPlace:
    """A file of a web server as the place of a file."""

    url: str

    def read(self, max_bytes: int) -> tuple[bytes, FileStatus]:
        found = web.fetch(self.url, min(max_bytes, web.MAX_BYTES))
        return found.data, FileStatus(len(found.data), found.modified_ns)

    def status(self) -> FileStatus | None:
        found = web.modified(self.url)
        return None if found is None else FileStatus(*found)


def _check(place: str, workspace: Workspace) -> None:
    kind = protocol_of(place)
    if not (web.is_web(place) or kind in OBJECT_STORES):
        known = ", ".join(f"{each}://" for each in ("s3", "gs", "abfs", "https"))
        raise InputError(
            f"{without_secrets(place)}: nothing can be imported from {kind}://, only from {known}"
        )
    own, given = workspace.store.url.rstrip("/") + "/", place.rstrip("/") + "/"
    if own.startswith(given) or given.startswith(own):
        raise InputError(
            f"{without_secrets(place)} is the store of this workspace, whose photographs are imported "
            "already: give the place of the originals"
        )


def _open_store(url: str, copies: Path, wanted: Wanted) -> Source:
    store = ObjectStore(url)
    single = None if url.endswith("/") else store.facts()
    if single is not None:
        target = copies / last_part(url)
        _copy_all(store, [(single, target)])
        return Source(target, store.shown)
    folder = copies / last_part(parent(url)).replace(":", "") / last_part(url)
    folder.mkdir(parents=True, exist_ok=True)
    files, copied = [], []
    for entry in store.entries():
        if any(part.startswith(".") for part in entry.path.split("/")):
            continue
        fault = _fault(entry.path)
        place, status = folder / entry.path, FileStatus(entry.size, entry.modified_ns)
        remote = (
            None
            if wanted(entry.path) and fault is None
            else _StoreFile(store.url, entry.key, status)
        )
        if remote is None:
            copied.append((entry, place))
        files.append(FoundFile(entry.path, place, fault, remote))
    if not files:
        raise InputError(f"{store.shown} has no objects: check bucket and prefix")
    _copy_all(store, copied)
    files.sort(key=lambda file: file.path)
    return Source(folder, store.shown, tuple(files))


def _fault(path: str) -> str | None:
    if not is_storable(path):
        return "its name holds characters that can't be stored: rename the object"
    if any(part in ("", "..") for part in path.split("/")):
        return "its name has an empty part, or '..': rename the object"
    return path_fault(path)


def _copy_all(store: ObjectStore, wanted: Sequence[tuple[Entry, Path]]) -> None:
    """Copy objects, many at a time; those that an earlier run copied are left as they are."""
    for entry, _ in wanted:
        if entry.size > MAX_COPY:
            raise InputError(
                f"{store.shown_key(entry.key)} is {entry.size / 1e9:,.1f} GB large; {MAX_COPY / 1e9:.0f} GB at most"
            )
    if not wanted:
        return
    missing = [(entry, path) for entry, path in wanted if not _is_copy(entry, path)]
    needed = sum(entry.size for entry, _ in missing)
    if len(missing) > 1:
        _logger.info(
            f"copying {counted(len(missing), 'file')} ({needed / 1e6:,.1f} MB) from {store.shown}"
        )
    root = wanted[0][1].parent
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise InputError(
            f"{store.shown}: {needed / 1e9:,.1f} GB are copied to the workspace's cache for the time of the "
            f"import, and {free / 1e9:,.1f} GB are free there: free some space, or import parts of it"
        )
    with worker_threads(AT_A_TIME) as pool:
        for _ in pool.map(lambda each: _copy(store, *each), missing):
            pass


def _copy(store: ObjectStore, entry: Entry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        atomic_write(path, lambda part: store.download(entry.key, str(part)), durable=False)
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror}): free some space") from error
    if path.stat().st_size != entry.size:
        path.unlink()
        raise StoreError(
            f"{store.shown_key(entry.key)} did not come whole, or was changed meanwhile: run the same "
            "command again"
        )
    os.utime(path, ns=(entry.modified_ns, entry.modified_ns))


def _is_copy(entry: Entry, path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, entry.modified_ns)


def _open_web(url: str, copies: Path) -> Source:
    """Fetch one file; if it is a list, provide the files that it lists."""
    shown = without_secrets(url)
    try:
        found = web.fetch(url)
    except InputError as error:
        raise InputError(f"{shown} {error}") from error
    target = copies / (last_part(url) or "file")
    atomic_write(target, found.data, durable=False)
    return Source(target, shown)


@contextlib.contextmanager
def open_masks(workspace: Workspace, place: Path | str) -> Iterator[Path]:
    """Provide a folder or file of masks; those of a list of URLs are copied too. Raises as `open_source`."""
    with open_source(workspace, place, use="masks") as source:
        listed = source.url is not None and source.path.suffix.lower() in (".csv", ".tsv", ".txt")
        yield _copy_listed(open_list(source, place)) if listed else source.path


def _copy_listed(source: Source) -> Path:
    """Copy what a list names into a folder, many files at a time; what is there already is left."""

    def copy(file: FoundFile) -> None:
        target = source.path / file.path
        if file.fault is None and target.exists():
            return
        try:
            data, _ = read_file(file, MAX_COPY)
        except InputError as error:
            raise InputError(f"{file.path}: {error}; no mask was imported") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, data, durable=False)

    with worker_threads(AT_A_TIME) as pool:
        for _ in pool.map(copy, source.files):
            pass
    return source.path


def is_list(source: Source) -> bool:
    """Return whether a source is a single file: of a server, or one that may list URLs."""
    if source.url is not None:
        return source.path.is_file()
    return source.path.suffix.lower() in (".csv", ".tsv", ".txt") and source.path.is_file()


def open_list(source: Source, place: Path | str) -> Source:
    """Return the photographs of a file: it is one, or a list of URLs.

    Raises:
        InputError: it is neither.
    """
    file = source.path
    if file.suffix.lower() in ENDINGS or _is_picture(file):
        dataset = (
            last_part(parent(place)).partition(":")[0] if isinstance(place, str) else "photographs"
        )
        return Source(file.parent / dataset, source.url, (FoundFile(file.name, file),), listed=True)
    base = place if isinstance(place, str) and web.is_web(place) else None
    files = [
        FoundFile(
            each.path,
            file.parent / each.path.lstrip("/"),
            each.fault or _fault(each.path),
            _place_of(each.url),
        )
        for each in web.read_list(file, base)
    ]
    files.sort(key=lambda found: found.path)
    return Source(file.parent / file.stem, source.url, tuple(files), listed=True)


def _place_of(url: str) -> _WebPlace | _StoreFile:
    if not is_object_store(url):
        return _WebPlace(url)
    return _StoreFile(url, url.partition("://")[2], None)


def _is_picture(file: Path) -> bool:
    return pixels_in(file) > 0


@contextlib.contextmanager
def _named(copies: Path, source: Source | None, shown: str) -> Iterator[None]:
    """Let errors name the URL where they would name our copy."""
    try:
        yield
    except DdisegError as error:
        text = str(error)
        for place in (source.path if source else copies, copies):
            text = text.replace(str(place), shown)
        error.args = (text, *error.args[1:])
        raise
