"""The check of a store by `ddiseg init`: a probe is written, read, listed, seen by another client, deleted."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from ddiseg.errors import StoreError
from ddiseg.workspace.remote_files import RemoteFiles

#: Folder of the probes, beside those of the kinds.
FOLDER = "probes"


def check_remote(url: str) -> None:
    """Check that a remote store can be written, read, listed and cleared.

    Raises:
        StoreError: it can't; the message says which step failed. No probe is left where it can be deleted.
    """
    files = RemoteFiles(url)
    name, content = f"{uuid.uuid4().hex}.probe", os.urandom(1024)
    folder = f"{files.root}/{FOLDER}"
    path = f"{folder}/{name}"
    with _step("written"):
        files.write(path, content)
    try:
        with _step("read"):
            _expect(
                files.read(path) == content,
                url,
                "a file that was written had other bytes when read",
            )
        with _step("listed"):
            _expect(
                name in files.files(folder), url, "a file that was written was not in its listing"
            )
        with _step("read by a second client"):
            seen = RemoteFiles(url, own_client=True).read(path)
            _expect(
                seen == content, url, "a second client read other bytes than the first one wrote"
            )
        with _step("deleted"):
            files.remove(path)
    except BaseException:
        with contextlib.suppress(StoreError, FileNotFoundError):
            files.remove(path)
        raise
    _expect(name not in files.files(folder), url, "a file that was deleted is still in its listing")


def _expect(holds: bool, url: str, otherwise: str) -> None:
    if not holds:
        raise StoreError(
            f"store {url}: {otherwise}: ddiseg needs one that shows at once what was written"
        )


@contextlib.contextmanager
def _step(done: str) -> Iterator[None]:
    """Say which step of the check failed."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"a probe can't be {done}: {error}", is_outage=error.is_outage) from error
    except FileNotFoundError as error:
        raise StoreError(
            f"a probe can't be {done}: it was written, and was gone then: ddiseg needs a store that "
            "shows at once what was written"
        ) from error
