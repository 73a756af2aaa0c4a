"""A release in an object store: objects first, the manifest last, so that it is there whole or not at all.

The release is written into the workspace's cache and uploaded from there. An object that marks an
unfinished release holds its content hash: the same export goes on where it was broken off.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annotation_protocol.files import locked
from ddiseg.errors import InputError, StoreError
from ddiseg.object_stores import (
    Entry,
    MissingObjectError,
    ObjectStore,
    is_object_store,
    without_secrets,
)
from ddiseg.outcomes import FileOutcome, Outcome, Progress, counted, silent, worker_threads
from ddiseg.release.folder import MANIFEST, write_release
from ddiseg.release.release import Release
from ddiseg.workspace.store_url import protocol_of

_logger = logging.getLogger(__name__)

#: Object of an unfinished release; its content is the hash of the release.
MARK = ".ddiseg-part"

#: Objects that are written or read at a time, and files whose uploads are planned at a time.
AT_A_TIME, BATCH = 16, 1000


@dataclass(frozen=True)
class UploadedRelease:
    """A release at `url`, written now (`new`) or earlier."""

    url: str
    new: bool
    manifest: dict[str, Any]
    outcomes: tuple[FileOutcome, ...]


def upload_release(
    release: Release,
    format_name: str,
    url: str,
    *,
    images: bool = True,
    strict: bool = False,
    progress: Progress = silent,
) -> UploadedRelease:
    """Write `release` under `url`, unless the same release is there already.

    Raises:
        InputError: anything else is there, no image could be exported, or `strict` and one could not.
        StoreError: the server can't be used; the same export goes on from there.
        WorkspaceError: the workspace's cache can't be written.
    """
    _check(url, release)
    store = ObjectStore(url)
    with _cache(release, store) as folder:
        _refuse_other_objects(store)
        written = write_release(
            release,
            format_name,
            folder / "release",
            images=images,
            strict=strict,
            progress=progress,
        )
        manifest = written.manifest
        earlier = _read_manifest(store)
        if earlier is not None:
            _check_unchanged(store, earlier, manifest["content"])
            outcomes = tuple(_as_before(outcome) for outcome in written.outcomes)
            return UploadedRelease(store.shown, False, earlier, outcomes)
        _mark(store, manifest["content"])
        _upload(store, written.folder, manifest["files"], progress)
        store.upload(str(written.folder / MANIFEST), _key(store, MANIFEST))
        try:
            store.remove(_key(store, MARK))
        except (StoreError, InputError) as error:
            _logger.warning(f"the release is complete, but {MARK} could not be removed: {error}")
    return UploadedRelease(store.shown, True, manifest, written.outcomes)


def _check(url: str, release: Release) -> None:
    if not is_object_store(url):
        raise InputError(
            f"{without_secrets(url)}: releases can't be written to {protocol_of(url)}://, only to a folder, s3://, "
            "gs:// or abfs://"
        )
    own, given = release.workspace.store.url.rstrip("/") + "/", url.rstrip("/") + "/"
    if own.startswith(given) or given.startswith(own):
        raise InputError(
            f"{without_secrets(url)} is in the store of this workspace: give --to another prefix"
        )


@contextmanager
def _cache(release: Release, store: ObjectStore) -> Iterator[Path]:
    """Provide an empty folder for one export to a URL at a time; what a killed one left is removed."""
    exports = release.workspace.root / "cache" / "exports"
    folder = exports / hashlib.sha256(store.shown.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"process {{holder}} exports to {store.shown}"):
        shutil.rmtree(folder / "release", ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _refuse_other_objects(store: ObjectStore) -> None:
    """Raise InputError where objects are under the URL and no release, finished or not."""
    if _read_manifest(store) is not None or store.facts(_key(store, MARK)) is not None:
        return
    names = []
    if store.facts() is not None:
        raise InputError(f"{store.shown} is an object: give --to a prefix that is empty")
    for entry in store.entries():
        names.append(entry.path)
        if len(names) > 3:
            break
    if names:
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise InputError(
            f"{store.shown} holds objects that are no ddiseg release ({listed}): give --to an empty prefix; "
            "nothing was changed"
        )


def _read_manifest(store: ObjectStore) -> dict[str, Any] | None:
    """Return the manifest of a finished release, None where there is none.

    Raises:
        InputError: it is none of ours.
    """
    try:
        manifest = json.loads(store.read(_key(store, MANIFEST)))
        for key in ("format", "content", "created_at", "images", "files"):
            manifest[key]
    except MissingObjectError:
        return None
    except (ValueError, LookupError, TypeError):
        raise InputError(
            f"{store.shown}/{MANIFEST} is damaged: give --to an empty prefix; nothing was changed"
        ) from None
    return dict(manifest)


def _check_unchanged(store: ObjectStore, earlier: dict[str, Any], content: str) -> None:
    """Raise InputError where the release that is there is another one, or was changed."""
    if earlier["content"] != content:
        raise InputError(
            f"{store.shown} holds another release ({earlier['format']}, "
            f"{counted(earlier['images'], 'image')}, made {earlier['created_at'][:16]}Z): give --to "
            "another prefix, or delete this one first; nothing was changed"
        )
    found = {entry.path: entry for entry in store.entries()}

    def changed(file: Mapping[str, Any]) -> bool:
        return not _is_same(store, found.get(file["path"]), file, None)

    wrong = []
    for part in _parts(earlier["files"]):
        with worker_threads(AT_A_TIME) as pool:
            wrong += [
                f["path"] for f, bad in zip(part, pool.map(changed, part), strict=True) if bad
            ]
    if wrong:
        raise InputError(
            f"{store.shown} is this release, but someone has changed or removed {counted(len(wrong), 'object')} "
            f"of it ({wrong[0]}): delete what is under it and run the same command again; nothing was changed"
        )


def _mark(store: ObjectStore, content: str) -> None:
    """Mark the release as unfinished.

    Raises:
        InputError: another one is.
    """
    key = _key(store, MARK)
    store.write(key, content.encode(), new=True)
    if store.read(key) != content.encode():
        raise InputError(
            f"{store.shown} holds another export that was broken off, or still runs: let it end, or delete what is "
            "under it, or give --to another prefix; nothing was changed"
        )


def _upload(
    store: ObjectStore, folder: Path, files: Sequence[Mapping[str, Any]], progress: Progress
) -> None:
    """Upload files, many at a time, but for those that are there already.

    Raises:
        StoreError: the server can't be used, or lost one.
    """
    found = {entry.path: entry for entry in store.entries()}
    kept = 0

    def upload(file: Mapping[str, Any]) -> bool:
        path = file["path"]
        if _is_same(store, found.get(path), file, folder / path):
            return False
        store.upload(str(folder / path), _key(store, path))
        return True

    done = 0
    for part in _parts(files):
        with worker_threads(AT_A_TIME) as pool:
            for sent in pool.map(upload, part):
                kept += not sent
                done += 1
                progress(done, len(files))
    if kept:
        _logger.info(f"{counted(kept, 'object')} of an export that was broken off kept")
    sizes = {entry.path: entry.size for entry in store.entries()}
    if lost := [f["path"] for f in files if sizes.get(f["path"]) != f["bytes"]]:
        raise StoreError(
            f"{store.shown}: {counted(len(lost), 'object')} did not arrive ({lost[0]}): run the same command again"
        )


def _is_same(
    store: ObjectStore, entry: Entry | None, file: Mapping[str, Any], local: Path | None
) -> bool:
    """Return whether an object is a file of the release: by S3's MD5 where it has one, else by reading it."""
    if entry is None or entry.size != file["bytes"]:
        return False
    if local is not None and re.fullmatch("[0-9a-f]{32}", entry.etag):
        with open(local, "rb") as opened:
            if hashlib.file_digest(opened, "md5").hexdigest() == entry.etag:
                return True
    digest = hashlib.sha256()
    for chunk in store.chunks(entry.key):
        digest.update(chunk)
    return bool(digest.hexdigest() == file["sha256"])


def _parts(files: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    for start in range(0, len(files), BATCH):
        yield files[start : start + BATCH]


def _key(store: ObjectStore, path: str) -> str:
    return f"{store.root}/{path}"


def _as_before(outcome: FileOutcome) -> FileOutcome:
    return (
        replace(outcome, outcome=Outcome.UNCHANGED) if outcome.outcome is Outcome.ADDED else outcome
    )
