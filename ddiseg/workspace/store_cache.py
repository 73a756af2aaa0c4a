"""Copies of a remote store's files on this machine, up to a size: what is read again is not sent again.

A cache is no storage: whatever is in it may be deleted at any time, and whatever goes wrong with it is
said once and never fails a command. Files have the names that they have in the store, and are checked
against their hash by what reads them, as those of the store are. Several processes may use it at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

from annotation_protocol.files import atomic_write

_logger = logging.getLogger(__name__)

#: Share of the limit that is left once old files were removed; and that may be written between two looks
#: at what other processes wrote.
KEPT, UNSEEN = 0.9, 0.05


class StoreCache:
    """Files under `folder`, at most about `limit` bytes; the ones that were used last are kept."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._unseen: float = (
            limit  # bytes written since the folder was looked through: begin with that
        )
        self._failed = False

    def get(self, name: str) -> bytes | None:
        """Return the bytes of a file, None where it is not in the cache."""
        path = self._folder / name
        try:
            data = path.read_bytes()
            os.utime(path)  # used now
        except OSError:
            return None
        return data or None

    def has(self, name: str) -> bool:
        """Return whether a file is in the cache, whole or not."""
        return (self._folder / name).exists()

    def put(self, name: str, data: bytes) -> None:
        """Keep a file, and remove the ones that were not used for longest where the limit is passed."""
        if self._failed or len(data) > self._limit * KEPT:
            return
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._unseen += len(data)
                if self._unseen > self._limit * UNSEEN:
                    self._shrink(len(data))
                    self._unseen = 0.0
            atomic_write(path, data, durable=False)
        except OSError as error:
            self._failed = True
            _logger.warning(
                f"the cache {self._folder} can't be written ({error.strerror or error}): files of the store "
                "are read without it from now on"
            )

    def remove(self, name: str) -> None:
        """Forget a file, which was found damaged."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def _shrink(self, coming: int) -> None:
        """Remove the files that were not used for longest, and what killed processes left."""
        found = []
        for at, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(OSError):  # another process removed it
                    status = os.stat(os.path.join(at, name))
                    found.append((status.st_mtime_ns, status.st_size, os.path.join(at, name)))
        total = sum(size for _, size, _ in found) + coming
        if total <= self._limit * (1 - UNSEEN):
            return
        for _, size, path in sorted(found):
            if total <= self._limit * KEPT:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                total -= size
