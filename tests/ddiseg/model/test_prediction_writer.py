"""Storage of predictions: files before rows, in batches, and what is kept when something fails."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation_protocol import files
from ddiseg.catalogue import NewModelVersion
from ddiseg.catalogue.masks import Masks
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.masks import encode_png, mask_hash
from ddiseg.model import prediction_writer
from ddiseg.model.prediction_writer import PredictionWriter
from ddiseg.outcomes import Outcome
from ddiseg.workspace import mask_writer, store
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from fedd.segment import Prediction
from tests.ddiseg.rows import new_image

IMAGES = 8
SPACE_LEFT = 3


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_writer, "TRANSACTION", 4)
    monkeypatch.setattr(prediction_writer, "SECONDS", 1e9)


@pytest.fixture
def images(workspace: Workspace) -> list[Image]:
    """Rows of images; nothing here opens a photograph."""
    dataset = workspace.catalogue.images.dataset("clinic", licence="CC-BY-4.0")
    rows = [new_image(number) for number in range(IMAGES)]
    workspace.catalogue.images.add(dataset.id, rows, "tester")
    return list(workspace.catalogue.images.select())


@pytest.fixture
def version(workspace: Workspace) -> ModelVersion:
    new = NewModelVersion("0" * 64, "small", "1" * 64, {}, [], {"absent_classes": []}, "1.0")
    return workspace.catalogue.models.add(new, "tester")


def prediction(number: int) -> Prediction:
    """A mask, another for each number."""
    mask = np.full((6, 8), 4, np.uint8)
    mask.flat[number] = 1
    expected = {1: number / 200, 4: 0.5}
    return Prediction(mask, number / 100, np.full(3, number, np.float32), expected)


def write(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    error: BaseException | None = None,
) -> PredictionWriter:
    """Store a prediction of each image; `error` comes after the last."""
    writer = PredictionWriter(workspace, version, (1, 4))
    with writer:
        for image in images:
            writer.add(image, prediction(image.id))
        if error is not None:
            raise error
    return writer


def _problems(workspace: Workspace) -> list[str]:
    """What verify says of masks and history; there are no photographs and no model here."""
    return [p.line for p in verify(workspace).problems if p.part in ("mask", "history")]


def test_writer__rows_and_files_of_all(
    workspace: Workspace, version: ModelVersion, images: list[Image]
) -> None:
    writer = write(workspace, version, images)
    assert writer.stored == {image.id: Outcome.ADDED for image in images}
    rows = workspace.catalogue.masks.all()
    assert [row.image_id for row in rows] == [image.id for image in images], "in order"
    for row in rows:
        assert row.uncertainty == row.image_id / 100
        assert row.expected_iou == {"lesion": row.image_id / 200, "skin": 0.5}
        assert row.quality == row.image_id / 200
        np.testing.assert_array_equal(workspace.mask(row), prediction(row.image_id).mask)
    assert workspace.catalogue.events.contradictions() == []
    ids, vectors = workspace.catalogue.embeddings.of(writer._space)
    assert dict(zip(ids.tolist(), vectors[:, 0].tolist(), strict=True)) == {
        image.id: float(image.id) for image in images
    }


def test_writer__each_folder_is_flushed_once_a_batch_and_before_its_rows(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    flush, add = store.flush_folder, Masks.add_predictions

    def flushed(folder: Path) -> None:
        done.append(str(folder))
        flush(folder)

    def added(masks: Masks, *args: Any) -> list[Outcome]:
        done.append("rows")
        return add(masks, *args)

    monkeypatch.setattr(store, "flush_folder", flushed)
    monkeypatch.setattr(Masks, "add_predictions", added)
    write(workspace, version, images[:6])
    root = Path(workspace.store.url)
    expected: list[str] = []
    seen: set[Path] = set()
    for batch in (images[:4], images[4:6]):
        folders = {root / "masks" / mask_hash(prediction(i.id).mask)[:2] for i in batch}
        above = {root, root / "masks"} if folders - seen else set()
        seen |= folders
        expected += [*sorted(map(str, folders | above)), "rows"]
    assert done == expected


def test_writer__one_flush_a_file_and_one_a_folder(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mask's own folder is one of 256, so that four masks lie in up to four."""
    kinds: Counter[str] = Counter()
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        kinds["folder" if os.path.isdir(path) else "file"] += 1
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the kind of a descriptor is read from /proc, which only Linux has")
    monkeypatch.setattr(files.os, "fsync", counted)
    write(workspace, version, images[:4])
    folders = {mask_hash(prediction(image.id).mask)[:2] for image in images[:4]}
    assert kinds == {"file": 4, "folder": len(folders) + 2}


