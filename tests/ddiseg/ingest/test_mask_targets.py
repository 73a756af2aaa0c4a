"""Masks find their photograph by path, name, and name without additions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotation_protocol import load_protocol
from ddiseg.catalogue.tables import Image as ImageRow
from ddiseg.errors import InputError
from ddiseg.ingest.labelled_masks import Labels, import_labelled_masks
from ddiseg.ingest.mask_files import MaskFile, import_masks
from ddiseg.ingest.mask_targets import PhotographNames, find_targets, parse_suffixes
from ddiseg.ingest.photographs import import_photographs
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import coco_file, run, run_masks, told, write
from tests.wording import Refusal

Folder = Callable[..., Path]

SIZE = (16, 24)


def read(
    workspace: Workspace,
    *photographs: str,
    dataset: str | None = None,
    suffixes: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the path of the photograph of each mask, or why there is none."""
    files = [MaskFile(f"{p}.png", p, lambda: np.zeros(SIZE), (0,)) for p in photographs]
    targets = find_targets(workspace, files, suffixes, dataset)
    paths = {i: path for path, i in workspace.catalogue.images.source_paths()}
    for file in files:
        try:
            yield paths[targets.of(file).id]
        except InputError as error:
            yield str(error)


def of(workspace: Workspace, *photographs: str, **options: Any) -> list[str]:
    return list(read(workspace, *photographs, **options))


@pytest.fixture
def mirrored(workspace: Workspace, folder: Folder) -> Workspace:
    import_photographs(workspace, folder("foo/0000.png", "bar/0000.png", "bar/only.png"))
    return workspace


def test_of__mirrored_folders(mirrored: Workspace) -> None:
    assert of(mirrored, "foo/0000", "bar/0000") == ["foo/0000.png", "bar/0000.png"]


def test_of__another_root(mirrored: Workspace) -> None:
    assert of(mirrored, "masks/v1/bar/0000", "masks/v1/foo/0000") == [
        "bar/0000.png",
        "foo/0000.png",
    ]


def test_of__photographs_imported_from_further_up(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("train/images/0.png", "val/images/0.png"))
    assert of(workspace, "val/masks/0") == ["val/images/0.png"]
    assert of(workspace, "train/0") == ["train/images/0.png"]


def test_of__only_the_name(mirrored: Workspace) -> None:
    assert of(mirrored, "elsewhere/only") == ["bar/only.png"]


def test_of__ambiguous(mirrored: Workspace, refusal: Refusal) -> None:
    (reason,) = of(mirrored, "0000")
    with refusal(InputError):
        raise InputError(reason)


def test_of__photograph_of_another_folder_is_missing(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("foo/0000.png"))
    first, second = of(workspace, "bar/0000", "foo/0000")
    assert first == (
        "the only image of this name is foo/0000.png, whose mask is foo/0000.png: import the "
        "photograph of this one"
    )
    assert second == "foo/0000.png"
    assert of(workspace, "bar/0000") == ["foo/0000.png"]  # masks may lie in any folder


def test_of__path_equal_before_deeper(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("foo/0.png", "foo/bar/0.png"))
    assert of(workspace, "foo/0", "foo/bar/0") == ["foo/0.png", "foo/bar/0.png"]


def test_of__the_folder_next_to_the_file_counts_most(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("x/b/0.png", "a/y/0.png"))
    assert of(workspace, "a/b/0") == ["x/b/0.png"]


def test_of__two_datasets(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("a.png", name="one"))
    import_photographs(workspace, folder("a.png", name="two", first_seed=9))
    (reason,) = of(workspace, "a")
    assert reason == "2 images have this name (#1, #2): say which with --dataset NAME"
    assert of(workspace, "a", dataset="two") == ["a.png"]


def test_of__upload_prefix(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("t.png", "0123abcd-u.png", "u.png"))
    assert of(workspace, "0123abcd-t", "upload/1/89abcdef-u") == ["t.png", "u.png"]
    assert of(workspace, "0123abcd-u") == ["0123abcd-u.png"]  # a photograph of exactly this name
    assert "no image has this name" in of(workspace, "0123ABCDE-t")[0]


def test_of__suffix(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("ISIC_1.jpg.png", "ISIC_2.png", "x_mask.png"))
    offered = (
        "no image has this name, but one has it without _segmentation: give --suffix _segmentation"
    )
    assert of(workspace, "ISIC_2_segmentation") == [offered]
    options = {"suffixes": ["_segmentation", "_mask"]}
    assert of(workspace, "ISIC_2_segmentation", **options) == ["ISIC_2.png"]
    assert of(workspace, "x_mask", **options) == ["x_mask.png"]
    assert of(workspace, "0123abcd-ISIC_2_mask", **options) == ["ISIC_2.png"]
    # A number tells one mask of several, not another way to write the name.
    assert of(workspace, "ISIC_2_1") == ["no image has this name: import the photographs first"]


def test_of__two_endings(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("a.png"))
    assert of(workspace, "a.png") == ["a.png"]  # the mask a.png.png


def test_of__accents_of_another_system(workspace: Workspace, folder: Folder) -> None:
    import_photographs(workspace, folder("Jos\u00e9.png"))
    assert of(workspace, "Jose\u0301") == ["Jos\u00e9.png"]


FOLDERS = st.lists(st.sampled_from("ab"), max_size=3).map("/".join)


