"""Masks that are labelled in part, in every release format and back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.errors import InputError
from ddiseg.formats import LABELLED_MASKS, MASKS, guess_format
from ddiseg.ingest.labelled_masks import Labels, import_labelled_masks
from ddiseg.ingest.mask_files import import_masks
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from ddiseg.workspace.verify import verify
from tests.ddiseg.release.conftest import Builder
from tests.wording import Refusal


@pytest.fixture
def partial(builder: Builder) -> NDArray[np.uint8]:
    """The mask of a.png: a lesion on skin, a row of background, the right side not labelled."""
    mask = np.full((12, 10), 4, np.uint8)
    mask[3:7, 2:6], mask[0], mask[:, 7:] = 1, 0, 255
    builder.mask(builder.image("a.png"), mask)
    return mask


def test_png__keeps_unlabelled_pixels(
    builder: Builder, partial: NDArray[np.uint8], tmp_path: Path
) -> None:
    done = write_release(
        Release.gather(builder.workspace, keep_names=True), "png", tmp_path / "out"
    )
    data = (tmp_path / "out" / "masks" / "a.png").read_bytes()
    np.testing.assert_array_equal(masks.decode_png(data), partial)
    assert json.loads((tmp_path / "out/classes.json").read_text())["unlabelled"] == 255
    assert done.manifest["partly_labelled"] == {"images": 1, "unlabelled_pixels": 36}
    with open(tmp_path / "out" / "metadata.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["unlabelled"] == "36"
    assert not verify(builder.workspace).problems


@pytest.mark.parametrize("below", ["", "masks"])
@pytest.mark.parametrize("known_by", ["ddiseg-release.json", "classes.json"])
def test_png__comes_back_as_it_stands(
    builder: Builder, partial: NDArray[np.uint8], tmp_path: Path, below: str, known_by: str
) -> None:
    """255 is a pixel without a class in a release of ours, and a value without meaning elsewhere."""
    out = tmp_path / "out"
    write_release(Release.gather(builder.workspace, keep_names=True), "png", out, images=False)

    def run() -> list[str]:
        done = import_masks(builder.workspace, out / below, format_name="png", annotator="reader-1")
        return [o.outcome.value for o in done.outcomes]

    for name in {"ddiseg-release.json", "classes.json"} - {known_by}:
        (out / name).unlink()
    assert run() == ["unchanged"]
    (out / known_by).unlink()
    assert run() == ["refused"]


@pytest.mark.parametrize("kind", ["coco", "png", "sddi"])
def test_guess_format__release(builder: Builder, tmp_path: Path, kind: str) -> None:
    """With its photographs a COCO release looks like a folder of PNG masks, too."""
    builder.mask(builder.image("a.png"), np.full((12, 10), 4, np.uint8))
    write_release(Release.gather(builder.workspace, keep_names=True), kind, tmp_path / "out")
    assert guess_format(tmp_path / "out", MASKS, LABELLED_MASKS) == kind


def test_png__comes_back(builder: Builder, partial: NDArray[np.uint8], tmp_path: Path) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "png", tmp_path / "out")
    mapping = {0: 0, 1: 1, 4: 4, 255: 255}
    done = import_masks(
        builder.workspace,
        tmp_path / "out" / "masks",
        format_name="png",
        annotator="reader-1",
        mapping=mapping,
    )
    assert [o.outcome.value for o in done.outcomes] == ["unchanged"]


def test_coco__counts_unlabelled_pixels(
    builder: Builder, partial: NDArray[np.uint8], tmp_path: Path
) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "coco", tmp_path / "out")
    document = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [a["category_id"] for a in document["annotations"]] == [1, 4]
    assert [a["area"] for a in document["annotations"]] == [16, (partial == 4).sum()]
    assert document["images"][0]["attributes"]["unlabelled"] == 36
    assert "unlabelled" in document["info"]["description"]


def test_coco__import_does_not_take_unlabelled_for_background(
    builder: Builder, partial: NDArray[np.uint8], tmp_path: Path, refusal: Refusal
) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "coco", tmp_path / "out")

    def again(text: str | None) -> str:
        done = import_labelled_masks(
            builder.workspace,
            tmp_path / "out",
            format_name="coco",
            labels=Labels.parse(text, None, load_protocol()),
            annotator="reader-3",
        )
        (only,) = done.outcomes
        if only.note and only.outcome.value == "refused":
            raise InputError(only.note)
        return only.outcome.value

    with refusal(InputError):
        again(None)
    with refusal(InputError):  # it is accepted already; its pixels were read
        again("rest=ignore")


def test_sddi__leaves_the_image_out(
    builder: Builder, partial: NDArray[np.uint8], tmp_path: Path, refusal: Refusal
) -> None:
    builder.mask(builder.image("b.png"), np.full((12, 10), 4, np.uint8))
    done = write_release(
        Release.gather(builder.workspace, keep_names=True), "sddi", tmp_path / "out"
    )
    written = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.suffix in (".npy", ".png"))
    assert written == ["b.npy", "b.png"]
    (left_out,) = done.manifest["left_out"]
    assert left_out["name"] == "a.png"
    with refusal(InputError):
        raise InputError(left_out["reason"])
