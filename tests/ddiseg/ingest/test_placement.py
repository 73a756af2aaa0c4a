"""Masks of photographs that were turned upright at import, under every importer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import update
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue.tables import Source
from ddiseg.ingest.labelled_masks import import_labelled_masks
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.ingest.placement import AS_THEY_ARE, Geometry
from ddiseg.masks.orientation import turn_upright
from ddiseg.outcomes import FileOutcome
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import (
    HEIGHT,
    LESION,
    PROTOCOL,
    WIDTH,
    Labels,
    coco_file,
    drawn,
    write,
)
from tests.ddiseg.ingest.test_labelstudio import annotation, stroke, task

RAW = Geometry(raw_orientation=True)
#: The mask as it lies over the file's raw pixels.
MASK = np.where(LESION, 1, 4).astype(np.uint8)
MASK[0, :5] = 3

Import = Callable[..., FileOutcome]


@pytest.fixture
def photograph(workspace: Workspace, tmp_path: Path, pixels: Any) -> Callable[..., Path]:
    """Write the photograph a.png, of the size of MASK, with an EXIF orientation, and import it."""

    def make(orientation: int, picture: NDArray[np.uint8] | None = None) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x112] = orientation
        raw = pixels(1, WIDTH, HEIGHT) if picture is None else picture
        Image.fromarray(raw).save(folder / "a.png", exif=exif)
        import_photographs(workspace, folder)
        return folder

    return make


def as_png(workspace: Workspace, folder: Path, mask: NDArray[np.uint8], geometry: Geometry) -> Any:
    Image.fromarray(mask).save(folder / "a.png")
    return import_masks(workspace, folder, format_name="png", annotator="anna", geometry=geometry)


def as_coco(workspace: Workspace, folder: Path, mask: NDArray[np.uint8], geometry: Geometry) -> Any:
    """The lesion as a polygon, the rest as runs."""
    from ddiseg.masks import encode_classes

    document = coco_file(("a.png",))
    document["images"][0] |= {"height": mask.shape[0], "width": mask.shape[1]}
    document["categories"].append({"id": 3, "name": "ruler"})
    ys, xs = np.nonzero(mask == 1)
    x, y, right, low = (int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    outline = [x, y, right, y, right, low, x, low]
    rle = encode_classes(mask, [3, 4])
    document["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 0, "segmentation": [outline]},
        {"id": 2, "image_id": 0, "category_id": 3, "segmentation": rle[3]},
        {"id": 3, "image_id": 0, "category_id": 1, "segmentation": rle[4]},
    ]
    path = write(folder, document)
    options = {"labels": Labels(PROTOCOL), "annotator": "anna", "geometry": geometry}
    return import_labelled_masks(workspace, path, format_name="coco", **options)


def as_labelstudio(
    workspace: Workspace, folder: Path, mask: NDArray[np.uint8], geometry: Geometry
) -> Any:
    names = {1: "lesion", 3: "ruler", 4: "skin"}
    strokes = [stroke(name, mask == index) for index, name in names.items()]
    (folder / "e.json").write_text(json.dumps([task(annotation(*strokes), image="a.png")]))
    options = {"labels": Labels(PROTOCOL), "annotator": "anna", "geometry": geometry}
    return import_labelled_masks(workspace, folder / "e.json", format_name="labelstudio", **options)


@pytest.fixture(params=[as_png, as_coco, as_labelstudio])
def bring(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path) -> Import:
    """Import MASK or another as the only mask of a format, and return its outcome."""

    def run(mask: NDArray[np.uint8] = MASK, geometry: Geometry = AS_THEY_ARE) -> FileOutcome:
        folder = tmp_path / "masks"
        folder.mkdir(exist_ok=True)
        (only,) = request.param(workspace, folder, mask, geometry).outcomes
        assert isinstance(only, FileOutcome)
        return only

    return run


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
def test_raw_orientation__every_exif(
    workspace: Workspace, photograph: Any, bring: Import, orientation: int
) -> None:
    photograph(orientation)
    done = bring(MASK, RAW)
    assert done.outcome.value == "added", done.note
    np.testing.assert_array_equal(drawn(workspace, "a.png"), turn_upright(MASK, orientation))
    assert ("turned upright, as its photograph was" in (done.note or "")) == (orientation != 1)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_swapped_sides__say_why_and_are_never_stretched(
    workspace: Workspace, photograph: Any, bring: Import, orientation: int
) -> None:
    photograph(orientation)
    for geometry in (AS_THEY_ARE, Geometry(stretched=True)):
        done = bring(MASK, geometry)
        assert done.outcome.value == "refused"
        assert f"turned upright at import (EXIF {orientation})" in str(done.note)
        assert "--raw-orientation" in str(done.note)
        assert "--stretched" not in str(done.note)
    assert not workspace.catalogue.masks.all()


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_equal_sides__are_told(
    workspace: Workspace, photograph: Any, bring: Import, orientation: int
) -> None:
    photograph(orientation)
    done = bring()
    assert done.outcome.value == "added"
    assert f"turned upright at import (EXIF {orientation})" in str(done.note)
    assert "give --raw-orientation" in str(done.note)
    np.testing.assert_array_equal(drawn(workspace, "a.png"), MASK)


def test_swapped_sides__wording(photograph: Any, bring: Import, wording: SnapshotAssertion) -> None:
    photograph(6)
    assert bring().note == wording


@pytest.mark.parametrize("orientation", [6, 8])
def test_upright_mask_of_a_turned_photograph(
    workspace: Workspace, photograph: Any, bring: Import, orientation: int
) -> None:
    """As tools draw that turn the photograph themselves: its sides say so, and nothing is told."""
    photograph(orientation)
    mask = turn_upright(MASK, orientation)
    refused = bring(mask, RAW)
    assert "import it without --raw-orientation" in str(refused.note)
    done = bring(mask)
    assert (done.outcome.value, done.note) == ("added", None)
    np.testing.assert_array_equal(drawn(workspace, "a.png"), mask)


def test_square_photograph__is_told(
    workspace: Workspace, photograph: Any, bring: Import, pixels: Any
) -> None:
    photograph(6, pixels(1, HEIGHT, HEIGHT))
    mask = np.ascontiguousarray(MASK[:, :HEIGHT])
    assert "(EXIF 6)" in str(bring(mask).note)
    np.testing.assert_array_equal(drawn(workspace, "a.png"), mask)
    bring(mask, RAW)
    np.testing.assert_array_equal(drawn(workspace, "a.png"), turn_upright(mask, 6))


def test_stretched__of_the_raw_file_at_another_size(photograph: Any, bring: Import) -> None:
    photograph(6)
    small = np.ascontiguousarray(MASK[::2, ::2])
    assert "(EXIF 6)" in str(bring(small, Geometry(stretched=True)).note)
    done = bring(small, Geometry(stretched=True, raw_orientation=True))
    assert done.outcome.value == "added"


def test_swapped_sides__photograph_was_not_turned(photograph: Any, bring: Import) -> None:
    photograph(1)
    lying = np.ascontiguousarray(MASK.T)
    for geometry in (AS_THEY_ARE, Geometry(stretched=True), RAW):
        note = str(bring(lying, geometry).note)
        assert "the sides are swapped" in note
        assert "--stretched" not in note


def test_orientation_not_recorded__import_again_records_it(
    workspace: Workspace, photograph: Any, bring: Import
) -> None:
    """As in a workspace of an earlier schema."""
    folder = photograph(6)
    with workspace.catalogue.images._database.write() as session:
        session.execute(update(Source).values(orientation=None))
    assert "import the photographs again" in str(bring().note).lower()
    assert "import the photographs again" in str(bring(MASK, RAW).note).lower()
    again = import_photographs(workspace, folder)
    assert [o.outcome.value for o in again.outcomes] == ["unchanged"]
    assert bring(MASK, RAW).outcome.value == "added"


def test_raw_orientation__files_that_lie_differently(
    workspace: Workspace, photograph: Any, bring: Import, tmp_path: Path, pixels: Any
) -> None:
    photograph(6)
    exif = Image.Exif()
    exif[0x112] = 8
    (tmp_path / "other").mkdir()
    raw = pixels(1, WIDTH, HEIGHT)[::-1, ::-1]
    Image.fromarray(np.ascontiguousarray(raw)).save(tmp_path / "other" / "a.png", exif=exif)
    import_photographs(workspace, tmp_path / "other")
    assert len(workspace.catalogue.images.select()) == 1
    assert "lie differently (EXIF 6 and 8)" in str(bring(MASK, RAW).note)
