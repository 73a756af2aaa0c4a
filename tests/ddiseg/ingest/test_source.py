"""Imports from a bucket of a real S3-compatible server, with faults on the way."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddiseg.cli.common import run
from ddiseg.cli.main import cli
from ddiseg.errors import InputError, StoreError
from ddiseg.ingest.photographs import PhotographImport, import_photographs
from ddiseg.ingest.source import everything, open_masks, open_source, photograph_facts
from ddiseg.outcomes import Outcome
from ddiseg.workspace.workspace import Workspace
from tests.object_store import Fault, ObjectStore
from tests.wording import Refusal


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def bucket(object_store: ObjectStore, pixels: Any) -> ObjectStore:
    """A bucket with photographs/sub/a.png and b.png, masks/a.png and photographs.csv."""
    for seed, name in enumerate(("a", "b")):
        object_store.write(f"photographs/sub/{name}.png", png(pixels(seed)))
    object_store.write("photographs/notes.txt", b"x")
    object_store.write("photographs/.hidden/c.png", b"x")
    object_store.write("photographs/folder/", b"")
    object_store.write("photographs.csv", b"file,tone\na.png,12\nb.png,56\n")
    object_store.write("masks/a.png", png(np.ones((16, 24), np.uint8)))
    return object_store


def imported(workspace: Workspace, url: str, **given: Any) -> PhotographImport:
    with open_source(workspace, url, photograph_facts) as source:
        return import_photographs(workspace, source, **given)


def test_import__prefix(workspace: Workspace, bucket: ObjectStore) -> None:
    url = f"s3://{bucket.bucket}/photographs"
    done = imported(workspace, url)
    assert [(o.name, o.outcome) for o in done.outcomes] == [
        ("sub/a.png", Outcome.ADDED),
        ("sub/b.png", Outcome.ADDED),
    ]
    assert done.dataset == "photographs"
    assert done.notes == ["files of other kinds left alone: 1 .txt"]
    [dataset] = workspace.catalogue.images.datasets()
    assert dataset.source == url
    bucket.faults.clear()
    again = imported(workspace, url)
    assert {o.outcome for o in again.outcomes} == {Outcome.UNCHANGED}
    assert bucket.faults.count("GET", r"\.png") == 0  # known by size and time, not read again


def test_import__changed_object(workspace: Workspace, bucket: ObjectStore, pixels: Any) -> None:
    imported(workspace, f"s3://{bucket.bucket}/photographs")
    bucket.write("photographs/sub/a.png", png(pixels(9)))
    done = imported(workspace, f"s3://{bucket.bucket}/photographs")
    assert [o.outcome for o in done.outcomes] == [Outcome.REFUSED, Outcome.UNCHANGED]


def test_import__ddi_layout(workspace: Workspace, bucket: ObjectStore, pixels: Any) -> None:
    table = ",DDI_ID,DDI_file,skin_tone,malignant,disease\n0,1,000001.png,56,True,melanoma\n"
    bucket.write("ddi/ddi_metadata.csv", table.encode())
    bucket.write("ddi/000001.png", png(pixels(3)))
    done = imported(workspace, f"s3://{bucket.bucket}/ddi/")
    assert done.dataset == "DDI"
    [image] = workspace.catalogue.images.select()
    assert (image.tone, image.malignant) == ("V-VI", True)


def test_import__in_place(workspace: Workspace, bucket: ObjectStore, refusal: Refusal) -> None:
    with refusal(InputError):
        imported(workspace, f"s3://{bucket.bucket}/photographs", in_place=True)
    assert not workspace.catalogue.images.select()


def test_import__own_store(workspace: Workspace, bucket: ObjectStore) -> None:
    workspace.store.url = f"s3://{bucket.bucket}/photographs/store"
    with pytest.raises(InputError, match="is the store of this workspace"):
        imported(workspace, f"s3://{bucket.bucket}/photographs")


@pytest.mark.parametrize(
    "place", ["ftp://host/a", "s3://none-such/photographs", "s3://{bucket}/none"]
)
def test_import__nothing_there(workspace: Workspace, bucket: ObjectStore, place: str) -> None:
    with pytest.raises(
        (InputError, StoreError), match=r"only from s3://|no such bucket|has no objects"
    ):
        imported(workspace, place.format(bucket=bucket.bucket))
    assert not workspace.catalogue.images.datasets()


def test_import__half_body_that_stays(workspace: Workspace, bucket: ObjectStore) -> None:
    bucket.faults.add(Fault.HALF_BODY, method="GET", path=r"sub/b\.png")
    with pytest.raises(StoreError, match="run the same command again"):
        imported(workspace, f"s3://{bucket.bucket}/photographs")
    bucket.faults.clear()
    done = imported(workspace, f"s3://{bucket.bucket}/photographs")
    assert len(workspace.catalogue.images.select()) == 2
    assert Outcome.REFUSED not in {o.outcome for o in done.outcomes}


def test_import__masks(
    workspace: Workspace, bucket: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--workspace", str(workspace.root)]
    url = f"s3://{bucket.bucket}"
    table = ["--metadata", f"{url}/photographs.csv", "--columns", "image=file,tone=tone"]
    assert run(cli, [*names, "import", f"{url}/photographs", *table]) == 0
    people = ["--annotator", "anna", "--reviewer", "ben"]
    assert run(cli, [*names, "masks", "import", f"{url}/masks", "--as", "png", *people]) == 0
    a, b = workspace.catalogue.images.select()
    assert (a.tone, b.tone) == ("I-II", "V-VI")
    assert list(workspace.catalogue.masks.accepted()) == [a.id]
    assert not list((workspace.root / "cache" / "sources").iterdir())
    capsys.readouterr()
    assert run(cli, [*names, "masks", "import", f"{url}/none", *people]) == 1
    assert capsys.readouterr().err.strip().endswith("/none has no objects: check bucket and prefix")


def test_import__masks_go_on(workspace: Workspace, bucket: ObjectStore) -> None:
    bucket.write("masks/b.png", png(np.ones((16, 24), np.uint8)))
    bucket.faults.add(Fault.DENIED, method="GET", path=r"masks/b\.png")
    with pytest.raises(StoreError), open_masks(workspace, f"s3://{bucket.bucket}/masks"):
        raise AssertionError("not copied whole")
    bucket.faults.clear()
    with open_masks(workspace, f"s3://{bucket.bucket}/masks") as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png"]
    assert bucket.faults.count("GET", r"masks/a\.png") == 0
    assert not folder.exists()


@pytest.mark.parametrize("file", ["rel", "rel/annotations.json"])
def test_import__coco(workspace: Workspace, bucket: ObjectStore, pixels: Any, file: str) -> None:
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 16, "width": 24}],
        "categories": [{"id": 1, "name": "lesion"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[2, 2, 9, 2, 9, 9]]}],
    }
    bucket.write("rel/annotations.json", json.dumps(document).encode())
    bucket.write("rel/images/a.png", png(pixels(5)))
    options = ["--annotator", "anna", "--rest", "skin"]
    command = ["--workspace", str(workspace.root), "import-coco", f"s3://{bucket.bucket}/{file}"]
    assert run(cli, [*command, *options]) == 0
    [dataset] = workspace.catalogue.images.datasets()
    assert dataset.name == "rel"
    [image] = workspace.catalogue.images.select()
    assert (image.name, image.state) == ("a.png", "submitted")


def test_messages_name_the_url(workspace: Workspace, bucket: ObjectStore) -> None:
    with (
        pytest.raises(InputError) as error,
        open_source(workspace, f"s3://{bucket.bucket}/masks", everything) as source,
    ):
        raise InputError(f"{source.path}/a.png is odd")
    assert str(error.value) == f"s3://{bucket.bucket}/masks/a.png is odd"
