"""A store at an S3 server that fails: one line for each fault, bounded waiting, whole files or none."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.errors import StoreError, WorkspaceError
from ddiseg.workspace import remote_files
from ddiseg.workspace.store import Kind, Store
from ddiseg.workspace.store_url import checked_store
from tests.object_store import READER, Fault, ObjectStore, S3Server, set_environment
from tests.wording import Refusal

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less than a person does."""
    monkeypatch.setattr(remote_files, "TRIES", 2)
    monkeypatch.setattr(remote_files, "READ", 5)
    monkeypatch.setattr(remote_files, "CONNECT", 1)


@pytest.fixture
def store(object_store: ObjectStore) -> Store:
    """A store with one file."""
    store = Store(object_store.url)
    store.put(Kind.MASK, DIGEST, b"12345678")
    object_store.faults.clear()
    return store


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [Fault.SLOW_DOWN, Fault.INTERNAL, Fault.RESET, Fault.RESET_AFTER, Fault.HALF_BODY]
)
@pytest.mark.parametrize("use", ["get", "put", "exists", "digests"])
def test_one_fault__is_tried_again(
    store: Store, object_store: ObjectStore, fault: Fault, use: str
) -> None:
    object_store.faults.add(fault, numbers=[1])
    other = "cd" * 32
    if use == "get":
        assert store.get(Kind.MASK, DIGEST) == b"12345678"
    elif use == "put":
        store.put(Kind.MASK, other, b"new", replace=True)
        assert object_store.objects()[f"prefix/masks/cd/{other}.png"] == b"new"
    elif use == "exists":
        assert store.exists(Kind.MASK, DIGEST)
    else:
        assert store.digests(Kind.MASK) == {DIGEST}
    assert object_store.faults.met == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", [each for each in Fault if each is not Fault.WRONG_CONTENT])
def test_lasting_fault__is_one_line(
    store: Store,
    object_store: ObjectStore,
    fault: Fault,
    wording: SnapshotAssertion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_files, "TRIES", 1)
    monkeypatch.setattr(remote_files, "READ", 0.3)
    object_store.faults.add(fault, seconds=0.5)
    said = set()
    for use in (_get, _put, _exists, _digests):
        try:
            use(Store(object_store.url))
        except StoreError as error:
            said.add(str(error))
    assert "\n".join(sorted(said)) == wording
    assert object_store.objects()[f"prefix/masks/ab/{DIGEST}.png"] in (b"12345678", b"x" * 8)


def _get(store: Store) -> None:
    store.get(Kind.MASK, DIGEST)


def _put(store: Store) -> None:
    store.put(Kind.MASK, DIGEST, b"x" * 8, replace=True)


def _exists(store: Store) -> None:
    store.exists(Kind.MASK, DIGEST)


def _digests(store: Store) -> None:
    store.digests(Kind.MASK)


@pytest.mark.slow
def test_outage__is_waited_for_once(
    store: Store, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.faults.add(Fault.INTERNAL)
    for use in (_get, _get, _put, _exists, _digests):
        with pytest.raises(StoreError) as error:
            use(store)
        assert error.value.is_outage
    assert object_store.faults.count() == 2  # the tries of the first
    object_store.faults.clear()
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + remote_files.PAUSE)
    _get(store)


def test_put__damaged_on_its_way_is_refused(
    store: Store, object_store: ObjectStore, refusal: Refusal
) -> None:
    object_store.faults.add(Fault.WRONG_CONTENT, method="PUT")
    with refusal(StoreError):
        store.put(Kind.MASK, "cd" * 32, b"12345678")
    assert object_store.keys() == [f"prefix/masks/ab/{DIGEST}.png"]


