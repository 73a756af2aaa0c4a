"""Releases of ours, brought back."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import State
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.ingest.coco_files import drawn, note, run, run_masks, told
from tests.ddiseg.release.conftest import Builder, copied, masks_of_photographs


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty workspace to copy."""
    root = tmp_path_factory.mktemp("template") / "w"
    Workspace.create(root).catalogue.close()
    return root


@pytest.mark.property
@settings(max_examples=7, deadline=None)
@given(st.lists(masks_of_photographs(), min_size=1, max_size=8))
def test_release__comes_back_pixel_for_pixel(
    template: Path, pairs: list[tuple[tuple[int, int], NDArray[np.uint8]]]
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        copied(template, Path(folder) / "w") as builder,
        copied(template, Path(folder) / "v") as other,
    ):
        first, workspace = builder.workspace, other.workspace
        for number, (size, mask) in enumerate(pairs):
            builder.mask(builder.image(f"{number}.png", size), mask)
        write_release(Release.gather(first, keep_names=True), "coco", Path(folder) / "out")
        run(workspace, Path(folder) / "out", reviewer="reader-2")
        accepted, again = first.catalogue.masks.accepted(), workspace.catalogue.masks.accepted()
        assert len(again) == len(pairs)
        for image in first.catalogue.images.select():
            (same,) = workspace.catalogue.images.select(ids=[find(workspace, image.content_hash)])
            np.testing.assert_array_equal(
                workspace.mask(again[same.id]), first.mask_over(image, accepted[image.id])
            )


def find(workspace: Workspace, content_hash: str) -> int:
    found = workspace.catalogue.images.select()
    return next(image.id for image in found if image.content_hash == content_hash)


@pytest.fixture
def release(template: Path, tmp_path: Path) -> Path:
    """Two accepted masks, of which one is all background, and a prediction."""
    with copied(template, tmp_path / "first") as builder:
        fill(builder)
        release = Release.gather(builder.workspace, include_predictions=True, keep_names=True)
        write_release(release, "coco", tmp_path / "release")
    return tmp_path / "release"


def fill(builder: Builder) -> None:
    details = {"tone": "V-VI", "tone_source": "chart", "fitzpatrick": 5, "malignant": False}
    details |= {"diagnosis": "naevus", "patient": "p1", "lesion": "l1"}
    mask = np.full((12, 10), 4, np.uint8)
    mask[2:5, 3:6] = 1
    builder.mask(builder.image("1.jpg", **details), mask, classes=[1, 4])
    builder.mask(builder.image("2.png"), np.zeros((12, 10), np.uint8))
    builder.prediction(builder.image("3.png", tone="unknown"), mask)


@pytest.mark.training
def test_release__metadata_licence_and_dataset(workspace: Workspace, release: Path) -> None:
    done = run(workspace, release, reviewer="reader-2")
    assert set(told(done.photographs.outcomes).values()) == {"added"}
    image = workspace.catalogue.images.find("1.png")
    assert (image.tone, image.tone_source, image.fitzpatrick) == ("V-VI", "chart", 5)
    assert (image.malignant, image.diagnosis) == (False, "naevus")
    assert (image.malignant_source or "").endswith(".json: attributes")
    assert (image.patient, image.lesion) == ("p1", "l1")
    assert workspace.catalogue.images.find("3.png").tone == "unknown"
    (dataset,) = workspace.catalogue.images.datasets()
    assert (dataset.name, dataset.licence) == ("derm", "CC BY 4.0")
    assert dataset.source == "https://example.org/derm"
    (mask,) = workspace.catalogue.masks.of_image(image.id)
    assert mask.classes == [1, 4]
    assert not verify(workspace).problems


@pytest.mark.training
def test_release__all_background_is_a_mask_and_a_prediction_is_none(
    workspace: Workspace, release: Path, wording: SnapshotAssertion
) -> None:
    done = run(workspace, release)
    assert told(done.masks) == {"1.png": "added", "2.png": "added"}
    assert not drawn(workspace, "2.png").any()
    assert workspace.catalogue.images.find("3.png").state == State.NEW
    assert done.photographs.notes == wording


@pytest.mark.training
def test_release__again_is_unchanged(workspace: Workspace, release: Path) -> None:
    run(workspace, release, reviewer="reader-2")
    events = workspace.catalogue.events.count()
    again = run(workspace, release, reviewer="reader-2")
    assert set(told([*again.photographs.outcomes, *again.masks]).values()) == {"unchanged"}
    assert workspace.catalogue.events.count() == events


@pytest.mark.training
def test_release__photographs_alone_then_the_masks_of_whom_it_names(
    workspace: Workspace, release: Path
) -> None:
    done = run(workspace, release, annotator=None)
    assert (done.masks, done.masks_left) == ([], 3)
    assert not workspace.catalogue.masks.all()
    # The release calls 1.jpg by that name, though it has a PNG of it.
    masks = run_masks(workspace, release, annotator=None, reviewer="reader-2")
    assert set(told(masks.outcomes).values()) == {"added"}
    assert {m.annotator for m in workspace.catalogue.masks.all()} == {"reader-1"}
    refused = run_masks(workspace, release, annotator=None, reviewer="Reader-1")
    assert "needs a second person" in note(refused.outcomes, refused.outcomes[0].name)


@pytest.mark.training
@pytest.mark.parametrize("synthetic", [True, False])
def test_release__whether_its_images_are_synthetic_comes_along(
    template: Path, tmp_path: Path, workspace: Workspace, *, synthetic: bool
) -> None:
    with copied(template, tmp_path / "of phantoms") as builder:
        builder.synthetic = synthetic
        fill(builder)
        gathered = Release.gather(builder.workspace, include_predictions=True, keep_names=True)
        write_release(gathered, "coco", tmp_path / "release")
    manifest = json.loads((tmp_path / "release" / "ddiseg-release.json").read_text("utf-8"))
    assert [d["synthetic"] for d in manifest["datasets"]] == [synthetic]
    run(workspace, tmp_path / "release", reviewer="reader-2")
    assert [d.synthetic for d in workspace.catalogue.images.datasets()] == [synthetic]
