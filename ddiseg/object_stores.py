"""Objects outside the store of a workspace: s3://, gs:// and abfs:// through fsspec.

Imports read from them and exports write to them. Every error is one line that names the URL, without
what is secret in it, and says what to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ddiseg.errors import DdisegError, InputError
from ddiseg.workspace.remote_errors import explain, is_bucket_missing
from ddiseg.workspace.remote_files import open_file_system, until_whole
from ddiseg.workspace.store_url import OBJECT_STORES, protocol_of


def is_object_store(place: str) -> bool:
    """Return whether a place is a URL of an object store."""
    return protocol_of(place) in OBJECT_STORES


def without_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment: signatures stand in the query."""
    if not protocol_of(url):
        return url
    parts = urlsplit(url)
    account, at, host = parts.netloc.rpartition("@")
    if protocol_of(url) in ("abfs", "abfss") and at and ":" not in account:
        host = parts.netloc  # container@account, which are no secrets
    # In the key of an object, ? and # are letters.
    path = url.partition("://")[2].partition("/")[2] if is_object_store(url) else parts.path
    slash = "/" if is_object_store(url) and path else ""
    return urlunsplit((parts.scheme, host, "", "", "")) + slash + path


def parent(url: str) -> str:
    """Return the URL one level up."""
    return url.rstrip("/").rpartition("/")[0]


def last_part(url: str) -> str:
    """Return the last part of a URL's path, decoded; the bucket or host where it has none."""
    host, _, path = without_secrets(url).partition("://")[2].partition("/")
    path = path if is_object_store(url) else unquote(path)
    return path.rstrip("/").rpartition("/")[2].lstrip(".") or host


@dataclass(frozen=True)
class Entry:
    """An object under a prefix."""

    path: str  #: relative to the prefix
    key: str  #: what fsspec calls it
    size: int
    modified_ns: int  #: 0 where the server does not say
    etag: str = ""  #: S3's, often the MD5 of the content


class ObjectStore:
    """The objects under a URL, with errors explained."""

    def __init__(self, url: str) -> None:
        """Prepare the connection; nothing is sent yet.

        Raises:
            InputError: the package for such URLs is missing, or no bucket is named.
        """
        if not url.partition("://")[2].strip("/"):
            raise InputError(f"{url} names no bucket: write {protocol_of(url)}://BUCKET/PREFIX")
        self.url = url.rstrip("/")
        self.shown = without_secrets(self.url)
        try:
            self._fs, self.root = open_file_system(self.url)
        except ImportError as error:
            extra = OBJECT_STORES[protocol_of(url)]
            raise InputError(
                f"{self.shown}: what reads such URLs is not installed: pip install 'ddiseg[{extra}]'"
            ) from error
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.shown} can't be used: {error}") from error

    def entries(self) -> Iterator[Entry]:
        """Yield the objects under the prefix; what ends in / stands for an empty folder and is left out.

        Raises:
            InputError, StoreError: it can't be listed.
        """
        with self.explained():
            found = self._fs.find(self.root, detail=True)
        for key, facts in found.items():
            path = key.removeprefix(self.root).strip("/")
            if path and not key.endswith("/"):
                yield _entry(path, key, facts)

    def facts(self, key: str | None = None) -> Entry | None:
        """Return size and time of one object (default: the one that the URL names), None where there is none."""
        key = key or self.root
        try:
            with self.explained(key):
                facts = self._fs.info(key)
        except MissingObjectError:
            return None
        if facts["type"] != "file":
            return None
        return _entry(key.rpartition("/")[2], key, facts)

    def read(self, key: str | None = None) -> bytes:
        """Return the bytes of an object.

        Raises:
            MissingObjectError: there is none.
            InputError, StoreError: it can't be read.
        """
        key = key or self.root
        with self.explained(key):
            return until_whole(lambda: bytes(self._fs.cat_file(key)))

    def chunks(self, key: str, size: int = 1 << 22) -> Iterator[bytes]:
        """Yield an object's bytes in parts, so that a large one takes little memory."""
        with self.explained(key), self._fs.open(key, "rb", block_size=size) as file:
            while part := file.read(size):
                yield part

    def download(self, key: str, path: str) -> None:
        """Write an object to a file."""
        with self.explained(key):
            until_whole(lambda: self._fs.get_file(key, path))

    def upload(self, path: str, key: str) -> None:
        """Write a file to an object, which is there whole or as it was before."""
        with self.explained(key):
            self._fs.put_file(path, key)

    def write(self, key: str, content: bytes, *, new: bool = False) -> bool:
        """Write an object; returns False where it is `new` and there is one already."""
        try:
            with self.explained(key):
                self._fs.pipe_file(key, content, **({"mode": "create"} if new else {}))
        except ExistingObjectError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Remove an object."""
        with self.explained(key):
            self._fs.rm_file(key)

    def shown_key(self, key: str) -> str:
        """Return the URL of an object as messages write it."""
        inside = key.removeprefix(self.root)
        return self.shown + inside if inside != key else key

    @contextlib.contextmanager
    def explained(self, key: str | None = None) -> Iterator[None]:
        """Raise errors of the object store, of whatever package, as ours."""
        shown = self.shown_key(key) if key else self.shown
        try:
            yield
        except DdisegError:
            raise
        except FileExistsError as error:
            raise ExistingObjectError(f"{shown} is there already") from error
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not is_bucket_missing(error):
                raise MissingObjectError(f"{shown} is not there: check the address") from error
            raise explain(error, shown) from error


class MissingObjectError(InputError):
    """An object that is not there."""


class ExistingObjectError(InputError):
    """An object that is there, and should not."""


def _entry(path: str, key: str, facts: dict[str, Any]) -> Entry:
    etag = str(facts.get("ETag") or "").strip('"')
    return Entry(path, key, int(facts.get("size") or 0), _modified_ns(facts), etag)


def _modified_ns(facts: dict[str, Any]) -> int:
    """Return when an object was written, in nanoseconds, by whatever name its server gives it; else 0."""
    names = ("LastModified", "last_modified", "updated", "mtime", "modified")
    value = next((facts[name] for name in names if facts.get(name)), None)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return 0
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000) * 1000