@pytest.mark.property
@given(st.sets(FOLDERS, min_size=1, max_size=5), st.sampled_from(["", "m/", "m/n/"]))
def test_of__every_mirrored_tree(folders: set[str], root: str) -> None:
    places = sorted(f"{f}/0" if f else "0" for f in folders)
    images = {i: ImageRow(id=i, dataset_id=1) for i, _ in enumerate(places)}
    sources = [(f"{place}.jpg", i) for i, place in enumerate(places)]
    files = [MaskFile(p, root + p, lambda: np.zeros(SIZE), (0,)) for p in places]
    targets = PhotographNames({"0": sources}, {}, images).find(files)
    for place, file in enumerate(files):
        try:
            assert targets.of(file).id == place  # never another's
        except InputError:
            assert root  # two trees below one root may look alike; equal paths never do


@pytest.mark.parametrize("text", ["", "_a,,_b", "a/b"])
def test_parse_suffixes__refused(text: str, refusal: Refusal) -> None:
    with refusal(InputError):
        parse_suffixes([text])


def test_parse_suffixes() -> None:
    assert parse_suffixes(["_segmentation, _mask", "_mask"]) == ("_segmentation", "_mask")


ROBOFLOW = "_jpg.rf." + "0123456789abcdef" * 2


def test_of__roboflow(workspace: Workspace, folder: Folder) -> None:
    exact = f"v{ROBOFLOW}.png"
    import_photographs(workspace, folder("t.png", "u.jpg", "u.png", "v.jpg", exact))
    names = (f"t{ROBOFLOW}", f"train/u{ROBOFLOW}", f"v{ROBOFLOW}")
    assert of(workspace, *names) == ["t.png", "u.jpg", exact]
    assert of(workspace, f"t{ROBOFLOW}_mask", suffixes=("_mask",)) == ["t.png"]
    assert "no image has this name" in of(workspace, f"t{ROBOFLOW[:-1]}")[0]


@pytest.mark.parametrize(("photograph", "name"), [("t.png", None), ("t 1.png", "t 1.png")])
def test_import__coco_of_roboflow(
    workspace: Workspace, folder: Folder, tmp_path: Path, photograph: str, name: str | None
) -> None:
    """`extra.name` tells a name that Roboflow changed by more than its addition."""
    photos = folder(photograph)
    document = coco_file((f"{photograph[:-4].replace(' ', '-')}{ROBOFLOW}.jpg",))
    document["images"][0]["extra"] = {"name": name}
    path = write(tmp_path / "labels", document)
    assert list(told(run(workspace, path, photographs=photos).masks).values()) == ["added"]
    assert list(told(run_masks(workspace, path).outcomes).values()) == ["unchanged"]


def test_inside__subset_of_one_folder(mirrored: Workspace, tmp_path: Path) -> None:
    images = {path: image_id for path, image_id in mirrored.catalogue.images.source_paths()}
    mirrored.catalogue.subsets.store({"foo": [images["foo/0000.png"]]}, {}, "anna")
    for path in ("foo/0000.png", "bar/0000.png"):
        (tmp_path / "m" / path).parent.mkdir(parents=True)
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "m" / path)
    done = import_masks(mirrored, tmp_path / "m", format_name="png", annotator="a", subset="foo")
    assert done.outcomes[0].name == "foo/0000.png"
    assert len(done.outcomes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0123abcd-a.png", "upload/3/0123abcd-a.png", "photos/a.png"])
def test_import__coco_of_uploads(
    workspace: Workspace, folder: Folder, tmp_path: Path, name: str
) -> None:
    import_photographs(workspace, folder("a.png"))
    region = {"segmentation": [[2, 2, 8, 2, 8, 6, 2, 6]], "bbox": [2, 2, 6, 4], "area": 24}
    document = {
        "images": [{"id": 1, "file_name": name, "width": 24, "height": 16}],
        "categories": [{"id": 1, "name": "lesion"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, **region}],
    }
    (tmp_path / "c.json").write_text(json.dumps(document))
    labels = Labels(load_protocol())
    done = import_labelled_masks(
        workspace, tmp_path / "c.json", format_name="coco", labels=labels, annotator="a"
    )
    assert [o.outcome.value for o in done.outcomes] == ["added"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_find_targets__looked_up_as_if_all_were_read(
    workspace: Workspace, folder: Folder, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random names with endings, dots, upload prefixes and accents in both spellings."""
    rng = np.random.default_rng(seed)
    stems = [
        "a",
        "a.b",
        "a_mask",
        "0123abcd-a",
        "\u00e9",
        "e\u0301",
        "b c",
        "a.jpg",
        "x_png.rf." + "0" * 32,
    ]
    names = [f"{rng.choice(['', 'p/', 'p/q/'])}{stem}.png" for stem in (*stems, *stems[:4])]
    import_photographs(workspace, folder(*dict.fromkeys(names)))
    masks = [
        str(rng.choice(stems)) + str(rng.choice(["", "_mask", "-seg", ".png"])) for _ in range(30)
    ]
    found = list(read(workspace, *masks, suffixes=["-seg"]))
    monkeypatch.setattr("ddiseg.ingest.mask_targets._LOOKED_UP", 0)
    assert found == list(read(workspace, *masks, suffixes=["-seg"]))
    assert any("no image" not in each for each in found)
