"""Large releases, whose files are divided: each part can be used alone, all of them come back."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from annotation_protocol import load_protocol
from ddiseg.errors import InputError
from ddiseg.ingest.coco_masks import read_masks
from ddiseg.ingest.labelled_masks import Labels
from ddiseg.ingest.mask_files import import_masks
from ddiseg.outcomes import Outcome
from ddiseg.release.folder import WrittenRelease, write_release
from ddiseg.release.release import Release
from tests.ddiseg.release.conftest import Builder
from tests.wording import Refusal

pytestmark = pytest.mark.slow

PARTS = ["coco-00001-of-00003.json", "coco-00002-of-00003.json", "coco-00003-of-00003.json"]


@pytest.fixture
def five(builder: Builder) -> Builder:
    """Five accepted masks; the third is all background and has no annotation."""
    for number in range(5):
        mask = np.zeros((12, 10), np.uint8)
        if number != 2:
            mask[number : number + 3, 2:5] = 1
            mask[9:] = 4
        builder.mask(builder.image(f"{number}.png"), mask)
    return builder


def written(builder: Builder, to: Path, kind: str, *, of: int = 2, **given: Any) -> WrittenRelease:
    release = Release.gather(builder.workspace, keep_names=True)
    return write_release(replace(release, images_per_part=of), kind, to, **given)


def lists(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def test_coco__each_part_is_a_coco_file_and_ids_are_unique(five: Builder, tmp_path: Path) -> None:
    done = written(five, tmp_path / "out", "coco")
    names = sorted(p.name for p in (tmp_path / "out").glob("*.json"))
    assert names == [*PARTS, "ddiseg-release.json"]
    images: list[int] = []
    annotations: list[int] = []
    for part in PARTS:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(tmp_path / "out" / part)
        assert set(coco.anns) == set(coco.getAnnIds(list(coco.imgs)))
        assert all(
            (tmp_path / "out/images" / image["file_name"]).is_file() for image in coco.imgs.values()
        )
        images += coco.imgs
        annotations += coco.anns
    assert images == sorted(i.image.id for i in Release.gather(five.workspace).items())
    assert annotations == list(range(1, 9))
    listed = {entry["path"] for entry in done.manifest["files"]}
    assert {*PARTS, "images/part-00003/4.png"} < listed


def test_coco__parts_together_are_the_one_file(five: Builder, tmp_path: Path) -> None:
    written(five, tmp_path / "one", "coco", of=5, images=False)
    written(five, tmp_path / "several", "coco", images=False)
    whole = lists(tmp_path / "one/annotations.json")
    parts = [lists(tmp_path / "several" / part) for part in PARTS]
    for key in ("images", "annotations"):
        assert [each for part in parts for each in part[key]] == whole.pop(key)
    assert all({key: part[key] for key in whole} == whole for part in parts)


def test_coco__text_is_that_of_json_dumps(five: Builder, tmp_path: Path) -> None:
    written(five, tmp_path / "out", "coco", of=5)
    text = (tmp_path / "out/annotations.json").read_text("ascii")
    assert text == json.dumps(json.loads(text))


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as versions of ddiseg had them that knew no expected IoU: none of a person's mask."""
    assert facts["expected_iou"] is None
    return {name: fact for name, fact in facts.items() if name != "expected_iou"}


@pytest.mark.parametrize("images", [True, False])
def test_content__is_the_hash_of_all_that_it_says(five: Builder, *, images: bool) -> None:
    release = Release.gather(five.workspace).in_format("png", images=images)
    from ddiseg import __version__

    document = {
        "format": "png",
        "ddiseg": __version__,
        "protocol": release.protocol.version,
        "images": images,
        "subset": None,
        "names_kept": False,
        "include_predictions": False,
        "items": [[i.stem, _known(i.facts())] for i in release.items()],
        "left_out": [3, 9],
    }
    whole = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    content = release.content_hash()
    for item in release.items():
        content.add(item)
    assert content.hexdigest([9, 3]) == whole


@pytest.mark.parametrize("kind", ["coco", "png", "sddi"])
def test_write_release__in_parts_again_is_unchanged(
    five: Builder, tmp_path: Path, kind: str
) -> None:
    assert written(five, tmp_path / "out", kind).new
    assert not written(five, tmp_path / "out", kind).new


