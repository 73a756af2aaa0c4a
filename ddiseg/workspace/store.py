"""Content-addressed files: photographs, masks and models, in a folder or at any fsspec URL.

A file's name is the hash of what it holds, so nothing is ever overwritten and the same content is
stored once. A file is written under a temporary name and renamed: it is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from ddiseg.errors import WorkspaceError


class Kind(StrEnum):
    """What the store holds, each kind in a folder of its own."""

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

    def path(self, kind: Kind, digest: str) -> str:
        return f"{self._root}/{kind}/{digest[:2]}/{digest}.{kind.ending}"

    def exists(self, kind: Kind, digest: str) -> bool:
        """Whether a file is there; an empty one, which a power cut may leave, is not."""
        path = self.path(kind, digest)
        try:
            return bool(os.path.getsize(path) if self.local else self._fs.size(path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def put(self, kind: Kind, digest: str, data: bytes, *, replace: bool = False) -> bool:
        """Store `data`; False where it is there already. Raises WorkspaceError on a full disk.

        `replace` writes over a file that was found damaged.
        """
        if not replace and self.exists(kind, digest):
            return False
        path = self.path(kind, digest)
        with self._told(path):
            if self.local:
                _write_local(path, data)
            else:
                self._fs.pipe_file(path, data)  # object stores show a file only when it is whole
        return True

    def get(self, kind: Kind, digest: str) -> bytes:
        """The bytes of a file; raises WorkspaceError where it is missing."""
        path = self.path(kind, digest)
        with self._told(path):
            try:
                content: bytes = self._fs.cat_file(path)
            except FileNotFoundError as error:
                raise WorkspaceError(
                    f"{path} is missing from the store: run 'ddiseg verify' to see what else is, "
                    "and import the originals again to put it back"
                ) from error
        return content

    def digests(self, kind: Kind) -> set[str]:
        """Hashes of all files of a kind; temporary files left by a killed process are not among them."""
        names = {str(p).rsplit("/", 1)[-1] for p in self._fs.find(f"{self._root}/{kind}")}
        ending = f".{kind.ending}"
        return {n.removesuffix(ending) for n in names if n.endswith(ending) and n[0] != "."}

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = error.strerror or type(error).__name__
            raise WorkspaceError(
                f"{path}: {what}; nothing half-written was kept: "
                "free some space or make the folder writable, then run the same command again"
            ) from error


def _write_local(path: str, data: bytes) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = f"{folder}/.{uuid.uuid4().hex}.part"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
