"""COCO exports, read with pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from annotation_protocol import load_protocol
from ddiseg.images import content_hash
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from tests.ddiseg.release.conftest import Builder, copied, masks_of_photographs

PROTOCOL = load_protocol()

# pycocotools 2.0.11 itself, in decode and toBbox, under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def exported(builder: Builder, target: Path, **choices: Any) -> COCO:
    write_release(Release.gather(builder.workspace, **choices, keep_names=True), "coco", target)
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(target / "annotations.json")


def decoded(coco: COCO, image_id: int) -> NDArray[np.uint8]:
    """The mask of an image as the module's docstring says it is put together."""
    image = coco.imgs[image_id]
    mask = np.zeros((image["height"], image["width"]), np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds([image_id])):
        mask[coco.annToMask(annotation) == 1] = annotation["category_id"]
    return mask


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(st.lists(masks_of_photographs(), min_size=1, max_size=4))
def test_export__every_mask_decodes_to_the_catalogues(
    empty_workspace: Path,
    pairs: list[tuple[tuple[int, int], NDArray[np.uint8]]],
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        copied(empty_workspace, Path(folder) / "w") as builder,
    ):
        workspace = builder.workspace
        for number, (size, mask) in enumerate(pairs):
            builder.mask(builder.image(f"{number}.png", size), mask)
        coco = exported(builder, Path(folder) / "out")
        accepted = workspace.catalogue.masks.accepted()
        assert set(coco.imgs) == set(accepted)
        for image in workspace.catalogue.images.select():
            expected = workspace.mask_over(image, accepted[image.id])
            np.testing.assert_array_equal(decoded(coco, image.id), expected)
        for annotation in coco.anns.values():
            region = annotation["segmentation"]
            assert annotation["area"] == coco_mask.area(region) > 0
            assert annotation["bbox"] == coco_mask.toBbox(region).tolist()
            assert annotation["iscrowd"] == 0
            assert isinstance(region["counts"], str)


@pytest.mark.slow
def test_export__categories_are_the_protocols(stocked: Builder, tmp_path: Path) -> None:
    coco = exported(stocked, tmp_path / "out")
    assert {c["id"]: c["name"] for c in coco.cats.values()} == {
        c.index: c.name for c in PROTOCOL.classes if c.name != PROTOCOL.hole_fill
    }
    assert coco.dataset["info"]["background"] == PROTOCOL.hole_fill == "background"


@pytest.mark.slow
def test_export__attributes_licence_and_provenance(stocked: Builder, tmp_path: Path) -> None:
    coco = exported(stocked, tmp_path / "out")
    first = next(i for i in coco.imgs.values() if i["attributes"]["name"] == "000001.png")
    assert first["attributes"]["tone"] == "I-II"
    assert first["attributes"]["malignant"] is True
    assert first["attributes"]["diagnosis"] == "melanoma"
    (licence,) = [x for x in coco.dataset["licenses"] if x["id"] == first["license"]]
    assert (licence["name"], licence["url"]) == ("CC BY 4.0", "https://example.org/derm")
    annotation = coco.loadAnns(coco.getAnnIds([first["id"]]))[0]
    assert annotation["attributes"]["annotator"] == "reader-1"
    assert annotation["attributes"]["reviewer"] == "reader-2"
    assert annotation["attributes"]["accepted"] is True
    assert annotation["attributes"]["protocol_version"] == PROTOCOL.version


def test_export__fixed_mask_names_its_reviewer_and_who_drew_what_was_mended(
    builder: Builder, tmp_path: Path
) -> None:
    mask = np.full((12, 10), 4, np.uint8)
    fix = mask.copy()
    fix[2:5, 2:5] = 1
    builder.fixed(builder.image("000001.png"), mask, fix)
    coco = exported(builder, tmp_path / "out")
    ((image_id, image),) = coco.imgs.items()
    np.testing.assert_array_equal(decoded(coco, image_id), fix)
    for attributes in [image["attributes"], *(a["attributes"] for a in coco.anns.values())]:
        assert attributes["annotator"] == attributes["reviewer"] == "reader-2"
        assert attributes["parent_annotator"] == "reader-1"
        assert attributes["parent"] is not None


def test_export__names_who_reviewed_last(builder: Builder, tmp_path: Path) -> None:
    mask = np.full((12, 10), 4, np.uint8)
    image_id = builder.image("000001.png")
    builder.fixed(image_id, mask, mask // 4)
    builder.workspace.catalogue.images.reopen(image_id, "manager")
    builder.mask(image_id, mask, reviewer="reader-3")
    (annotation,) = exported(builder, tmp_path / "out").anns.values()
    said = annotation["attributes"]
    assert (said["annotator"], said["reviewer"]) == ("reader-1", "reader-3")
    assert said["parent"] is said["parent_annotator"] is None


def test_export__photographs_are_the_catalogues(stocked: Builder, tmp_path: Path) -> None:
    coco = exported(stocked, tmp_path / "out")
    for image in coco.imgs.values():
        with Image.open(tmp_path / "out/images" / image["file_name"]) as picture:
            assert not picture.info
            pixels = np.asarray(picture)
        assert content_hash(pixels) == image["attributes"]["content_hash"]


def test_export__predictions_only_where_asked_and_marked(stocked: Builder, tmp_path: Path) -> None:
    without = exported(stocked, tmp_path / "out")
    assert len(without.imgs) == 3
    coco = exported(stocked, tmp_path / "all", include_predictions=True)
    (predicted,) = [i for i in coco.imgs.values() if not i["attributes"]["accepted"]]
    assert predicted["attributes"]["name"] == "000004.png"
    for annotation in coco.loadAnns(coco.getAnnIds([predicted["id"]])):
        assert annotation["attributes"]["accepted"] is False
        assert annotation["attributes"]["model"] == "fedd-1"
        assert annotation["attributes"]["uncertainty"] == 0.1
        assert annotation["attributes"]["expected_iou"] == 0.75
    assert "1 prediction of a model" in coco.dataset["info"]["description"]


def test_export__skipped_image_has_no_prediction_to_release(
    stocked: Builder, tmp_path: Path
) -> None:
    catalogue = stocked.workspace.catalogue
    catalogue.images.skip(catalogue.images.find("000004.png").id, "blurry", None, "reader-1")
    assert len(exported(stocked, tmp_path / "all", include_predictions=True).imgs) == 3


def test_export__same_release_is_the_same_file(stocked: Builder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        exported(stocked, tmp_path / name)
    first, second = ((tmp_path / n / "annotations.json").read_bytes() for n in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("images", [True, False])
def test_export__without_photographs_names_the_readers_own(
    stocked: Builder, tmp_path: Path, images: bool
) -> None:
    release = Release.gather(stocked.workspace, keep_names=True)
    write_release(release, "coco", tmp_path / "out", images=images)
    document = json.loads((tmp_path / "out/annotations.json").read_bytes())
    names = {i["file_name"] for i in document["images"]}
    assert ("000002.png" in names) == images
    assert ("000002.jpg" in names) == (not images)
    assert (tmp_path / "out/images").exists() == images
