"""Releases in a bucket of a real S3-compatible server, with faults on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddiseg.errors import InputError, StoreError
from ddiseg.outcomes import Outcome
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from ddiseg.release.upload import MARK, UploadedRelease, upload_release
from ddiseg.workspace.workspace import Workspace
from tests.object_store import Fault, ObjectStore
from tests.wording import Refusal


def uploaded(workspace: Workspace, bucket: ObjectStore, **given: bool) -> UploadedRelease:
    release = Release.gather(workspace, **given)
    return upload_release(release, "png", f"s3://{bucket.bucket}/release")


def test_upload(filled: Workspace, object_store: ObjectStore, tmp_path: Path) -> None:
    done = uploaded(filled, object_store)
    assert done.new
    write_release(Release.gather(filled), "png", tmp_path / "local")
    local = {
        f"release/{path.relative_to(tmp_path / 'local').as_posix()}": path.read_bytes()
        for path in (tmp_path / "local").rglob("*")
        if path.is_file()
    }
    stored = object_store.objects()
    made = json.loads(stored.pop("release/ddiseg-release.json"))
    ours = json.loads(local.pop("release/ddiseg-release.json"))
    assert stored == local
    assert {**made, "created_at": ""} == {**ours, "created_at": ""}
    puts = [r.path for r in object_store.faults.requests if r.method == "PUT"]
    assert puts[0].endswith(MARK)
    assert puts[-1].endswith("/ddiseg-release.json")
    assert not list((filled.root / "cache" / "exports").iterdir())


def test_upload__again(filled: Workspace, object_store: ObjectStore) -> None:
    uploaded(filled, object_store)
    before = object_store.objects()
    object_store.faults.clear()
    again = uploaded(filled, object_store)
    assert not again.new
    assert {o.outcome for o in again.outcomes} == {Outcome.UNCHANGED}
    assert object_store.faults.count("PUT") == 0
    assert object_store.objects() == before


def test_upload__broken_off(filled: Workspace, object_store: ObjectStore) -> None:
    object_store.faults.add(Fault.DENIED, method="PUT", path="metadata.csv")
    with pytest.raises(StoreError):
        uploaded(filled, object_store)
    keys = object_store.keys()
    assert f"release/{MARK}" in keys
    assert "release/ddiseg-release.json" not in keys
    object_store.faults.clear()
    assert uploaded(filled, object_store).new
    assert object_store.faults.count("PUT", "images/") == 0  # they were there
    assert f"release/{MARK}" not in object_store.objects()


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.RESET, Fault.RESET_AFTER])
def test_upload__faults_that_pass(
    filled: Workspace, object_store: ObjectStore, fault: Fault
) -> None:
    object_store.faults.add(fault, numbers=[2, 4], method="PUT")
    assert uploaded(filled, object_store).new
    assert object_store.faults.met == 2
    assert not uploaded(filled, object_store).new  # each object is what its manifest says


def test_upload__over_another_release(
    filled: Workspace, object_store: ObjectStore, refusal: Refusal
) -> None:
    uploaded(filled, object_store)
    filled.catalogue.images.correct_dataset("clinic", {"licence": "other"}, "me")
    object_store.write("x", b"")
    with pytest.raises(InputError, match=r"holds another release \(png, 1 image"):
        uploaded(filled, object_store)


def test_upload__over_another_unfinished_one(filled: Workspace, object_store: ObjectStore) -> None:
    object_store.write(f"release/{MARK}", b"another")
    with pytest.raises(InputError, match="another export that was broken off, or still runs"):
        uploaded(filled, object_store)
    assert object_store.keys() == [f"release/{MARK}"]


def test_upload__over_other_objects(filled: Workspace, object_store: ObjectStore) -> None:
    object_store.write("release/mine.txt", b"mine")
    with pytest.raises(InputError, match=r"no ddiseg release \(mine.txt\)"):
        uploaded(filled, object_store)
    assert object_store.keys() == ["release/mine.txt"]


def test_upload__changed_object(filled: Workspace, object_store: ObjectStore) -> None:
    uploaded(filled, object_store)
    data = object_store.objects()["release/metadata.csv"]
    object_store.write("release/metadata.csv", data[:-1] + b"?")
    with pytest.raises(InputError, match=r"changed or removed 1 object of it \(metadata.csv\)"):
        uploaded(filled, object_store)


@pytest.mark.parametrize("url", ["https://example.org/release", "ftp://example.org/release"])
def test_upload__no_object_store(filled: Workspace, url: str, refusal: Refusal) -> None:
    with refusal(InputError):
        upload_release(Release.gather(filled), "png", url)


def test_upload__into_the_store(filled: Workspace, object_store: ObjectStore) -> None:
    filled.store.url = f"s3://{object_store.bucket}/release"
    with pytest.raises(InputError, match="is in the store of this workspace"):
        uploaded(filled, object_store)
