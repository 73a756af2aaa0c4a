"""Downloads of large files over HTTP: resumed after an interruption, verified by hash."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import requests

from fedd.errors import WeightsError

#: Called with the bytes done and in all (None: the server does not say).
Progress = Callable[[int, int | None], None]

#: Bytes written at a time, and lost at most by an interruption.
CHUNK = 1 << 18

#: Seconds to wait for the connection, and for each next piece.
TIMEOUT = (15, 60)

#: Attempts within one call, as long as each brings something.
ATTEMPTS = 5


def part_path(target: Path) -> Path:
    """Return the path of an unfinished transfer to `target`."""
    return target.with_name(f".{target.name}.part")


def download(
    url: str,
    target: Path,
    sha256: str,
    room_after: int = 0,
    progress: Progress = lambda done, whole: None,
    size: int | None = None,
) -> None:
    """Download `url` to `target`, complete and with hash `sha256`, or not at all.

    An interrupted transfer is resumed, also by a later call. `room_after` bytes must be free besides;
    `size` is the file's, for a server that does not say it. Raises WeightsError for an interrupted
    transfer, a web page instead of a file, another hash, or too little space.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(target)
    for _ in range(ATTEMPTS):
        before = _size(part)
        problem = _transfer(url, part, room_after, progress, size)
        if problem is None:
            break
        if _size(part) <= before:
            raise WeightsError(problem)
    else:
        raise WeightsError(problem)
    check_hash(part, sha256, url, delete=True)
    part.replace(target)


def check_hash(path: Path, sha256: str, origin: str, delete: bool = False) -> None:
    """Raise WeightsError if a file has another SHA-256; with `delete`, also delete the file."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == sha256:
        return
    if delete:
        path.unlink()
    raise WeightsError(
        f"{origin} is not the expected file: its SHA-256 is {found}, not {sha256}; "
        "give --sha256 if another file of the same network is meant"
    )


def check_room(folder: Path, needed: int) -> None:
    """Raise WeightsError if fewer than `needed` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{folder} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are needed: make room, "
            "or give another folder (--to, or DDISEG_CACHE)"
        )


def _transfer(
    url: str, part: Path, room_after: int, progress: Progress, size: int | None
) -> str | None:
    """Download what is missing of `part`; returns None when complete, else why it was interrupted."""
    have = _size(part)
    try:
        with requests.get(
            url,
            headers={"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {},
            stream=True,
            timeout=TIMEOUT,
        ) as response:
            if response.status_code == 416:  # nothing after `have`: complete, or another file
                return None
            _check_answer(response, url)
            if response.status_code != 206:  # the server does not resume
                have = 0
            length = response.headers.get("Content-Length")
            whole = have + int(length) if length else size
            check_room(part.parent, max(0, (whole or 0) - have) + room_after)
            with part.open("ab" if have else "wb") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    progress(have, whole)
    except requests.RequestException as error:
        return (
            f"the transfer of {url} was interrupted after {_size(part):,} bytes ({_reason(error)}): "
            "run the same command again to resume it"
        )
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise WeightsError(
                f"no space left in {part.parent}: make room and run the same command again to resume, "
                "or give another folder (--to, or DDISEG_CACHE)"
            ) from error
        raise WeightsError(f"{part} can't be written: {error.strerror}") from error
    return None


def _check_answer(response: requests.Response, url: str) -> None:
    if not response.ok:
        raise WeightsError(
            f"{url} answers {response.status_code} {response.reason}: check the address (--url), "
            "or get the file in another way and give it with --from FILE"
        )
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html"):
        raise WeightsError(
            f"{url} answers with a web page, not a file: a proxy or a login page may be the cause; "
            "get the file in another way and give it with --from FILE"
        )


def _reason(error: requests.RequestException) -> str:
    return str(error).partition("\n")[0][:120] or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
