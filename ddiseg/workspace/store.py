"""Content-addressed storage of photographs, masks and models, in a folder or at any fsspec URL.

A file is named by the hash of its content, so nothing is ever overwritten and the same content is
stored once. Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from annotation_protocol.files import atomic_write, flush_folder, how_to_write
from ddiseg.errors import MissingFileError, OccupiedError, WorkspaceError


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

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise WorkspaceError(f"store {url} can't be used: {error}") from error
        self.local = "file" in _protocols(self._fs)
        self._named: set[Path] = set()  # folders whose own names this process has flushed

    def path(self, kind: Kind, digest: str) -> str:
        return f"{self._root}/{kind}/{digest[:2]}/{digest}.{kind.ending}"

    def exists(self, kind: Kind, digest: str) -> bool:
        """Return whether a file exists; an empty one, which a power cut may leave, does not count.

        Raises:
            OccupiedError: a folder has its name.
        """
        path = self.path(kind, digest)
        try:
            self._refuse_folder(path)
            return bool(os.path.getsize(path) if self.local else self._fs.size(path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def put(self, kind: Kind, digest: str, data: bytes, *, replace: bool = False) -> bool:
        """Store `data`; returns False if it is stored already.

        In a folder, the content is on the disk then, and its name once `flush_names` returned.

        Args:
            replace: write over a file that was found damaged.

        Raises:
            OccupiedError: a folder has its name.
            WorkspaceError: the disk is full or can't be written.
        """
        if not replace and self.exists(kind, digest):
            return False
        path = self.path(kind, digest)
        self._refuse_folder(path)
        with self._errors_explained(path):
            if self.local:
                file = Path(path)
                file.parent.mkdir(parents=True, exist_ok=True)
                # The names are flushed together, by `flush_names`: alone, each takes as long as a file.
                atomic_write(file, data, sync_folder=False)
            else:
                self._fs.pipe_file(path, data)  # object stores show a file only when it is whole
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

    def get(self, kind: Kind, digest: str) -> bytes:
        """Return the bytes of a file as they are: `ddiseg.workspace.stored_files` checks them.

        Raises:
            OccupiedError: a folder has its name.
            MissingFileError: it is not there.
            WorkspaceError: it can't be read.
        """
        path = self.path(kind, digest)
        self._refuse_folder(path)
        with self._errors_explained(path):
            try:
                content: bytes = self._fs.cat_file(path)
            except FileNotFoundError as error:
                raise MissingFileError(
                    f"{path} is missing from the store: run 'ddiseg verify' to see what else is, "
                    "and import the originals again to put it back"
                ) from error
        return content

    def digests(self, kind: Kind) -> set[str]:
        """Return the hashes of all files of a kind, without temporary files of a killed process."""
        names = {str(p).rsplit("/", 1)[-1] for p in self._fs.find(f"{self._root}/{kind}")}
        ending = f".{kind.ending}"
        return {n.removesuffix(ending) for n in names if n.endswith(ending) and n[0] != "."}

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
    def _errors_explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = error.strerror or type(error).__name__
            raise WorkspaceError(
                f"{path}: {what}; nothing half-written was kept: {how_to_write(error, Path(path))}, "
                "then run the same command again"
            ) from error


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
