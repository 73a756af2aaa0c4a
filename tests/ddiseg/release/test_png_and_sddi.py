"""The formats that write one file a mask."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from tests.ddiseg.release.conftest import Builder

SDDI = Path(__file__).parents[4] / "shared/data/sddi/ddi_labels"


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_png__masks_at_the_photographs_size_in_the_protocols_colours(
    stocked: Builder, tmp_path: Path
) -> None:
    write_release(Release.gather(stocked.workspace, keep_names=True), "png", tmp_path / "out")
    catalogue = stocked.workspace.catalogue
    accepted = catalogue.masks.accepted()
    written = rows(tmp_path / "out")
    assert len(written) == len(accepted) == 3
    for row in written:
        data = (tmp_path / "out" / row["mask"]).read_bytes()
        (image,) = catalogue.images.select(ids=[int(row["image_id"])])
        expected = stocked.workspace.mask_over(image, accepted[image.id])
        np.testing.assert_array_equal(masks.decode_png(data), expected)
        with Image.open(tmp_path / "out" / row["mask"]) as picture:
            palette = picture.getpalette()
        assert palette is not None
        assert tuple(palette[3:6]) == load_protocol().class_at(1).rgb
        with Image.open(tmp_path / "out" / row["image"]) as picture:
            assert picture.size == (image.width, image.height)


def test_png__metadata_and_classes(stocked: Builder, tmp_path: Path) -> None:
    catalogue = stocked.workspace.catalogue
    image = catalogue.images.find("000001.png")
    catalogue.subsets.store({"a": [image.id], "b": [image.id]}, {"seed": 1}, "tester")
    write_release(Release.gather(stocked.workspace, keep_names=True), "png", tmp_path / "out")
    row = next(r for r in rows(tmp_path / "out") if r["name"] == "000001.png")
    assert row["tone"] == "I-II"
    assert row["malignant"] == "true"
    assert row["fitzpatrick"] == ""
    assert row["subsets"] == "a;b"
    assert row["licence"] == "CC BY 4.0"
    assert row["content_hash"] == image.content_hash
    assert row["labelled_classes"] == "0;1;2;3;4"
    classes = json.loads((tmp_path / "out/classes.json").read_bytes())
    assert [c["name"] for c in classes["classes"]] == list(load_protocol().class_names)


@pytest.mark.parametrize("format_name", ["png", "sddi"])
def test_metadata__fixed_mask_names_its_reviewer_and_who_drew_what_was_mended(
    builder: Builder, tmp_path: Path, format_name: str
) -> None:
    builder.fixed(builder.image("a.png"), np.ones((12, 10), np.uint8), np.zeros((12, 10), np.uint8))
    write_release(Release.gather(builder.workspace, keep_names=True), format_name, tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    people = [row[name] for name in ("annotator", "reviewer", "parent_annotator")]
    assert people == ["reader-2", "reader-2", "reader-1"]


def test_png__text_with_commas_quotes_and_lines(builder: Builder, tmp_path: Path) -> None:
    hostile = 'naevus, "blue"\nsecond line; é'
    builder.mask(builder.image("a.png", diagnosis=hostile), np.ones((12, 10), np.uint8))
    write_release(Release.gather(builder.workspace, keep_names=True), "png", tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert row["diagnosis"] == hostile


def test_sddi__stretched_to_256_named_after_the_image(stocked: Builder, tmp_path: Path) -> None:
    write_release(Release.gather(stocked.workspace, keep_names=True), "sddi", tmp_path / "out")
    labels = sorted((tmp_path / "out/labels").iterdir())
    assert [p.name for p in labels] == ["000001.npy", "000002.npy", "000003.npy"]
    for path in labels:
        array = np.load(path)
        assert (array.dtype, array.shape) == (np.int32, (256, 256))
    image = stocked.workspace.catalogue.images.find("000001.png")
    mask = stocked.workspace.mask(stocked.workspace.catalogue.masks.accepted()[image.id])
    expected = np.asarray(Image.fromarray(mask).resize((256, 256), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(np.load(labels[0]), expected)


def test_sddi__mask_of_256_is_kept_exactly(builder: Builder, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 5, (256, 256), dtype=np.uint8)
    builder.mask(builder.image("000077.png", (30, 41)), mask)
    write_release(
        Release.gather(builder.workspace, keep_names=True), "sddi", tmp_path / "out", images=False
    )
    np.testing.assert_array_equal(np.load(tmp_path / "out/labels/000077.npy"), mask)


def test_sddi__published_mask_comes_out_byte_for_byte(builder: Builder, tmp_path: Path) -> None:
    published = sorted(SDDI.glob("testing/*/*.npy"))[:2]
    if not published:
        pytest.skip("the published sDDI masks (shared/data/sddi) are not here")
    for path in published:
        mask = masks.check_mask(masks.load_npy(path.read_bytes()), 5)
        builder.mask(builder.image(f"{path.stem}.png", (30, 41)), mask)
    write_release(
        Release.gather(builder.workspace, keep_names=True), "sddi", tmp_path / "out", images=False
    )
    for path in published:
        assert (tmp_path / "out/labels" / path.name).read_bytes() == path.read_bytes()
