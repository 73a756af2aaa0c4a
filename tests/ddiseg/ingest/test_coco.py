"""What is a COCO file, and what is none."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddiseg.errors import InputError
from ddiseg.ingest.coco import read_coco
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import coco_file, run, write


@pytest.fixture
def photos(folder: Callable[..., Path]) -> Path:
    return folder("a.png", "b.png")


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
    ("document", "says"),
    [
        ("{", r"labels\.json is not JSON \(Expecting property name"),
        ("\udcff", r"labels\.json is not JSON"),
        ("[" * 100_000, r"labels\.json is not JSON"),
        ("", r"labels\.json is not JSON"),
        ([], "has no list called 'images'"),
        ({"annotations": []}, "has no list called 'images'"),
        ({"images": {}}, "has no list called 'images'"),
        ([{"data": {}, "annotations": []}], "'ddiseg masks import --as labelstudio'"),
        ({**coco_file(), "categories": [{"name": "skin"}]}, "category 'skin' has no id"),
        (
            {**coco_file(), "categories": [{"id": 0, "name": "skin"}, {"id": 0, "name": "pen"}]},
            "category 0 is both 'skin' and 'pen'",
        ),
    ],
)
def test_import__no_coco_file(workspace: Workspace, photos: Path, document: Any, says: str) -> None:
    path = photos / "labels.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=says) as raised:
        run(workspace, path)
    assert "\n" not in str(raised.value)
    assert not workspace.catalogue.images.datasets()


def test_import__folder_with_none_or_several(workspace: Workspace, photos: Path) -> None:
    with pytest.raises(InputError, match=r"no file ends in \.json"):
        run(workspace, photos)
    write(photos, "[]", "x.json")
    with pytest.raises(InputError, match=r"x\.json is no COCO file"):
        run(workspace, photos)
    write(photos, "[]", "y.json")
    with pytest.raises(InputError, match=r"no \.json in it has a list called 'images'"):
        run(workspace, photos)
    for part in ("train", "valid"):
        write(photos, coco_file(), f"{part}/_annotations.coco.json")
    with pytest.raises(InputError, match=r"has 2 COCO files .* import one at a time"):
        run(workspace, photos)
    with pytest.raises(InputError, match=r"/.*/absent\.json does not exist"):
        run(workspace, photos / "absent.json")
