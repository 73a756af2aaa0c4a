"""Files of an object store or a file server, through fsspec: bounded waiting, whole files, our errors."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ddiseg.errors import DdisegError, StoreError, WorkspaceError
from ddiseg.workspace.remote_errors import explain, is_bucket_missing, is_content_broken_off
from ddiseg.workspace.store_url import OBJECT_STORES, endpoint, protocol_of

T = TypeVar("T")

#: Seconds for a connection, and for each part of an answer.
CONNECT, READ = 5, 30

#: Tries of a request: botocore waits up to 1, 2 and 4 seconds between them, at random.
TRIES = 4

#: Times that an object is read whose content breaks off: no request is tried again for that.
READS = 3

#: Seconds for which a store that did not answer is not asked again: many files must not wait in turn.
PAUSE = 20.0

#: Connections to a server at a time: threads that store masks, and a few that read.
CONNECTIONS = 32

#: Threads that list folders.
LISTERS = 8


class RemoteFiles:
    """Files under a URL. Safe for several threads: they share one event loop and its connections."""

    def __init__(self, url: str, *, own_client: bool = False) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            own_client: Don't share the connections with other stores of this process.

        Raises:
            WorkspaceError: The package for such URLs is missing, or the URL is of no known kind.
        """
        self.url, self.protocol = url, protocol_of(url)
        try:
            self._fs, self.root = open_file_system(url, own_client=own_client)
        except ImportError as error:
            extra = OBJECT_STORES.get(self.protocol)
            install = f"pip install 'ddiseg[{extra}]'" if extra else f"install its package: {error}"
            raise WorkspaceError(
                f"store {url} needs a package that is missing: {install}"
            ) from error
        except ValueError as error:
            raise WorkspaceError(f"store {url} can't be used: {error}") from error
        self._is_s3 = OBJECT_STORES.get(self.protocol) == "s3"
        where = endpoint() if self._is_s3 else ""
        self._shown = f"store {url}" + (f" at {where}" if where else "")
        self._outage: tuple[float, StoreError] | None = None
        self._lock = threading.Lock()

    def size(self, path: str) -> int:
        """Return the size of a file in bytes; raises FileNotFoundError where there is none."""
        with self._explained():
            try:
                facts = self._fs.info(path)
            except FileNotFoundError:
                raise
            except OSError:
                # The answer to HEAD has no body that would say why.
                self._fs.cat_file(path, start=0, end=1)
                raise
            if facts["type"] != "file":
                raise FileNotFoundError(path)
            return int(facts["size"])

    def read(self, path: str) -> bytes:
        """Return the bytes of a file; raises FileNotFoundError where there is none."""
        with self._explained():
            # s3fs would ask for the size first, to read a large file in parts side by side.
            alone = {"max_concurrency": 1} if self._is_s3 else {}
            return until_whole(lambda: bytes(self._fs.cat_file(path, **alone)))

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all; it outlives this machine when this returns.

        S3 compares what arrived with its MD5 before it keeps it. A file server, which would show a part
        of the file, gets it under another name first.
        """
        with self._explained():
            if self._is_s3:
                md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
                self._fs.pipe_file(path, data, ContentMD5=md5)
            elif self.protocol in OBJECT_STORES:
                self._fs.pipe_file(path, data)
            else:
                self._write_and_move(path, data)

    def _write_and_move(self, path: str, data: bytes) -> None:
        folder = path.rpartition("/")[0]
        part = f"{folder}/.{uuid.uuid4().hex}.part"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            self._fs.pipe_file(part, data)
            self._fs.mv(part, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(part)
            raise

    def remove(self, path: str) -> None:
        """Delete a file; raises FileNotFoundError where there is none."""
        with self._explained():
            self._fs.rm_file(path)

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all files two levels below `folder`, such as those in images/ab.

        Each of these folders is one listing, so that the memory is bounded for a million files.
        """
        with self._explained():
            try:
                inside = [str(path) for path in self._fs.ls(folder, detail=False)]
            except FileNotFoundError as error:
                if is_bucket_missing(error):
                    raise
                return
        with ThreadPoolExecutor(LISTERS, "list") as pool:
            for found in pool.map(self._list, inside):
                yield from found

    def _list(self, folder: str) -> list[str]:
        with self._explained():
            return [str(path).rpartition("/")[2] for path in self._fs.find(folder)]

    def files(self, folder: str) -> list[str]:
        """Return the names of the files in one folder."""
        return self._list(folder)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise errors of whatever package as StoreError, but for a missing file.

        For a while after an outage nothing is asked: the same error is raised at once.
        """
        if self._outage is not None and time.monotonic() < self._outage[0]:
            raise self._outage[1]
        try:
            yield
        except DdisegError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not is_bucket_missing(error):
                raise
            found = explain(error, self._shown)
            if found.is_outage:
                with self._lock:
                    self._outage = (time.monotonic() + PAUSE, found)
            raise found from error
        self._outage = None


def open_file_system(url: str, *, own_client: bool = False) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, with bounded waiting, and the path in it; nothing is sent yet.

    Raises:
        ImportError: The package for such URLs is missing.
        ValueError: The URL is of no known kind.
    """
    import fsspec

    protocol = protocol_of(url)
    options = {**_options(protocol), "skip_instance_cache": own_client}
    files, root = fsspec.core.url_to_fs(url, **options)
    if OBJECT_STORES.get(protocol) == "s3":
        files.retries = 1  # else s3fs would do all of botocore's tries several times
    return files, root


def until_whole(read: Callable[[], T]) -> T:
    """Return what `read` returns; it is called again where a content broke off."""
    for _ in range(READS - 1):
        try:
            return read()
        except Exception as error:
            if not is_content_broken_off(error):
                raise
    return read()


def _options(protocol: str) -> dict[str, Any]:
    """Return what a file system is opened with; the configuration of fsspec wins."""
    from fsspec.config import conf

    if OBJECT_STORES.get(protocol) != "s3":
        return {"use_listings_cache": False}
    configured = conf.get("s3", {})
    options: dict[str, Any] = {
        "use_listings_cache": False,  # other processes write, too
        "config_kwargs": {
            "connect_timeout": CONNECT,
            "read_timeout": READ,
            "retries": {"mode": "standard", "total_max_attempts": TRIES},
            "max_pool_connections": CONNECTIONS,
            **configured.get("config_kwargs", {}),
        },
    }
    if (url := endpoint()) and "endpoint_url" not in configured:
        options["endpoint_url"] = (
            url  # as botocore does; here also part of what a client is shared by
        )
    return options
