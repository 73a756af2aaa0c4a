"""The store: whole files or none, named by their content."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from ddiseg.errors import OccupiedError, WorkspaceError
from ddiseg.workspace import store as store_module
from ddiseg.workspace.store import Kind, Store
from tests.wording import Refusal

DIGEST = "ab" * 32


@pytest.fixture(params=["folder", "folder with [brackets] ?", "file url", "s3", "file server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    urls = {
        "folder": str(tmp_path / "store"),
        "folder with [brackets] ?": str(tmp_path / "a[1] ?" / "store"),
        "file url": f"file://{tmp_path}/store",
        "file server": f"fileserver://{tmp_path}/store",
    }
    if request.param == "s3":
        return Store(request.getfixturevalue("object_store").url)
    fsspec.register_implementation("fileserver", FileServer, clobber=True)
    return Store(urls[request.param])


class FileServer(LocalFileSystem):
    """A server such as SFTP's: it shows a file while it is being written."""

    protocol = "fileserver"
    calls: ClassVar[list[str]] = []

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self.calls.append(f"write {os.path.basename(path)[:1]}")
        super().pipe_file(path, value, mode)

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        self.calls.append(f"move to {os.path.basename(path2)}")
        os.replace(path1, path2)


def test_put_and_get(store: Store) -> None:
    assert not store.exists(Kind.MASK, DIGEST)
    assert store.put(Kind.MASK, DIGEST, b"pixels") is True
    assert store.put(Kind.MASK, DIGEST, b"other") is False
    assert store.exists(Kind.MASK, DIGEST)
    assert not store.exists(Kind.IMAGE, DIGEST)
    assert store.get(Kind.MASK, DIGEST) == b"pixels"


def test_put__replace_writes_over_a_damaged_file(store: Store) -> None:
    store.put(Kind.IMAGE, DIGEST, b"damaged")
    assert store.put(Kind.IMAGE, DIGEST, b"whole", replace=True) is True
    assert store.get(Kind.IMAGE, DIGEST) == b"whole"


def test_digests__of_each_kind(store: Store) -> None:
    assert store.digests(Kind.MASK) == set()
    store.put(Kind.MASK, DIGEST, b"1")
    store.put(Kind.MASK, "cd" * 32, b"2")
    store.put(Kind.MODEL, "ef" * 32, b"3")
    assert store.digests(Kind.MASK) == {DIGEST, "cd" * 32}
    assert store.digests(Kind.MODEL) == {"ef" * 32}


def test_fetch__missing_is_none(store: Store) -> None:
    assert store.fetch(Kind.MASK, DIGEST) is None
    store.put(Kind.MASK, DIGEST, b"1")
    assert store.fetch(Kind.MASK, DIGEST) == b"1"


def test_put__file_server_shows_a_file_when_it_is_whole(tmp_path: Path) -> None:
    fsspec.register_implementation("fileserver", FileServer, clobber=True)
    FileServer.calls.clear()
    Store(f"fileserver://{tmp_path}/store").put(Kind.MASK, DIGEST, b"pixels")
    assert FileServer.calls == ["write .", f"move to {DIGEST}.png"]
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == [f"{DIGEST}.png"]


def test_get__missing_says_what_to_do(store: Store) -> None:
    with pytest.raises(WorkspaceError, match=rf"{DIGEST}\.png is missing from the store: run"):
        store.get(Kind.IMAGE, DIGEST)


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def _files(store: Store) -> list[str]:
    return [name for _, _, names in os.walk(store.url) for name in names]


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_put__full_disk_leaves_nothing(
    folder: Store, monkeypatch: pytest.MonkeyPatch, fails: str, refusal: Refusal
) -> None:
    monkeypatch.setattr(os, fails, _full_disk)
    with refusal(WorkspaceError):
        folder.put(Kind.IMAGE, DIGEST, b"pixels")
    assert _files(folder) == []
    monkeypatch.undo()
    assert folder.put(Kind.IMAGE, DIGEST, b"pixels") is True


def test_put__full_disk_keeps_the_file_that_it_would_replace(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put(Kind.IMAGE, DIGEST, b"old")
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(WorkspaceError):
        folder.put(Kind.IMAGE, DIGEST, b"new", replace=True)
    assert folder.get(Kind.IMAGE, DIGEST) == b"old"
    assert len(_files(folder)) == 1


def test_put__file_is_whole_when_its_name_appears(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    rename = os.replace

    def watched(source: str, target: str) -> None:
        assert not os.path.exists(target)
        seen.append(Path(source).read_bytes())
        rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    folder.put(Kind.IMAGE, DIGEST, b"pixels")
    assert seen == [b"pixels"]


def test_digests__parts_left_by_a_killed_process_are_none(folder: Store) -> None:
    folder.put(Kind.IMAGE, DIGEST, b"pixels")
    left = Path(folder.path(Kind.IMAGE, DIGEST)).with_name(".0123.part")
    left.write_bytes(b"pix")
    left.with_name(".0123.png").write_bytes(b"pix")
    assert folder.digests(Kind.IMAGE) == {DIGEST}


@pytest.mark.parametrize("at", ["store", "store/images", "store/images/ab"])
def test_put__path_is_a_file(folder: Store, tmp_path: Path, at: str, refusal: Refusal) -> None:
    (tmp_path / at).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / at).write_text("in the way")
    with refusal(WorkspaceError):
        folder.put(Kind.IMAGE, DIGEST, b"pixels")
    assert (tmp_path / at).read_text() == "in the way"


@pytest.mark.parametrize("url", ["nosuch://bucket/prefix", "nosuch:://x"])
def test_store__unknown_protocol(url: str) -> None:
    with pytest.raises(WorkspaceError, match=f"store {url} can't be used"):
        Store(url)


def test_folder_in_the_place_of_a_file(folder: Store) -> None:
    path = Path(folder.path(Kind.IMAGE, DIGEST))
    path.mkdir(parents=True)
    for use in (folder.exists, folder.get, lambda *args: folder.put(*args, b"x")):
        with pytest.raises(OccupiedError, match="is a folder, and the store keeps a file there"):
            use(Kind.IMAGE, DIGEST)
    assert path.is_dir()


def test_flush_names__each_folder_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders above them too, as long as the folders themselves may be new."""
    flushed: list[str] = []
    monkeypatch.setattr(store_module, "flush_folder", lambda path: flushed.append(path.name))
    digests = [DIGEST, DIGEST[:-1] + "0", "cd" * 32]
    for digest in digests:
        store.put(Kind.MASK, digest, b"pixels")
    store.flush_names(Kind.MASK, digests)
    store.flush_names(Kind.MASK, digests)
    first = ["ab", "cd", "masks", "store"]
    assert sorted(flushed) == (sorted([*first, "ab", "cd"]) if store.local else [])


def test_flush_names__disk_that_fails_is_told(
    folder: Store, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    folder.put(Kind.MASK, DIGEST, b"pixels")

    def fails(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with refusal(WorkspaceError):
        folder.flush_names(Kind.MASK, [DIGEST])


def test_flush_names__network_drive_that_can_t(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put(Kind.MASK, DIGEST, b"pixels")

    def refuses(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuses)
    folder.flush_names(Kind.MASK, [DIGEST])
