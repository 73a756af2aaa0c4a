"""Files that several processes may write: whole-or-nothing writes, and locks.

Both work on Linux, macOS and Windows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from annotation_protocol.errors import BusyError

#: Permissions of a file that only its owner may read.
PRIVATE = 0o600

#: Answers of systems that can't flush a folder, or may not open it.
_CANT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}


def how_to_write(error: OSError, path: Path) -> str:
    """Return what a person can do where `path` can't be written, by the error's number."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make the folder writable"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        in_the_way = next((each for each in path.parents if each.is_file()), path)
        return f"{in_the_way} is a file where a folder belongs, move it away"
    return "check the disk or the connection"


def atomic_write(
    path: Path,
    content: bytes | str | Callable[[Path], object],
    *,
    mode: int = 0o666,
    sync_folder: bool = True,
    durable: bool = True,
) -> None:
    """Write a file so that, whatever happens, it is there whole or as it was before.

    The content goes to a temporary file in the same folder, is flushed to the disk and renamed.
    A symbolic link at `path` is replaced, not followed.

    Args:
        path: The file. Its folder must exist.
        content: The bytes; or a text, written as UTF-8 with its line ends unchanged; or a function
            that writes the file whose path it is given (its name ends in ".part").
        mode: Permissions of the file, less the umask.
        sync_folder: Flush the folder too, so that a new name outlives a power cut. It takes as long
            as the file itself.
        durable: Flush file and folder to the disk; not needed for a cache, which can be made again.

    Raises:
        OSError: The file can't be written. The temporary file is removed.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, mode), "wb") as file:
            if isinstance(content, str):
                content = content.encode()
            if isinstance(content, bytes):
                file.write(content)
        if callable(content):
            content(temporary)
        if durable:
            with open(temporary, "rb+") as file:  # Windows flushes only what is open for writing
                os.fsync(file.fileno())
        _replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    if durable and sync_folder:
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can.

    Raises:
        OSError: The disk failed. That a network drive can't flush a folder is no error.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANT_FLUSH:
            raise


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file; on Windows wait a moment for programs that have the old one open."""
    for _ in range(20 if sys.platform == "win32" else 0):
        try:
            os.replace(temporary, path)
        except PermissionError:
            time.sleep(0.05)
        else:
            return
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(path: Path, busy: str, *, wait: Callable[[str], object] | None = None) -> Iterator[int]:
    """Hold the lock `path`, which ends at the latest with this process.

    Args:
        path: The lock file. It stays; while the lock is held, `NAME.holder` beside it has the
            process id.
        busy: What to say where another process holds the lock; `{holder}` becomes its process id.
        wait: Called once with `busy` before waiting for the lock. Without it nothing waits.

    Yields:
        The lock file's descriptor. On Linux and macOS a child process that inherits it holds the
        lock for as long as it lives.

    Raises:
        BusyError: Another process holds the lock and there is no `wait`; its message is `busy`.
        OSError: The lock file can't be written.
    """
    lock = FileLock(path, mode=PRIVATE, thread_local=False)
    holder = path.with_name(f"{path.name}.holder")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        message = busy.format(holder=_read_holder(holder))
        if wait is None:
            raise BusyError(message) from error
        wait(message)
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()), encoding="ascii")
        descriptor = lock._context.lock_file_fd
        assert descriptor is not None
        yield descriptor
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip() or "unknown"
    except OSError:  # just taken or just released
        return "unknown"
