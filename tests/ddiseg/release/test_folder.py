"""A release is there whole or not at all, and never takes the place of anything else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation_protocol.files import locked
from ddiseg.errors import InputError, NotFoundError, WorkspaceError
from ddiseg.outcomes import Outcome, Progress
from ddiseg.release import coco
from ddiseg.release.folder import LICENCE_FILE, MANIFEST, write_release
from ddiseg.release.release import Release
from ddiseg.release.summary import ExportSummary
from ddiseg.workspace.store import Kind
from tests.ddiseg.release.conftest import Builder
from tests.wording import Refusal

FORMATS = ["coco", "png", "sddi"]


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.process
@pytest.mark.parametrize("format_name", FORMATS)
def test_write_release__manifest_names_every_file(
    stocked: Builder, tmp_path: Path, format_name: str
) -> None:
    target = tmp_path / "out"
    write_release(Release.gather(stocked.workspace, keep_names=True), format_name, target)
    manifest = json.loads((target / MANIFEST).read_bytes())
    there = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert {f["path"] for f in manifest["files"]} == there - {MANIFEST}
    for file in manifest["files"]:
        data = (target / file["path"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["bytes"] == len(data)
    assert names(tmp_path) == {"w", "out"}


def test_write_release__manifest_counts(stocked: Builder, tmp_path: Path) -> None:
    release = Release.gather(stocked.workspace, include_predictions=True, keep_names=True)
    manifest = write_release(release, "coco", tmp_path / "out").manifest
    assert (manifest["images"], manifest["accepted"], manifest["predictions"]) == (4, 3, 1)
    assert manifest["by_tone"]["I-II"] == {
        "images": 2,
        "accepted": 1,
        "predictions": 1,
        "with_class": {"background": 2, "lesion": 2, "marker": 0, "ruler": 0, "skin": 2},
    }
    assert manifest["with_class"] == {
        "background": 3, "lesion": 3, "marker": 0, "ruler": 0, "skin": 3
    }  # fmt: skip
    (dataset,) = manifest["datasets"]
    assert (dataset["name"], dataset["licence"], dataset["images"]) == ("derm", "CC BY 4.0", 4)
    assert (dataset["source"], dataset["synthetic"]) == ("https://example.org/derm", False)
    assert (manifest["protocol"], manifest["format"]) == ("1.1", "coco")
    licence = (tmp_path / "out" / LICENCE_FILE).read_text()
    assert "CC BY 4.0" in licence
    assert "no person has reviewed: 1 of 4 masks" in licence


@pytest.mark.parametrize("format_name", FORMATS)
def test_write_release__again_is_unchanged(
    stocked: Builder, tmp_path: Path, format_name: str
) -> None:
    release = Release.gather(stocked.workspace, keep_names=True)
    assert write_release(release, format_name, tmp_path / "out").new
    before = snapshot(tmp_path / "out")
    again = write_release(
        Release.gather(stocked.workspace, keep_names=True), format_name, tmp_path / "out"
    )
    assert not again.new
    assert {o.outcome for o in again.outcomes} == {Outcome.UNCHANGED}
    assert snapshot(tmp_path / "out") == before


def other_format(builder: Builder, target: Path) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "png", target)


def other_masks(builder: Builder, target: Path) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "coco", target)
    builder.mask(builder.image("new.png"), np.ones((12, 10), np.uint8))


def without_photographs(builder: Builder, target: Path) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "coco", target, images=False)


def own_files(_builder: Builder, target: Path) -> None:
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")


def false_manifest(_builder: Builder, target: Path) -> None:
    target.mkdir()
    (target / MANIFEST).write_text('{"files": 7}')


def a_file(_builder: Builder, target: Path) -> None:
    target.write_text("a file")


def changed_file(builder: Builder, target: Path) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "coco", target)
    (target / coco.ANNOTATIONS).write_text("{}")


def removed_file(builder: Builder, target: Path) -> None:
    write_release(Release.gather(builder.workspace, keep_names=True), "coco", target)
    (target / "images/000001.png").unlink()


@pytest.mark.parametrize(
    "prepare",
    [
        other_format,
        other_masks,
        without_photographs,
        own_files,
        false_manifest,
        a_file,
        changed_file,
        removed_file,
    ],
)
def test_write_release__anything_else_in_its_place_is_refused_and_kept(
    stocked: Builder, tmp_path: Path, prepare: Callable[[Builder, Path], None], refusal: Refusal
) -> None:
    target = tmp_path / "out"
    prepare(stocked, target)
    before, content = snapshot(tmp_path), target.read_bytes() if target.is_file() else None
    with refusal(InputError):
        write_release(Release.gather(stocked.workspace, keep_names=True), "coco", target)
    after = snapshot(tmp_path)
    assert {k: v for k, v in after.items() if "/w/" not in k} == {
        k: v for k, v in before.items() if "/w/" not in k
    }
    assert content is None or target.read_bytes() == content
    assert names(tmp_path) == {"w", "out"}


def test_write_release__empty_folder_is_free(stocked: Builder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert write_release(
        Release.gather(stocked.workspace, keep_names=True), "coco", tmp_path / "out"
    ).new


@pytest.mark.process
def test_write_release__missing_parents_are_made_and_on_failure_unmade(
    stocked: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release.gather(stocked.workspace, keep_names=True)
    with monkeypatch.context() as broken:
        broken.setattr("ddiseg.release.folder.licence_text", _full_disk)
        with pytest.raises(WorkspaceError):
            write_release(release, "coco", tmp_path / "a/b/out")
    assert names(tmp_path) == {"w"}
    assert write_release(release, "coco", tmp_path / "a/b/out").new


def _full_disk(*_args: Any, **_options: Any) -> str:
    raise OSError(28, "No space left on device")


def _stopped(*_args: Any, **_options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.process
@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    ("failure", "error"), [(_full_disk, WorkspaceError), (_stopped, KeyboardInterrupt)]
)
def test_write_release__stopped_midway_leaves_nothing(
    stocked: Builder,
    tmp_path: Path,
    format_name: str,
    failure: Callable[..., Any],
    error: type[BaseException],
) -> None:
    release = Release.gather(stocked.workspace, keep_names=True)

    def fail_at_the_second(done: int, _total: int) -> None:
        if done == 2:
            failure()

    with pytest.raises(error):
        write_release(release, format_name, tmp_path / "out", progress=fail_at_the_second)
    assert names(tmp_path) == {"w"}
    assert write_release(release, format_name, tmp_path / "out").new


KILLED = """
import os, signal, sys
from pathlib import Path
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from ddiseg.workspace.workspace import Workspace

