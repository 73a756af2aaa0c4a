"""Progress of a check of all files, so that one that was stopped goes on where it was.

A file in the workspace's cache holds a number for each file that was found whole. The number is a hash of all
that the catalogue says of the file: a row that has changed since, or another catalogue, has other
numbers, and the file is read again. It is removed when a check comes to its end: the next one reads
everything. After a day without progress a stopped check counts no more, since files may have changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue.tables import now

FILE = Path("cache", "verify.progress")

#: First bytes of the file; the time at which the check began follows, up to the end of the line.
_HEAD = b"ddiseg verify 1 "

#: How long a stopped check may be continued, in seconds.
_LASTS = 24 * 3600

#: How often progress is written, in seconds; a check that takes less leaves no file.
_EVERY = 2.0

_NUMBER = np.dtype("<u8")


def number_of(*facts: object) -> int:
    """Return the number of a file by what the catalogue says of it."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:8], "little")


@dataclass
class VerifyProgress:
    """The files that this check, and those that it continues, have found whole."""

    began: str = field(default_factory=now)  #: UTC
    path: Path | None = None  #: None: nothing is kept
    _known: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, _NUMBER))  #: ascending
    _waiting: list[int] = field(default_factory=list)
    _file: BinaryIO | None = None
    _written: float = field(default_factory=time.monotonic)

    @property
    def continued(self) -> int:
        """Number of files that stopped checks have found whole."""
        return len(self._known)

    def __contains__(self, number: int) -> bool:
        place = int(self._known.searchsorted(np.uint64(number)))
        return place < len(self._known) and int(self._known[place]) == number

    def add(self, numbers: Sequence[int]) -> None:
        """Remember files that were found whole."""
        self._waiting += numbers
        if self.path is not None and time.monotonic() - self._written >= _EVERY:
            self._write(self.path)

    def end(self) -> None:
        """Forget everything: the check came to its end."""
        self._waiting.clear()
        self.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        """Append what is new; a check of a workspace that can't be written keeps nothing."""
        try:
            if self._file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab")
                if not self._file.tell():
                    self._file.write(_HEAD + self.began.encode("ascii") + b"\n")
            self._file.write(np.array(self._waiting, _NUMBER).tobytes())
            self._file.flush()
        except OSError:
            self.path = None
        self._waiting.clear()
        self._written = time.monotonic()

    def close(self) -> None:
        """Keep what was found so far, and close the file."""
        if self._file is not None and self.path is not None:
            self._write(self.path)
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def verify_progress(root: Path, *, restart: bool = False) -> Iterator[VerifyProgress]:
    """Open the progress of a workspace's check.

    Two checks at the same time share it: each adds what it has found whole.

    Args:
        restart: read every file again.
    """
    path = root / FILE
    try:
        progress = _opened(path, restart=restart)
    except OSError:  # a workspace that can't be written keeps no progress
        progress = VerifyProgress()
    try:
        yield progress
    finally:
        progress.close()


def _opened(path: Path, *, restart: bool) -> VerifyProgress:
    """Return the progress in a file, which is removed where it doesn't count."""
    try:
        is_old = time.time() - path.stat().st_mtime > _LASTS
    except FileNotFoundError:
        return VerifyProgress(path=path)
    head, line_end, numbers = path.read_bytes().partition(b"\n")
    if restart or is_old or not line_end or not head.startswith(_HEAD):
        path.unlink()
        return VerifyProgress(path=path)
    whole = len(numbers) // _NUMBER.itemsize * _NUMBER.itemsize
    os.truncate(path, len(head) + 1 + whole)  # a killed process may have written half a number
    known = np.unique(np.frombuffer(numbers[:whole], _NUMBER))
    return VerifyProgress(head[len(_HEAD) :].decode("ascii", "replace"), path, known)