def test_put__broken_off_leaves_nothing(store: Store, object_store: ObjectStore) -> None:
    object_store.faults.add(Fault.RESET, method="PUT")
    with pytest.raises(StoreError):
        store.put(Kind.MASK, "cd" * 32, b"12345678")
    assert object_store.keys() == [f"prefix/masks/ab/{DIGEST}.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
        {"AWS_ENDPOINT_URL_S3": "http://no.such.host.invalid:9000"},
        {"AWS_ENDPOINT_URL_S3": "https://127.0.0.1:PORT"},
        {"AWS_ENDPOINT_URL_S3": "not a url"},
        {"AWS_ACCESS_KEY_ID": "AKIAOTHER"},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_DEFAULT_REGION": "eu-central-1"},
        {"AWS_DEFAULT_REGION": "no region"},
        {"AWS_PROFILE": "nobody"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_setting_of_the_user__that_is_wrong(
    s3_server: S3Server,
    object_store: ObjectStore,
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    port = s3_server.endpoint.rpartition(":")[2]
    given = {name: value.replace("PORT", port) for name, value in variables.items()}
    set_environment(monkeypatch, {**s3_server.environment(), **given})
    monkeypatch.setattr(remote_files, "TRIES", 1)
    with refusal(StoreError):
        Store(object_store.url).get(Kind.MASK, DIGEST)


def test_read_only_key__reads_and_says_what_it_may_not(
    store: Store,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    reads = {**s3_server.environment(), "AWS_ACCESS_KEY_ID": READER}
    set_environment(monkeypatch, reads)
    reader = Store(store.url)
    assert reader.get(Kind.MASK, DIGEST) == b"12345678"
    assert reader.exists(Kind.MASK, DIGEST)
    assert reader.digests(Kind.MASK) == {DIGEST}
    with refusal(StoreError):
        reader.put(Kind.MASK, DIGEST, b"12345678", replace=True)


@pytest.mark.parametrize(
    "prefix", ["", "/", "/with spaces/and ünïcode+%20&=", "/a@b:c", "/deep/er/"]
)
def test_prefix__of_any_name(object_store: ObjectStore, prefix: str) -> None:
    store = Store(checked_store(f"s3://{object_store.bucket}{prefix}"))
    store.put(Kind.MASK, DIGEST, b"1")
    inside = prefix.strip("/") + "/" * bool(prefix.strip("/"))
    assert object_store.keys() == [f"{inside}masks/ab/{DIGEST}.png"]
    assert store.digests(Kind.MASK) == {DIGEST}
    assert store.fetch(Kind.MASK, DIGEST) == b"1"


def test_list_once__asks_for_none_that_was_not_there(
    store: Store, object_store: ObjectStore
) -> None:
    store.list_once(Kind.MASK)
    object_store.faults.clear()
    assert store.fetch(Kind.MASK, "cd" * 32) is None
    assert object_store.faults.count() == 0
    store.put(Kind.MASK, "cd" * 32, b"2", replace=True)
    assert store.fetch(Kind.MASK, "cd" * 32) == b"2"
    assert store.fetch(Kind.MASK, DIGEST) == b"12345678"


def test_requests__one_for_each_use(store: Store, object_store: ObjectStore) -> None:
    used = []
    for use in (_get, _put, _exists):
        object_store.faults.clear()
        use(store)
        used.append([each.method for each in object_store.faults.requests])
    assert used == [["GET"], ["PUT"], ["HEAD"]]


@pytest.mark.slow
def test_many_threads__lose_nothing(store: Store, object_store: ObjectStore) -> None:
    object_store.faults.add(Fault.SLOW_DOWN, share=0.02, seed=1)
    object_store.faults.add(Fault.RESET, share=0.02, seed=2)
    digests = [f"{number:064x}" for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda digest: store.put(Kind.MASK, digest, digest.encode()), digests))
        read = list(pool.map(lambda digest: store.get(Kind.MASK, digest), digests))
    assert read == [digest.encode() for digest in digests]
    assert object_store.faults.met > 0


def test_missing_package__says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    with refusal(WorkspaceError):
        Store("gs://bucket/prefix")


def test_model__larger_than_a_part(store: Store, object_store: ObjectStore) -> None:
    """Above 100 MB, s3fs writes in parts of 50 MB: here smaller ones."""
    digest = "ef" * 32
    write = store._remote._fs.pipe_file  # type: ignore[union-attr]
    store._remote._fs.pipe_file = functools.partial(write, chunksize=5 << 20)  # type: ignore[union-attr]
    try:
        data = bytes(range(256)) * (11 << 12)
        store.put(Kind.MODEL, digest, data)
    finally:
        store._remote._fs.pipe_file = write  # type: ignore[union-attr]
    assert object_store.faults.count("POST") == 2  # begun and completed
    assert store.get(Kind.MODEL, digest) == data