def kill(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

release = Release.gather(Workspace.open(Path(sys.argv[1])))
write_release(release, "coco", Path(sys.argv[2]), progress=kill)
"""


@pytest.mark.process
def test_write_release__killed_midway_then_again(stocked: Builder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "w"), str(tmp_path / "out")]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    (left,) = names(tmp_path) - {"w"}
    assert left.startswith(".out.part-")
    assert write_release(
        Release.gather(stocked.workspace, keep_names=True), "coco", tmp_path / "out"
    ).new
    assert names(tmp_path) == {"w", "out"}


@pytest.mark.process
def test_write_release__folder_like_a_killed_ones_but_not_ours_is_kept(
    stocked: Builder, tmp_path: Path
) -> None:
    theirs = tmp_path / ".out.part-4194305"  # above the largest process id of Linux
    theirs.mkdir()
    (theirs / "notes.txt").write_text("mine")
    write_release(Release.gather(stocked.workspace, keep_names=True), "coco", tmp_path / "out")
    assert (theirs / "notes.txt").read_text() == "mine"


@pytest.mark.process
def test_write_release__living_process_keeps_its_part(stocked: Builder, tmp_path: Path) -> None:
    release = Release.gather(stocked.workspace, keep_names=True)
    part = tmp_path / f".out.part-{os.getppid()}"
    part.mkdir()
    with locked(part / ".ddiseg-part", ""):
        write_release(release, "coco", tmp_path / "out")
    assert part.exists()
    shutil.rmtree(tmp_path / "out")
    write_release(release, "coco", tmp_path / "out")
    assert not part.exists(), "its process is gone"


@pytest.mark.process
def test_write_release__another_process_was_faster(
    stocked: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, target = Release.gather(stocked.workspace, keep_names=True), tmp_path / "out"
    write_release(release, "coco", tmp_path / "theirs")

    def overtaken(
        release: Release, folder: Path, *, images: bool, progress: Progress
    ) -> ExportSummary:
        summary = coco.export(release, folder, images=images, progress=progress)
        shutil.copytree(tmp_path / "theirs", target)
        return summary

    monkeypatch.setattr("ddiseg.release.folder.load_format", lambda *_: overtaken)
    assert not write_release(release, "coco", target).new
    assert names(tmp_path) == {"w", "out", "theirs"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("a small disk can't be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.process
def test_write_release__full_disk(builder: Builder, small_disk: Path, refusal: Refusal) -> None:
    for number in range(4):
        photograph = builder.image(f"{number}.png", (100, 100))  # noise: about 30 kB each
        builder.mask(photograph, np.ones((100, 100), np.uint8))
    with refusal(WorkspaceError):
        write_release(
            Release.gather(builder.workspace, keep_names=True), "coco", small_disk / "out"
        )
    assert names(small_disk) == set()


def lost_photograph(builder: Builder, digest: str) -> None:
    os.unlink(builder.workspace.store.path(Kind.IMAGE, digest))


def damaged_photograph(builder: Builder, digest: str) -> None:
    other = builder.workspace.catalogue.images.find("000002.jpg").content_hash
    store = builder.workspace.store
    store.put(Kind.IMAGE, digest, store.get(Kind.IMAGE, other), replace=True)


def truncated_photograph(builder: Builder, digest: str) -> None:
    store = builder.workspace.store
    store.put(Kind.IMAGE, digest, store.get(Kind.IMAGE, digest)[:100], replace=True)


@pytest.mark.process
@pytest.mark.parametrize("damage", [lost_photograph, damaged_photograph, truncated_photograph])
def test_write_release__image_that_cannot_be_exported_is_named_and_left_out(
    stocked: Builder, tmp_path: Path, damage: Callable[[Builder, str], None], refusal: Refusal
) -> None:
    damage(stocked, stocked.workspace.catalogue.images.find("000001.png").content_hash)
    release, target = Release.gather(stocked.workspace, keep_names=True), tmp_path / "out"
    with refusal(InputError):
        write_release(release, "coco", target, strict=True)
    assert names(tmp_path) == {"w"}
    written = write_release(release, "coco", target)
    assert [o.outcome for o in written.outcomes].count(Outcome.REFUSED) == 1
    assert [left["name"] for left in written.manifest["left_out"]] == ["000001.png"]
    document = json.loads((target / coco.ANNOTATIONS).read_bytes())
    assert len(document["images"]) == written.manifest["images"] == 2
    assert document["info"]["version"] == written.manifest["content"][:12]
    assert not write_release(release, "coco", target).new


@pytest.mark.process
def test_write_release__repaired_photograph_makes_another_release(
    stocked: Builder, tmp_path: Path
) -> None:
    store = stocked.workspace.store
    digest = stocked.workspace.catalogue.images.find("000001.png").content_hash
    data = store.get(Kind.IMAGE, digest)
    lost_photograph(stocked, digest)
    release = Release.gather(stocked.workspace, keep_names=True)
    write_release(release, "coco", tmp_path / "out")
    store.put(Kind.IMAGE, digest, data)
    with pytest.raises(InputError, match="another release"):
        write_release(release, "coco", tmp_path / "out")
    assert names(tmp_path) == {"w", "out"}


def test_write_release__damaged_mask_is_refused(stocked: Builder, tmp_path: Path) -> None:
    accepted = stocked.workspace.catalogue.masks.accepted()
    first, second, _ = (m.content_hash for m in accepted.values())
    store = stocked.workspace.store
    store.put(Kind.MASK, first, store.get(Kind.MASK, second), replace=True)
    written = write_release(
        Release.gather(stocked.workspace, keep_names=True), "png", tmp_path / "out"
    )
    (refused,) = [o for o in written.outcomes if o.outcome is Outcome.REFUSED]
    assert "stored mask is damaged" in str(refused.note)


def test_write_release__nothing_can_be_exported(
    stocked: Builder, tmp_path: Path, refusal: Refusal
) -> None:
    for image in stocked.workspace.catalogue.images.select():
        lost_photograph(stocked, image.content_hash)
    with refusal(InputError):
        write_release(Release.gather(stocked.workspace, keep_names=True), "coco", tmp_path / "out")
    assert names(tmp_path) == {"w"}


def test_gather__empty_selections_say_what_to_do(builder: Builder, refusal: Refusal) -> None:
    with refusal(InputError):
        Release.gather(builder.workspace, keep_names=True)
    image = builder.image("a.png")
    with refusal(InputError):
        Release.gather(builder.workspace, keep_names=True)
    with refusal(InputError):
        Release.gather(builder.workspace, include_predictions=True, keep_names=True)
    with refusal(NotFoundError):
        Release.gather(builder.workspace, subset="b", keep_names=True)
    builder.workspace.catalogue.subsets.store({"b": [image]}, {}, "tester")
    with refusal(InputError):
        Release.gather(builder.workspace, subset="b", keep_names=True)


@pytest.mark.process
def test_gather__subset_and_unreviewed_masks(stocked: Builder) -> None:
    catalogue = stocked.workspace.catalogue
    ids = [catalogue.images.find(f"00000{k}").id for k in (1, 4, 5)]
    catalogue.subsets.store({"part": ids}, {}, "tester")
    stocked.mask(ids[2], np.ones((12, 10), np.uint8), reviewer=None)
    names = [
        i.image.name
        for i in Release.gather(stocked.workspace, subset="part", keep_names=True).items()
    ]
    assert names == ["000001.png"]


@pytest.mark.process
def test_gather__correction_names_its_parent(stocked: Builder) -> None:
    catalogue = stocked.workspace.catalogue
    image = catalogue.images.find("000004.png")
    prediction = catalogue.masks.newest_predictions()[image.id]
    stocked.mask(image.id, np.ones((12, 10), np.uint8), parent_id=prediction.id)
    (item,) = [
        i
        for i in Release.gather(stocked.workspace, keep_names=True).items()
        if i.image.id == image.id
    ]
    assert item.parent == prediction.content_hash
    assert (item.accepted, item.model, item.identity.reviewer) == (True, None, "reader-2")


@pytest.mark.parametrize("format_name", FORMATS)
def test_write_release__two_datasets_with_the_same_names(
    builder: Builder, tmp_path: Path, format_name: str
) -> None:
    for dataset in ("a", "b"):
        photograph = builder.image("1.png", dataset=dataset)
        builder.mask(photograph, np.full((12, 10), len(dataset), np.uint8))
    write_release(Release.gather(builder.workspace, keep_names=True), format_name, tmp_path / "out")
    assert names(tmp_path / "out/images") == {"a_1.png", "b_1.png"}


@pytest.mark.process
def test_write_release__unknown_format(stocked: Builder, tmp_path: Path, refusal: Refusal) -> None:
    with refusal(InputError):
        write_release(Release.gather(stocked.workspace, keep_names=True), "bmp", tmp_path / "out")
