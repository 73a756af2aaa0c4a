"""Content-addressed storage of photographs, masks and models: in a folder, an object store, a file server.

A file is named by the hash of its content, so nothing is ever overwritten and the same content is
stored once. Files are written whole or not at all. Workspaces may share a store.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import cached_property
from itertools import islice
from pathlib import Path

from annotation_protocol.files import atomic_write, flush_folder, how_to_write
from ddiseg.errors import MissingFileError, OccupiedError, WorkspaceError
from ddiseg.workspace.remote_files import RemoteFiles
from ddiseg.workspace.store_cache import StoreCache
from ddiseg.workspace.store_url import FOLDERS, protocol_of, refuse_unusable

#: Hashes of one page of a listing.
_PAGE = 1000


class Kind(StrEnum):
    """Kinds of files, each in a folder of its own."""

    IMAGE = "images"  #: PNG, named by the hash of its oriented RGB pixels
    MASK = "masks"  #: palette PNG, named by the hash of its pixels
    MODEL = "models"  #: safetensors, named by the hash of the file

    @property
    def ending(self) -> str:
        return "safetensors" if self is Kind.MODEL else "png"


class Store:
    """Files by kind and hash under `url` (a folder, or an fsspec URL such as s3://bucket/prefix)."""

    def __init__(self, url: str, cache: Callable[[], StoreCache | None] | None = None) -> None:
        """Prepare the store; a remote one is not asked yet.

        Args:
            cache: Makes the cache of a remote store's files on this machine, when it is first needed.

        Raises:
            WorkspaceError: No store can be there, its URL holds a secret, or a package is missing.
        """
        refuse_unusable(url)
        self.url = url
        self.local = protocol_of(url) in FOLDERS
        self._remote = None if self.local else RemoteFiles(url)
        self._root = self._remote.root if self._remote else _folder(url)
        self._make_cache = None if self.local else cache
        self._named: set[Path] = set()  # folders whose own names this process has flushed
        self._listed: dict[Kind, set[str]] = {}  # hashes that were there, of kinds that were listed

    @cached_property
    def cache(self) -> StoreCache | None:
        """The cache of a remote store's files; None for a folder, or where it is switched off."""
        return self._make_cache() if self._make_cache else None

    def path(self, kind: Kind, digest: str) -> str:
        return f"{self._root}/{_name(kind, digest)}"

    def exists(self, kind: Kind, digest: str) -> bool:
        """Return whether a file exists; an empty one, which a power cut may leave, does not count.

        Raises:
            OccupiedError: A folder has its name.
            StoreError: The store can't be asked.
        """
        path = self.path(kind, digest)
        try:
            if self._remote:
                return bool(self._remote.size(path))
            self._refuse_folder(path)
            return bool(os.path.getsize(path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def list_once(self, kind: Kind) -> None:
        """List the files of a kind, so that `fetch` asks a remote store for none that was not there.

        It pays off before many new files are stored. What another process adds is stored once more.
        """
        if self._remote:
            self._listed[kind] = self.digests(kind)

    def put(self, kind: Kind, digest: str, data: bytes, *, replace: bool = False) -> bool:
        """Store `data`; returns False if it is stored already.

        In a folder, the content is on the disk then, and its name once `flush_names` returned. A remote
        store has the file, whole, when this returns.

        Args:
            replace: Write over a file that was found damaged.

        Raises:
            OccupiedError: A folder has its name.
            WorkspaceError: The disk is full or can't be written.
            StoreError: The remote store can't be written.
        """
        if not replace and self.exists(kind, digest):
            return False
        path = self.path(kind, digest)
        if self._remote:
            self._remote.write(path, data)
            if self.cache:
                self.cache.remove(_name(kind, digest))  # it may be what was found damaged
            if kind in self._listed:
                self._listed[kind].add(digest)
            return True
        self._refuse_folder(path)
        with self._errors_explained(path):
            file = Path(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            # The names are flushed together, by `flush_names`: alone, each takes as long as a file.
            atomic_write(file, data, sync_folder=False)
        return True

    def flush_names(self, kind: Kind, digests: Iterable[str]) -> None:
        """Flush the names of stored files to the disk, each folder once, so that they outlive a power cut.

        Files that another process has stored are included. An object store needs nothing.

        Raises:
            WorkspaceError: the disk failed.
        """
        if not self.local:
            return
        folders = {Path(self.path(kind, digest)).parent for digest in digests}
        above = {folder.parent for folder in folders - self._named}  # these hold new folders' names
        for folder in sorted(folders | above | {each.parent for each in above}):
            with self._errors_explained(str(folder)):
                flush_folder(folder)
        self._named |= folders

    def get(self, kind: Kind, digest: str, *, fresh: bool = False) -> bytes:
        """Return the bytes of a file as they are: `ddiseg.workspace.stored_files` checks them.

        Args:
            fresh: Read what the store itself has. A copy in the cache is replaced, no new one is made: what
                reads all files once must not drive out those that are read often.

        Raises:
            OccupiedError: A folder has its name.
            MissingFileError: It is not there.
            WorkspaceError: It can't be read.
        """
        path, name = self.path(kind, digest), _name(kind, digest)
        if self.cache and not fresh and (cached := self.cache.get(name)):
            return cached
        content = self._read(path)
        if self.cache and (not fresh or self.cache.has(name)):
            self.cache.put(name, content)
        return content

    def fetch(self, kind: Kind, digest: str) -> bytes | None:
        """Return the bytes that the store itself has, None where it has no such file.

        Raises:
            OccupiedError, WorkspaceError: As by `get`.
        """
        if kind in self._listed and digest not in self._listed[kind]:
            return None
        try:
            return self.get(kind, digest, fresh=True)
        except MissingFileError:
            return None

    def digests(self, kind: Kind) -> set[str]:
        """Return the hashes of all files of a kind; raises as `pages` does."""
        return {digest for page in self.pages(kind) for digest in page}

    def pages(self, kind: Kind) -> Iterator[list[str]]:
        """Yield the hashes of all files of a kind, some at a time, without temporary files of a killed process.

        Raises:
            StoreError: A remote store can't be listed.
        """
        ending = f".{kind.ending}"
        found = (n for n in self._names(kind) if n.endswith(ending) and n[0] != ".")
        while page := [name.removesuffix(ending) for name in islice(found, _PAGE)]:
            yield page

    def _names(self, kind: Kind) -> Iterator[str]:
        if self._remote:
            yield from self._remote.names(f"{self._root}/{kind}")
            return
        for _, _, files in os.walk(f"{self._root}/{kind}"):
            yield from files

    def _read(self, path: str) -> bytes:
        try:
            if self._remote:
                return self._remote.read(path)
            self._refuse_folder(path)
            with self._errors_explained(path, missing=True):
                return Path(path).read_bytes()
        except FileNotFoundError as error:
            raise MissingFileError(
                f"{path} is missing from the store: run 'ddiseg verify' to see what else is, "
                "and import the originals again to put it back"
            ) from error

    def count_temporary(self) -> int:
        """Return the number of temporary files that a killed process left, or a running one writes."""
        if not self.local:
            return 0
        names = [name for _, _, files in os.walk(self._root) for name in files]
        return sum(name.startswith(".") and name.endswith(".part") for name in names)

    def _refuse_folder(self, path: str) -> None:
        if self.local and os.path.isdir(path):
            raise OccupiedError(
                f"{path} is a folder, and the store keeps a file there: move that folder away, then run "
                "the same command again"
            )

    @contextlib.contextmanager
    def _errors_explained(self, path: str, *, missing: bool = False) -> Iterator[None]:
        """Raise errors of the disk as WorkspaceError; with `missing`, not that there is no file."""
        try:
            yield
        except OSError as error:
            if missing and isinstance(error, FileNotFoundError):
                raise
            what = error.strerror or type(error).__name__
            raise WorkspaceError(
                f"{path}: {what}; nothing half-written was kept: {how_to_write(error, Path(path))}, "
                "then run the same command again"
            ) from error


def _name(kind: Kind, digest: str) -> str:
    return f"{kind}/{digest[:2]}/{digest}.{kind.ending}"


def _folder(url: str) -> str:
    """Return the folder of a store: a path, or a URL such as file:///FOLDER."""
    if protocol_of(url):
        import fsspec

        return str(fsspec.core.url_to_fs(url)[1])
    return os.path.abspath(url)
