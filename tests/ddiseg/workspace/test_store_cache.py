"""The cache of a remote store: bounded, the last used kept, and never a reason to fail."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddiseg import images
from ddiseg.errors import DamagedFileError
from ddiseg.workspace import store_cache
from ddiseg.workspace.settings import CacheSettings
from ddiseg.workspace.store import Kind, Store
from ddiseg.workspace.store_cache import StoreCache
from ddiseg.workspace.stored_files import read_photograph
from ddiseg.workspace.workspace import Workspace
from tests.object_store import Fault, ObjectStore


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def test_put__the_last_used_are_kept(tmp_path: Path) -> None:
    cache = StoreCache(tmp_path, 1000)
    for number in range(8):
        cache.put(f"images/{number}", bytes([number]) * 100)
        os.utime(tmp_path / "images" / str(number), (number, number))
    assert cache.get("images/0") == bytes(100)  # used now
    cache.put("images/8", b"8" * 200)
    assert cache.get("images/1") is None
    assert cache.get("images/0") is not None
    assert cache.get("images/8") is not None


@pytest.mark.property
@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 400), max_size=40), processes=st.integers(1, 3))
def test_size__stays_under_the_limit(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], processes: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    caches = [StoreCache(folder, 1000) for _ in range(processes)]
    for number, size in enumerate(sizes):
        caches[number % processes].put(f"masks/{number}", b"x" * size)
        assert _size(folder) <= 1000 * (1 + store_cache.UNSEEN * (processes - 1))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_put__disk_that_can_t_be_written_is_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store_cache, "atomic_write", fails)
    cache = StoreCache(tmp_path, 1000)
    with caplog.at_level(logging.WARNING):
        cache.put("images/1", b"1")
        cache.put("images/2", b"2")
    assert len(caplog.records) == 1
    assert cache.get("images/1") is None


@pytest.fixture
def photograph() -> images.Photograph:
    return np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def _stored(store: Store, photograph: images.Photograph) -> str:
    digest = images.content_hash(photograph)
    store.put(Kind.IMAGE, digest, images.encode_png(photograph))
    return digest


def test_read__second_one_asks_nothing(
    object_store: ObjectStore, tmp_path: Path, photograph: images.Photograph
) -> None:
    store = Store(object_store.url, lambda: StoreCache(tmp_path, 10_000))
    digest = _stored(store, photograph)
    object_store.faults.clear()
    for _ in range(3):
        assert (read_photograph(store, digest) == photograph).all()
    assert object_store.faults.count() == 1
    assert store.fetch(Kind.IMAGE, digest)  # what the store itself has
    assert len(list(tmp_path.rglob("*.png"))) == 1
    assert object_store.faults.count() == 2


def test_fetch__what_is_read_once_is_not_kept(
    object_store: ObjectStore, tmp_path: Path, photograph: images.Photograph
) -> None:
    store = Store(object_store.url, lambda: StoreCache(tmp_path, 10_000))
    assert store.fetch(Kind.IMAGE, _stored(store, photograph))
    assert not list(tmp_path.rglob("*.png"))


def test_read__damaged_copy_is_replaced(
    object_store: ObjectStore, tmp_path: Path, photograph: images.Photograph
) -> None:
    store = Store(object_store.url, lambda: StoreCache(tmp_path, 10_000))
    digest = _stored(store, photograph)
    read_photograph(store, digest)
    [copy] = [each for each in tmp_path.rglob("*.png")]
    whole = copy.read_bytes()
    copy.write_bytes(whole[:30])
    assert (read_photograph(store, digest) == photograph).all()
    assert copy.read_bytes() == whole


def test_read__wrong_on_its_way_is_read_again(
    object_store: ObjectStore, photograph: images.Photograph
) -> None:
    store = Store(object_store.url)
    digest = _stored(store, photograph)
    object_store.faults.add(Fault.WRONG_CONTENT, numbers=[1], method="GET")
    assert (read_photograph(store, digest) == photograph).all()
    assert object_store.faults.met == 1
    object_store.faults.add(Fault.WRONG_CONTENT, method="GET")
    with pytest.raises(DamagedFileError):
        read_photograph(store, digest)


def test_workspace__setting_switches_it_off(object_store: ObjectStore, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", store_url=object_store.url)
    assert workspace.store.cache is not None
    workspace.set(CacheSettings.settings()["store_gb"], 0.0, "tester")
    workspace.catalogue.close()
    again = Workspace.open(tmp_path / "w")
    again.catalogue.close()
    assert again.store.cache is None
    local = Workspace.create(tmp_path / "local")
    local.catalogue.close()
    assert local.store.cache is None