@pytest.mark.parametrize(("kind", "folder"), [("png", "masks"), ("sddi", "labels")])
def test_folders__of_a_large_release_come_back(
    five: Builder, tmp_path: Path, kind: str, folder: str
) -> None:
    written(five, tmp_path / "out", kind)
    places = {p.parent.name for p in (tmp_path / "out" / folder).rglob("*.*")}
    assert places == {"part-00001", "part-00002", "part-00003"}
    done = import_masks(
        five.workspace, tmp_path / "out" / folder, format_name=kind, annotator="reader-1"
    )
    wanted = {"png": Outcome.UNCHANGED, "sddi": Outcome.REFUSED}[
        kind
    ]  # sDDI's size is another mask
    assert [o.outcome for o in done.outcomes] == [wanted] * 5, done.outcomes


def test_read_masks__of_all_parts(five: Builder, tmp_path: Path) -> None:
    written(five, tmp_path / "out", "coco")
    accepted = five.workspace.catalogue.masks.accepted()
    found = read_masks(tmp_path / "out", Labels(load_protocol()))
    assert not found.refused
    assert not found.notes
    assert [file.photograph for file in found.files] == [str(n) for n in range(5)]
    for file, mask in zip(found.files, accepted.values(), strict=True):
        np.testing.assert_array_equal(file.load(), five.workspace.mask(mask))


def test_read_masks__part_is_missing(five: Builder, tmp_path: Path, refusal: Refusal) -> None:
    written(five, tmp_path / "out", "coco")
    (tmp_path / "out" / PARTS[1]).unlink()
    with refusal(InputError):
        read_masks(tmp_path / "out", Labels(load_protocol()))


def test_items__mask_accepted_meanwhile(five: Builder, refusal: Refusal) -> None:
    release = Release.gather(five.workspace)
    late = five.image("late.png")
    mask = np.ones((12, 10), np.uint8)
    five.mask(late, mask)
    with refusal(InputError):
        list(release.items())


def test_items__order_and_masks_of_a_naive_query(five: Builder) -> None:
    """A random catalogue of reopened, rejected, fixed and predicted masks against Python's own joins."""
    catalogue = five.workspace.catalogue
    rng = np.random.default_rng(7)
    for number in range(12):
        image = five.image(f"more-{number}.png")
        if rng.random() < 0.6:
            five.prediction(image, rng.integers(0, 5, (12, 10), np.uint8))
        if rng.random() < 0.3:
            five.mask(image, rng.integers(0, 5, (12, 10), np.uint8))
        elif rng.random() < 0.3:
            catalogue.images.skip(image, "no_lesion", None, "reader-1")
        elif rng.random() < 0.5:
            one, other = (rng.integers(0, 5, (12, 10), np.uint8) for _ in range(2))
            five.fixed(image, one, other)
    members = [image.id for image in catalogue.images.select() if rng.random() < 0.7]
    catalogue.subsets.store({"b": members, "a": members[::2]}, {}, "tester")
    accepted, predicted = catalogue.masks.accepted(), catalogue.masks.newest_predictions()
    every = {mask.id: mask for mask in catalogue.masks.all()}
    reviews = catalogue.masks.last_reviews(list(accepted))
    for subset in (None, "a", "b"):
        for predictions in (False, True):
            expected = []
            for image in catalogue.images.select(subset=subset):
                mask = accepted.get(image.id)
                if mask is None and predictions and image.state != "skipped":
                    mask = predicted.get(image.id)
                if mask is None:
                    continue
                parent = every.get(mask.parent_id or 0)
                is_accepted = image.id in accepted
                expected.append(
                    (
                        *(image.id, mask.id, is_accepted),
                        parent and parent.content_hash,
                        parent and parent.annotator,
                        reviews[image.id].reviewer if is_accepted else None,
                        tuple(n for n in ("a", "b") if image.id in catalogue.subsets.members(n)),
                    )
                )
            rows = catalogue.release_rows.stream(subset, predictions=predictions)
            assert [(row.image.id, row.mask.id, *row[2:]) for row in rows] == expected
