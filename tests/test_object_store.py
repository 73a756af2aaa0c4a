"""The server and the faults that the tests of object stores rely on."""

from __future__ import annotations

import fsspec
import pytest

from tests.object_store import Fault, ObjectStore


def _read(store: ObjectStore) -> bytes:
    fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    content: bytes = fs.cat_file(f"{store.bucket}/prefix/a b é")
    return content


@pytest.mark.slow
def test_faults(object_store: ObjectStore) -> None:
    fs, root = fsspec.core.url_to_fs(object_store.url, skip_instance_cache=True)
    fs.pipe_file(f"{root}/a b é", b"12345678")
    assert object_store.objects() == {"prefix/a b é": b"12345678"}
    object_store.faults.clear()
    object_store.faults.add(Fault.HALF_BODY, numbers=[1], method="GET")
    assert _read(object_store) == b"12345678"
    assert object_store.faults.count("GET") == 2
    object_store.faults.clear()
    object_store.faults.add(Fault.WRONG_CONTENT, method="GET")
    assert _read(object_store) == b"12344678"
    object_store.faults.clear()
    object_store.faults.add(Fault.RESET, numbers=[2])
    assert _read(object_store) == b"12345678"
    object_store.faults.clear()
    object_store.faults.add(Fault.DENIED)
    with pytest.raises(PermissionError):
        _read(object_store)
