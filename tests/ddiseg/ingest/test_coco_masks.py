"""The masks in COCO files of other tools, oracle pycocotools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import State
from ddiseg.errors import InputError
from ddiseg.ingest import coco_masks
from ddiseg.ingest.labelled_masks import (
    Labels,
    compose_labelled,
    import_labelled_masks,
    stack_labelled,
)
from ddiseg.ingest.photographs import import_photographs
from ddiseg.ingest.placement import Geometry
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import (
    HEIGHT,
    LESION,
    OUTLINE,
    PROTOCOL,
    WIDTH,
    coco_file,
    drawn,
    note,
    run,
    run_masks,
    told,
    write,
)
from tests.wording import Refusal


def rle(region: NDArray[np.bool_]) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
    return {"size": list(region.shape), "counts": encoded["counts"].decode()}


def uncompressed(region: NDArray[np.bool_]) -> dict[str, Any]:
    flat = region.T.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=False))
    return {"size": list(region.shape), "counts": np.diff([0, *starts, flat.size]).tolist()}


@pytest.mark.parametrize("shape", ["polygon", "compressed", "uncompressed"])
def test_import__every_kind_of_segmentation(workspace: Workspace, photos: Path, shape: str) -> None:
    kinds = {"polygon": [OUTLINE], "compressed": rle(LESION), "uncompressed": uncompressed(LESION)}
    document = coco_file()
    document["annotations"][0]["segmentation"] = kinds[shape]
    done = run(workspace, write(photos, document))
    assert told(done.masks) == {"a.png": "added", "b.png": "added"}
    np.testing.assert_array_equal(drawn(workspace, "a.png"), LESION.astype(np.uint8))
    (mask,) = workspace.catalogue.masks.of_image(1)
    assert (mask.classes, mask.annotator, mask.mapping) == ([0, 1, 4], "reader-1", "same")


def test_import__classes_and_the_rest(workspace: Workspace, photos: Path, refusal: Refusal) -> None:
    document = coco_file()
    document["categories"][0]["name"] = "Nevus"
    with refusal(InputError):
        run(workspace, write(photos, document))
    assert not workspace.catalogue.images.datasets()
    labels = Labels.parse("nevus=lesion", "skin", PROTOCOL)
    run(workspace, write(photos, document), labels=labels)
    np.testing.assert_array_equal(drawn(workspace, "a.png"), np.where(LESION, 1, 4))
    assert workspace.catalogue.masks.all()[0].classes == [1, 4]


def test_import__unknown_category_that_nothing_uses(workspace: Workspace, photos: Path) -> None:
    """Roboflow writes one for all of a project."""
    document = coco_file()
    document["categories"].append({"id": 7, "name": "skin-project"})
    assert set(told(run(workspace, write(photos, document)).masks).values()) == {"added"}


def test_import__smaller_region_on_top_is_counted(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    document = coco_file()
    skin = np.ones((HEIGHT, WIDTH), bool)
    extra = {"id": 50, "image_id": 0, "category_id": 1, "segmentation": rle(skin)}
    other = np.zeros_like(LESION)
    other[12:14, 0:3] = True
    again = {"id": 51, "image_id": 0, "category_id": 0, "segmentation": rle(other)}
    document["annotations"] += [extra, again]
    done = run(workspace, write(photos, document))
    np.testing.assert_array_equal(drawn(workspace, "a.png"), np.where(LESION | other, 1, 4))
    assert note(done.masks, "a.png") == wording
    assert note(done.masks, "b.png") == "None"


def test_import__image_without_annotations_gets_no_mask(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    del document["annotations"][1]
    done = run(workspace, write(photos, document))
    assert told(done.masks) == {"a.png": "added"}
    assert workspace.catalogue.images.find("b.png").state == State.NEW


def test_import__no_annotations_at_all(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    del document["annotations"], document["categories"]
    done = run(workspace, write(photos, document))
    assert told(done.photographs.outcomes) == {"a.png": "added", "b.png": "added"}
    assert done.masks == []


def test_import__stretched(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    for image in document["images"]:
        image["width"] *= 2
    path = write(photos, document)
    assert "give --stretched" in note(run(workspace, path).masks, "a.png")
    assert set(told(run(workspace, path, geometry=Geometry(stretched=True)).masks).values()) == {
        "added"
    }
    assert {m.mapping for m in workspace.catalogue.masks.all()} == {"stretched"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"segmentation": rle(LESION[:, :-1])}, "RLE has the size [16, 23], its image [16, 24]"),
        ({"segmentation": {**rle(LESION), "counts": "52203"}}, "RLE counts cover"),
        ({"segmentation": {**rle(LESION), "counts": [5]}}, "RLE counts cover 5 pixels"),
        ({"segmentation": {**rle(LESION), "counts": "\u00e9"}}, "not COCO's compressed string"),
        ({"segmentation": "x"}, "no list of polygons and no RLE"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "5 coordinates"),
        ({"segmentation": ["x"]}, "no list of numbers"),
        ({"category_id": 9}, "its category 9 is not listed"),
        ({"category_id": None}, "its category None is not listed"),
        ({"category_id": [0]}, "its category None is not listed"),
    ],
)
def test_import__annotation_refused(
    workspace: Workspace, photos: Path, change: dict[str, Any], says: str
) -> None:
    """Its image gets no mask, rather than one in which a region is missing; the other does."""
    document = coco_file()
    document["annotations"].append({**document["annotations"][0], "id": 8, **change})
    done = run(workspace, write(photos, document))
    assert told(done.masks) == {"a.png": "refused", "b.png": "added"}
    assert note(done.masks, "a.png").startswith("annotation 8: ")
    assert says in note(done.masks, "a.png")
    assert not workspace.catalogue.masks.of_image(1)
    assert not verify(workspace).problems


def test_import__no_size(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    document["images"][0]["width"] = 0
    done = run(workspace, write(photos, document))
    assert "does not say how large" in note(done.masks, "a.png")
    assert told(done.masks)["b.png"] == "added"


ABSURD = {"width": 10**9, "height": 10**9}
JUST_FITS = {"width": 10_000, "height": 20_000}


@pytest.mark.parametrize(
    ("size", "stretched", "says"),
    [
        (ABSURD, False, "is 1000000000 x 1000000000, but its photograph is 24 x 16"),
        (ABSURD, True, "is 1000000000 x 1000000000 pixels large; 200,000,000 pixels at most"),
        (JUST_FITS, False, "is 10000 x 20000, but its photograph is 24 x 16"),
    ],
)
def test_masks__absurd_size_is_refused_before_anything_is_made_of_it(
    workspace: Workspace,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: dict[str, int],
    stretched: bool,
    says: str,
) -> None:
    run(workspace, write(photos, coco_file()), annotator=None)
    document = coco_file()
    document["images"][0] |= {**size, "attributes": {"mask_hash": "0" * 64}}
    del document["annotations"][0]
    composed = []
    monkeypatch.setattr(coco_masks, "stack_labelled", _noting(composed))
    done = run_masks(workspace, write(photos, document), geometry=Geometry(stretched=stretched))
    assert told(done.outcomes) == {"a.png": "refused", "b.png": "added"}
    assert says in note(done.outcomes, "a.png")
    assert composed == [(HEIGHT, WIDTH)]


def _noting(sizes: list[tuple[int, int]]) -> Callable[..., Any]:
    """stack_labelled, which writes down the sizes that it is asked for."""

    def compose(regions: Any, size: tuple[int, int], labels: Labels) -> Any:
        sizes.append(size)
        return stack_labelled(regions, size, labels)

    return compose


def test_compose_labelled__absurd_size(refusal: Refusal) -> None:
    with refusal(InputError):
        compose_labelled([], (1_000_000, 100_000), None, Labels(PROTOCOL))


def test_masks__by_name(workspace: Workspace, photos: Path, tmp_path: Path) -> None:
    path = write(tmp_path, coco_file(("images\\a.jpg", "images/b.png", "c.png")))
    run(workspace, write(photos, coco_file()), annotator=None)
    done = run_masks(workspace, path, reviewer="reader-2")
    taken = {"images\\a.jpg": "added", "images/b.png": "added", "c.png": "refused"}
    assert told(done.outcomes) == taken
    assert "import the photographs first" in note(done.outcomes, "c.png")
    assert len(workspace.catalogue.masks.accepted()) == 2
    (first,) = workspace.catalogue.masks.of_image(1)
    assert first.origin == "images\\a.jpg"


def test_masks__of_a_photograph_that_a_release_renamed(
    workspace: Workspace, photos: Path, tmp_path: Path
) -> None:
    run(workspace, write(photos, coco_file()), annotator=None)
    document = coco_file(("clinic_b.png",))
    document["images"][0]["attributes"] = {"name": "b.png"}
    done = run_masks(workspace, write(tmp_path, document))
    assert told(done.outcomes) == {"clinic_b.png": "added"}
    assert workspace.catalogue.images.find("b.png").state == State.SUBMITTED


def test_masks__no_one_drew_them(workspace: Workspace, photos: Path, refusal: Refusal) -> None:
    path = write(photos, coco_file())
    with refusal(InputError):
        run_masks(workspace, path, annotator=None)


RING = [2, 2, 16, 2, 16, 12, 2, 12]


def with_ring(**changes: Any) -> dict[str, Any]:
    """A file with a pen ring around the lesion of a.png, which came as a disc."""
    document = coco_file()
    document["categories"].append({"id": 2, "name": "marker"})
    ring = {"id": 9, "image_id": 0, "category_id": 2, "segmentation": [RING]}
    document["annotations"].append({**ring, **changes})
    return document


def test_import__ring_that_lost_its_hole_leaves_the_lesion(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    done = run(workspace, write(photos, with_ring()))
    assert told(done.masks) == {"a.png": "added", "b.png": "added"}
    mask = drawn(workspace, "a.png")
    np.testing.assert_array_equal(mask == 1, LESION)
    assert (mask == 2).sum() == 140 - LESION.sum()
    assert note(done.masks, "a.png") == wording


def test_import__class_that_would_vanish_refuses_its_mask(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    done = run(workspace, write(photos, with_ring(segmentation=[OUTLINE])))
    assert told(done.masks) == {"a.png": "refused", "b.png": "added"}
    assert note(done.masks, "a.png") == wording
    assert not workspace.catalogue.masks.of_image(1)


def test_import__z_order_of_the_file(workspace: Workspace, photos: Path) -> None:
    document = with_ring(z_order=1)
    document["annotations"][0]["attributes"] = {"z_order": 2}
    run(workspace, write(photos, document))
    np.testing.assert_array_equal(drawn(workspace, "a.png") == 1, LESION)
    document["annotations"][0]["attributes"] = {"z_order": 0}
    done = run(workspace, write(photos, document))
    assert "lesion would vanish" in note(done.masks, "a.png")


@pytest.mark.parametrize(
    "change",
    [
        {"segmentation": []},
        {"segmentation": None},
        {"segmentation": [], "keypoints": [5, 5, 2], "num_keypoints": 1},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": [[60, 2, 70, 2, 70, 9]]},
        {"segmentation": rle(np.zeros_like(LESION))},
    ],
)
def test_import__region_without_pixels_is_left_out_and_told(
    workspace: Workspace, photos: Path, change: dict[str, Any]
) -> None:
    done = run(workspace, write(photos, with_ring(**change)))
    assert told(done.masks) == {"a.png": "added", "b.png": "added"}
    np.testing.assert_array_equal(drawn(workspace, "a.png"), LESION.astype(np.uint8))
    assert note(done.masks, "a.png").startswith("annotation 9 (marker): ")
    assert "left out" in note(done.masks, "a.png")


def test_import__no_region_with_pixels(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    """Else all of the photograph would be background."""
    document = coco_file()
    document["annotations"][0]["segmentation"] = []
    done = run(workspace, write(photos, document))
    assert told(done.masks) == {"a.png": "refused", "b.png": "added"}
    assert note(done.masks, "a.png") == wording


def test_import__region_that_its_box_contradicts(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    document = coco_file()
    outline = [v / side for v, side in zip(OUTLINE, [WIDTH, HEIGHT] * 4, strict=True)]
    document["annotations"][0]["segmentation"] = [outline]
    done = run(workspace, write(photos, document))
    assert told(done.masks) == {"a.png": "refused", "b.png": "added"}
    assert note(done.masks, "a.png") == wording


@pytest.mark.parametrize("as_written", [float, str, lambda n: f"{n}.0"])
def test_import__numbers_as_floats_and_texts(
    workspace: Workspace, photos: Path, as_written: Callable[[int], Any]
) -> None:
    document = coco_file()
    for image in document["images"]:
        image |= {key: as_written(image[key]) for key in ("width", "height")}
    for entry in document["annotations"]:
        entry |= {key: as_written(entry[key]) for key in ("image_id", "category_id")}
    done = run(workspace, write(photos, document))
    assert told(done.masks) == {"a.png": "added", "b.png": "added"}
    np.testing.assert_array_equal(drawn(workspace, "a.png"), LESION.astype(np.uint8))


def test_masks__what_is_unusual_in_a_file_is_counted(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    run(workspace, write(photos, coco_file()), annotator=None)
    document = with_ring(iscrowd=True)
    document["annotations"][0] |= {"iscrowd": 1, "area": 0}
    done = run_masks(workspace, write(photos, document))
    assert done.notes == wording


def test_import__label_and_rest_without_a_class(workspace: Workspace, folder: Any) -> None:
    """Hair over a lesion has no class, nor has what no region covers."""
    document = coco_file(("a.png",))
    document["categories"].append({"id": 2, "name": "hair"})
    hair = {"segmentation": [[6, 4, 12, 4, 12, 6, 6, 6]], "bbox": [6, 4, 6, 2], "area": 12}
    document["annotations"].append({"id": 9, "image_id": 0, "category_id": 2, **hair})
    root = folder("a.png")
    import_photographs(workspace, root)
    labels = Labels.parse("hair=ignore,rest=ignore", None, PROTOCOL)
    import_labelled_masks(
        workspace, write(root, document), format_name="coco", labels=labels, annotator="anna"
    )
    (mask,) = workspace.catalogue.masks.all()
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[6:8, 6:12] = 1
    np.testing.assert_array_equal(workspace.mask(mask), expected)
    assert (mask.unlabelled, mask.classes) == (HEIGHT * WIDTH - 12, [1, 4])


POLYGONS = st.lists(
    st.lists(st.floats(-4, 28).map(lambda v: round(v, 1)), min_size=6, max_size=12).filter(
        lambda values: len(values) % 2 == 0
    ),
    max_size=2,
)
ANNOTATIONS = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from([0, "0", 0.0]),
        "category_id": st.integers(0, 4),
        "segmentation": st.one_of(
            POLYGONS, arrays(np.bool_, (HEIGHT, WIDTH)).map(rle), st.none(), st.just([[1, 2, 3, 4]])
        ),
    },
    optional={"z_order": st.integers(0, 2), "iscrowd": st.integers(0, 1), "area": st.just(0)},
)


@pytest.mark.property
@given(st.lists(ANNOTATIONS, max_size=6))
def test_read_masks__no_class_of_the_file_vanishes_without_a_word(
    tmp_path_factory: pytest.TempPathFactory, annotations: list[dict[str, Any]]
) -> None:
    document = coco_file(("a.png",))
    document["categories"] = [{"id": c.index, "name": c.name} for c in PROTOCOL.classes]
    document["annotations"] = annotations
    path = write(tmp_path_factory.mktemp("coco"), document)
    for file in coco_masks.read_masks(path, Labels(PROTOCOL)).files:
        try:
            shown = set(np.unique(file.load()).tolist())
        except InputError:
            continue
        said = " ".join(note.text for note in file.notes)
        for annotation in annotations:
            index = annotation["category_id"]
            assert index in shown or PROTOCOL.class_names[index] in said


def test_import__images_without_annotations_are_told(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    del document["annotations"][1]
    done = run(workspace, write(photos, document))
    assert told(done.masks) == {"a.png": "added"}
    said = "images without annotations: 1 (no mask)"
    assert said in done.photographs.notes
    assert said in run_masks(workspace, photos / "labels.json").notes