def test_writer__mask_that_is_stored_is_not_encoded_again(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace.store_mask(prediction(images[0].id).mask)
    encoded = []

    def counting(mask: np.ndarray, palette: Any) -> bytes:
        encoded.append(mask_hash(mask))
        return encode_png(mask, palette)

    monkeypatch.setattr("ddiseg.masks.encode_png", counting)
    write(workspace, version, images[:2])
    assert encoded == [mask_hash(prediction(images[1].id).mask)]
    assert len(workspace.catalogue.masks.all()) == 2


def test_writer__stopped_between_files_and_rows(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No row, then; the files are there without one, and the next run uses them."""

    def stopped(*_: Any) -> list[Outcome]:
        raise WorkspaceError("catalogue: disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Masks, "add_predictions", stopped)
        with pytest.raises(WorkspaceError, match="disk I/O"):
            write(workspace, version, images[:4])
    assert workspace.catalogue.masks.all() == []
    assert len(workspace.store.digests(Kind.MASK)) == 4
    monkeypatch.setattr("ddiseg.masks.encode_png", None)  # it would fail: nothing is encoded again
    writer = write(workspace, version, images[:4])
    assert set(writer.stored.values()) == {Outcome.ADDED}
    assert _problems(workspace) == []


def _full_from(monkeypatch: pytest.MonkeyPatch, nth: int, number: int = errno.ENOSPC) -> None:
    """Let the disk be full from the nth file on."""
    lock, calls, write = threading.Lock(), [0], store.atomic_write

    def writing(path: Path, *args: Any, **options: Any) -> None:
        with lock:
            calls[0] += 1
            full = calls[0] >= nth
        if full:
            raise OSError(number, os.strerror(number))
        write(path, *args, **options)

    monkeypatch.setattr(store, "atomic_write", writing)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_writer__disk_full_keeps_what_was_written(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    monkeypatch.setattr(mask_writer, "THREADS", 1)  # the files in order
    with monkeypatch.context() as patch:
        _full_from(patch, SPACE_LEFT + 1, number)
        with pytest.raises(WorkspaceError, match="run the same command again"):
            write(workspace, version, images)
    stored = [row.image_id for row in workspace.catalogue.masks.all()]
    assert stored == [image.id for image in images[:SPACE_LEFT]]
    assert _problems(workspace) == []
    writer = write(workspace, version, images)
    assert Counter(writer.stored.values()) == {
        Outcome.UNCHANGED: SPACE_LEFT,
        Outcome.ADDED: IMAGES - SPACE_LEFT,
    }


def test_writer__folder_in_the_place_of_one_mask(
    workspace: Workspace, version: ModelVersion, images: list[Image]
) -> None:
    Path(workspace.store.path(Kind.MASK, mask_hash(prediction(images[1].id).mask))).mkdir(
        parents=True
    )
    writer = write(workspace, version, images[:3])
    assert list(writer.refused) == [images[1].id]
    assert "is a folder" in writer.refused[images[1].id]
    assert set(writer.stored) == {images[0].id, images[2].id}


def test_writer__error_while_predicting_keeps_what_was_handed_in(
    workspace: Workspace, version: ModelVersion, images: list[Image]
) -> None:
    with pytest.raises(InputError, match="not of the writer"):
        write(workspace, version, images[:1], InputError("not of the writer"))
    assert [row.image_id for row in workspace.catalogue.masks.all()] == [images[0].id]


def test_writer__interrupted_drops_what_is_in_no_full_batch(
    workspace: Workspace, version: ModelVersion, images: list[Image]
) -> None:
    def interrupted() -> None:
        with PredictionWriter(workspace, version, (1, 4)) as writer:
            for image in images[:6]:
                writer.add(image, prediction(image.id))
            for each in writer._batch:
                each.digest.result(10)
            for batch in writer._committing:
                batch.result(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    stored = [row.image_id for row in workspace.catalogue.masks.all()]
    assert stored == [image.id for image in images[:4]]
    assert _problems(workspace) == []
    assert set(write(workspace, version, images).stored) == {image.id for image in images}


def test_writer__slow_predictions_are_stored_each(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction_writer, "SECONDS", 0)
    with PredictionWriter(workspace, version, (1, 4)) as writer:
        writer.add(images[0], prediction(images[0].id))
        while not writer.stored:
            pass
        assert len(workspace.catalogue.masks.all()) == 1


def test_writer__two_at_once(
    workspace: Workspace, version: ModelVersion, images: list[Image]
) -> None:
    one, other = (PredictionWriter(workspace, version, (1, 4)) for _ in range(2))
    with one, other:
        for number, image in enumerate(images):
            one.add(image, prediction(number))
            other.add(image, prediction(number + 10))
    assert len(workspace.catalogue.masks.all()) == IMAGES
    outcomes = Counter([*one.stored.values(), *other.stored.values()])
    assert outcomes == {Outcome.ADDED: IMAGES, Outcome.UNCHANGED: IMAGES}
    assert _problems(workspace) == []


@pytest.mark.slow
def test_writer__batches_that_wait_are_bounded(
    workspace: Workspace,
    version: ModelVersion,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A catalogue that takes nothing stops the caller, however many predictions come."""
    monkeypatch.setattr(prediction_writer, "TRANSACTION", 1)
    go_on, add = threading.Event(), Masks.add_predictions

    def waiting(masks: Masks, *args: Any) -> list[Outcome]:
        go_on.wait(10)
        return add(masks, *args)

    monkeypatch.setattr(Masks, "add_predictions", waiting)
    taken = []

    def run() -> None:
        with PredictionWriter(workspace, version, (1, 4)) as writer:
            for number, image in enumerate(images):
                writer.add(image, prediction(number))
                taken.append(image.id)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.1)
    assert len(taken) <= prediction_writer.BATCHES
    go_on.set()
    thread.join(10)
    assert len(taken) == IMAGES
