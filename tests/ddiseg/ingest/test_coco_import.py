"""The photographs that a COCO file lists, and what it says of them; with their masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from ddiseg.errors import InputError
from ddiseg.ingest.diagnoses import MalignantDiagnoses
from ddiseg.ingest.metadata import Key
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import coco_file, note, run, run_masks, told, write
from tests.wording import Refusal


def test_import__photographs_elsewhere_and_below(
    workspace: Workspace, tmp_path: Path, folder: Any, refusal: Refusal, wording: SnapshotAssertion
) -> None:
    folder("x/a.png", "b.png")
    document = coco_file(("C:\\work\\a.png", "images/b.png"))
    path = write(tmp_path / "elsewhere", document)
    with refusal(InputError):
        run(workspace, path)
    done = run(workspace, path, photographs=tmp_path / "photos")
    assert told(done.photographs.outcomes) == {"b.png": "added", "x/a.png": "added"}
    assert told(done.masks) == {"C:\\work\\a.png": "added", "images/b.png": "added"}
    assert done.photographs.notes == wording


@pytest.mark.parametrize(
    "name", ["annotations/instances_default.json", "labels.json", "_annotations.coco.json"]
)
def test_import__file_or_its_folder(workspace: Workspace, folder: Any, name: str) -> None:
    """As CVAT, FiftyOne and Roboflow lay them out."""
    root = folder("images/a.png", "images/b.png")
    path = write(root, coco_file(), name)
    write(root, {"version": 1}, "other.json")
    write(root, "{", "broken.json")
    assert told(run(workspace, root).masks) == {"a.png": "added", "b.png": "added"}
    assert told(run(workspace, path).masks) == {"a.png": "unchanged", "b.png": "unchanged"}


def test_import__photograph_missing_or_ambiguous_or_not_listed(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png", "x/b.png", "y/b.png", "z.png")
    done = run(workspace, write(root, coco_file(("a.png", "b.png", "c.png"))))
    taken = {"a.png": "added", "b.png": "refused", "c.png": "refused"}
    assert told(done.photographs.outcomes) == told(done.masks) == taken
    assert "could mean x/b.png or y/b.png" in note(done.photographs.outcomes, "b.png")
    assert "c.png" not in told(run(workspace, root / "labels.json", annotator=None).masks)
    assert note(done.photographs.outcomes, "c.png") == (
        f"is not under {root}: give its folder with --images"
    )
    assert note(done.masks, "c.png") == wording
    assert done.photographs.notes == wording


def test_import__two_names_lead_to_one_photograph(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    done = run(workspace, write(photos, coco_file(("x/a.png", "y/a.png", "b.png"))))
    taken = {"x/a.png": "refused", "y/a.png": "refused", "b.png": "added"}
    assert told(done.photographs.outcomes) == taken
    assert note(done.photographs.outcomes, "x/a.png") == wording


def test_import__photograph_damaged(workspace: Workspace, photos: Path) -> None:
    (photos / "a.png").write_bytes(b"x")
    done = run(workspace, write(photos, coco_file()))
    assert told(done.photographs.outcomes) == {"a.png": "refused", "b.png": "added"}
    assert told(done.masks) == {"a.png": "refused", "b.png": "added"}


def test_import__another_photograph_under_a_known_name(
    workspace: Workspace, photos: Path, pixels: Any
) -> None:
    """The mask was not drawn on the photograph that the catalogue has by this name."""
    path = write(photos, coco_file())
    run(workspace, path, annotator=None)
    Image.fromarray(pixels(77)).save(photos / "a.png")
    done = run(workspace, path)
    assert told(done.masks) == {"a.png": "refused", "b.png": "added"}
    assert not workspace.catalogue.masks.of_image(1)


def test_import__outside_of_the_folder(
    workspace: Workspace, photos: Path, folder: Any, refusal: Refusal
) -> None:
    folder("secret.png", name="elsewhere", first_seed=9)
    document = coco_file(("../elsewhere/secret.png", str(photos.parent / "elsewhere/secret.png")))
    with refusal(InputError):
        run(workspace, write(photos, document))


def test_import__repeated_names_and_ids(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png", "b.png", "c.png", "d.png")
    document = coco_file(("a.png", "a.png", "b.png", "c.png", "d.png"))
    document["images"][3]["id"] = 2
    done = run(workspace, write(root, document))
    assert told(done.photographs.outcomes) == {
        "a.png": "refused",
        "b.png": "refused",
        "c.png": "refused",
        "d.png": "added",
    }
    assert "annotations of refused images: 3" in done.photographs.notes
    assert "its file_name occurs more than once" in note(
        [o for o in done.photographs.outcomes if o.name == "a.png"][:1], "a.png"
    )
    assert "its id 2 occurs more than once" in note(done.photographs.outcomes, "c.png")
    assert told(done.masks) == {"d.png": "added"}


def test_import__annotations_of_unknown_images(workspace: Workspace, photos: Path) -> None:
    """They are neither images nor masks, and not counted as such."""
    document = coco_file()
    document["annotations"] += [{"id": 7, "image_id": 70}, {"id": 8, "image_id": [1]}, "x"]
    done = run(workspace, write(photos, document))
    said = "annotations of unknown images: 3 (image_id 70, [1], None)"
    assert done.photographs.notes == [said]
    assert set(told(done.photographs.outcomes)) == {"a.png", "b.png"}
    masks = run_masks(workspace, photos / "labels.json")
    assert told(masks.outcomes) == {"a.png": "unchanged", "b.png": "unchanged"}
    assert masks.notes == [said]
    assert set(told(done.masks).values()) == {"added"}


def test_import__entries_that_are_no_images(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    bad = ["x", {"id": 5}, {"file_name": "a.png"}, {"id": [1], "file_name": "z.png"}]
    document["images"] += bad
    done = run(workspace, write(photos, document))
    refused = [o.name for o in done.photographs.outcomes if o.outcome.value == "refused"]
    assert refused == [f"labels.json: image {n} of the list" for n in (3, 4, 5, 6)]


@pytest.mark.slow
def test_import__licences(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    document["licenses"] = [{"id": 0, "name": "CC BY 4.0"}, {"id": 1, "name": "not recorded"}]
    document["licenses"] += [{"id": [2]}, "x"]
    for image in document["images"]:
        image["license"] = 0
    run(workspace, write(photos, document), dataset="one")
    document["images"][1]["license"] = 1
    run(workspace, write(photos, document), dataset="two")
    run(workspace, write(photos, document), dataset="three", licence="mine", source="here")
    document["images"][0]["license"] = 1
    run(workspace, write(photos, document), dataset="four")
    datasets = {d.name: (d.licence, d.source) for d in workspace.catalogue.images.datasets()}
    assert datasets == {
        "one": ("CC BY 4.0", None),
        "two": (None, None),
        "three": ("mine", "here"),
        "four": (None, None),
    }


def test_import__malignancy_from_diagnosis(
    workspace: Workspace, photos: Path, wording: SnapshotAssertion
) -> None:
    document = coco_file()
    document["images"][0]["attributes"] = {"diagnosis": "melanoma"}
    document["images"][1]["attributes"] = {"diagnosis": "naevus"}
    given = MalignantDiagnoses.parse("melanoma", "rest")
    done = run(workspace, write(photos, document), diagnoses=given)
    assert [i.malignant for i in workspace.catalogue.images.select()] == [True, False]
    assert done.photographs.notes == wording


def test_import__attributes_that_can_not_be_used(workspace: Workspace, photos: Path) -> None:
    document = coco_file()
    document["images"][0]["attributes"] = {"tone": "purple"}
    document["images"][1]["attributes"] = {"tone": 3, "occluded": False}
    done = run(workspace, write(photos, document))
    assert told(done.photographs.outcomes) == {"a.png": "refused", "b.png": "added"}
    assert "labels.json, attributes: tone 'purple' is none of" in note(
        done.photographs.outcomes, "a.png"
    )
    image = workspace.catalogue.images.find("b.png")
    assert (image.tone, image.tone_source) == ("III-IV", "labels.json: attributes")


def test_import__a_table_says_more_and_wins(
    workspace: Workspace, photos: Path, refusal: Refusal
) -> None:
    document = coco_file()
    document["images"][0]["attributes"] = {"tone": "purple"}
    document["images"][1]["attributes"] = {"tone": 3}
    table = photos.parent / "table.csv"
    table.write_text("file,tone\na.png,12\n")
    columns = {Key.IMAGE: "file", Key.TONE: "tone"}
    done = run(workspace, write(photos, document), metadata=table, columns=columns)
    assert set(told(done.photographs.outcomes).values()) == {"added"}
    with refusal(InputError):
        run(workspace, photos, columns=columns)
    with refusal(InputError):
        run(workspace, photos, metadata=table)
    tones = {i.name: i.tone for i in workspace.catalogue.images.select()}
    assert tones == {"a.png": "I-II", "b.png": "III-IV"}


@pytest.mark.parametrize(
    "people",
    [{"annotator": "a", "reviewer": "A"}, {"annotator": " "}, {"annotator": None, "reviewer": "a"}],
)
def test_import__people(workspace: Workspace, photos: Path, people: Any, refusal: Refusal) -> None:
    path = write(photos, coco_file())
    with refusal(InputError):
        run(workspace, path, **people)
    assert not workspace.catalogue.images.select()


def test_import__progress_counts_photographs_and_masks(workspace: Workspace, photos: Path) -> None:
    calls: list[tuple[int, int]] = []
    run(workspace, write(photos, coco_file()), progress=lambda *at: calls.append(at))
    assert calls == [(0, 4), (2, 4), (2, 4), (4, 4)]


def test_import__names_of_uploads_and_of_folders_further_up(
    workspace: Workspace, folder: Any
) -> None:
    root = folder("x/a.png", "y/a.png", "b.png")
    path = write(root, coco_file(("data/y/a.png", "data/x/a.png", "0123abcd-b.png")))
    assert set(told(run(workspace, path).masks).values()) == {"added"}
    images = {i: path for path, i in workspace.catalogue.images.source_paths()}
    by_origin = {m.origin: images[m.image_id] for m in workspace.catalogue.masks.all()}
    assert by_origin == {
        "data/y/a.png": "y/a.png",
        "data/x/a.png": "x/a.png",
        "0123abcd-b.png": "b.png",
    }


def test_import__a_file_keeps_the_licence_of_its_dataset(
    workspace: Workspace, photos: Path
) -> None:
    document = coco_file()
    document["licenses"] = [{"id": 1, "name": "CC BY"}]
    for entry in document["images"]:
        entry["license"] = 1
    path = write(photos, document)
    run(workspace, path, licence="CC0")
    done = run(workspace, path)
    (dataset,) = workspace.catalogue.images.datasets()
    assert dataset.licence == "CC0"
    assert not any("changed" in note for note in done.photographs.notes)
