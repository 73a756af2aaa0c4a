"""What is a COCO file, and what is none."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ddiseg.errors import InputError
from ddiseg.ingest.coco import read_coco
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import coco_file, run, write
from tests.wording import Refusal


def test_read_coco__ids_may_be_zero_or_texts(photos: Path) -> None:
    document = coco_file()
    document["images"][1]["id"] = document["annotations"][1]["image_id"] = "b"
    coco = read_coco(write(photos, document))
    assert [len(image.annotations) for image in coco.images] == [1, 1]
    assert not coco.refused


def test_read_coco__prints_nothing(photos: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        read_coco(write(photos, coco_file()))
    assert printed.getvalue() == ""


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "\udcff",
        "[" * 100_000,
        "",
        [],
        {"annotations": []},
        {"images": {}},
        [{"data": {}, "annotations": []}],
        {**coco_file(), "categories": [{"name": "skin"}]},
        {**coco_file(), "categories": [{"id": 0, "name": "skin"}, {"id": 0, "name": "pen"}]},
    ],
)
def test_import__no_coco_file(
    workspace: Workspace, photos: Path, document: Any, refusal: Refusal
) -> None:
    path = photos / "labels.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with refusal(InputError) as raised:
        run(workspace, path)
    assert "\n" not in str(raised.value)
    assert not workspace.catalogue.images.datasets()


def test_import__folder_with_none_or_several(
    workspace: Workspace, photos: Path, refusal: Refusal
) -> None:
    with refusal(InputError):
        run(workspace, photos)
    write(photos, "[]", "x.json")
    with refusal(InputError):
        run(workspace, photos)
    write(photos, "[]", "y.json")
    with refusal(InputError):
        run(workspace, photos)
    for part in ("train", "valid"):
        write(photos, coco_file(), f"{part}/_annotations.coco.json")
    with refusal(InputError):
        run(workspace, photos)
    with refusal(InputError):
        run(workspace, photos / "absent.json")
