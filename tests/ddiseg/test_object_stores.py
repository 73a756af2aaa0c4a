from __future__ import annotations

import functools

import pytest

from ddiseg.errors import InputError, StoreError
from ddiseg.object_stores import (
    MissingObjectError,
    ObjectStore,
    is_object_store,
    last_part,
    parent,
    without_secrets,
)
from ddiseg.workspace.remote_files import open_file_system
from tests.object_store import READER, SECRET, Fault
from tests.object_store import ObjectStore as Bucket
from tests.wording import Refusal


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pass@host:8443/a/b.png?X-Amz-Signature=s#f", "https://host:8443/a/b.png"),
        ("https://host/a?sig=1", "https://host/a"),
        ("s3://bucket/a?b#c/d.png", "s3://bucket/a?b#c/d.png"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("/folder/a?b", "/folder/a?b"),
    ],
)
def test_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_parts_of_a_url() -> None:
    assert parent("s3://b/a/c/") == "s3://b/a"
    assert last_part("s3://b/a/c?d.png") == "c?d.png"
    assert last_part("https://h/a%20b.png?x=/y") == "a b.png"
    assert last_part("https://h/..%2f..%2fetc") == "etc"
    assert last_part("s3://bucket") == "bucket"
    assert is_object_store("S3://b")
    assert not is_object_store("https://h")
    assert not is_object_store("s3")


def test_read_and_write(object_store: Bucket) -> None:
    store = ObjectStore(object_store.url)
    key = f"{store.root}/a.txt"
    assert store.write(key, b"one", new=True)
    assert not store.write(key, b"two", new=True)
    assert store.read(key) == b"one"
    assert [(e.path, e.size) for e in store.entries()] == [("a.txt", 3)]
    assert b"".join(store.chunks(key, 2)) == b"one"
    entry = store.facts(key)
    assert entry is not None
    assert entry.modified_ns > 10**18
    store.remove(key)
    assert store.facts(key) is None
    with pytest.raises(MissingObjectError):
        store.read(key)


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.INTERNAL, Fault.RESET, Fault.HALF_BODY])
def test_faults_that_pass(object_store: Bucket, fault: Fault) -> None:
    store = ObjectStore(object_store.url)
    store.write(f"{store.root}/a.txt", b"one" * 100)
    object_store.faults.add(fault, numbers=[1], method="GET")
    assert store.read(f"{store.root}/a.txt") == b"one" * 100
    assert object_store.faults.met == 1


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.EXPIRED, Fault.NO_BUCKET])
def test_faults_that_stay(object_store: Bucket, fault: Fault, refusal: Refusal) -> None:
    object_store.faults.add(fault)
    store = ObjectStore("s3://bucket/photos")
    with refusal(StoreError):
        list(store.entries())


def test_server_is_down(
    object_store: Bucket, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setattr("ddiseg.workspace.remote_files.TRIES", 1)
    with refusal(StoreError):
        list(ObjectStore("s3://bucket/down").entries())


def test_key_may_only_read(
    object_store: Bucket, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    object_store.write("photos/a.txt", b"a")
    own = functools.partial(open_file_system, own_client=True)
    monkeypatch.setattr("ddiseg.object_stores.open_file_system", own)
    store = ObjectStore(f"s3://{object_store.bucket}/photos")
    assert store.read(f"{store.root}/a.txt") == b"a"
    store.shown = "s3://bucket/photos"
    with refusal(StoreError):
        store.write(f"{store.root}/b.txt", b"b")


@pytest.mark.parametrize("url", ["s3://", "gs://bucket/a", "abfs://box/a"])
def test_cannot_be_opened(url: str, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    for package in ("gcsfs", "adlfs"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with refusal(InputError):
        ObjectStore(url)
