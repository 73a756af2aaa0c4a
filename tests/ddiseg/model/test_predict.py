"""Painting images with the model version in use."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg import masks
from ddiseg.catalogue import State
from ddiseg.catalogue.tables import Image
from ddiseg.errors import WorkspaceError
from ddiseg.images import Photograph
from ddiseg.model import prediction_writer
from ddiseg.model.predict import prelabel
from ddiseg.model.storage import load_version
from ddiseg.model.train import Refreshed, train_version
from ddiseg.outcomes import Outcome
from ddiseg.workspace import mask_writer, store
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.errors import DeviceError, WeightsError
from tests.fedd.conftest import QUICK, spot
from tests.wording import Refusal

Learn = Callable[..., Refreshed]


@pytest.mark.training
def test_prelabel__paints_and_moves_new_images_on(spots: Workspace, learn: Learn) -> None:
    version = learn(spots).version
    used, outcomes = prelabel(spots, spots.catalogue.images.select(ids=[5, 6, 7, 8]))
    assert used.id == version.id
    assert Counter(o.outcome for o in outcomes) == {Outcome.ADDED: 4}
    predictions = spots.catalogue.masks.newest_predictions()
    assert set(predictions) == {5, 6, 7, 8}
    for image in spots.catalogue.images.select(ids=[5, 6, 7, 8]):
        assert image.state == State.PRELABELLED
        mask = predictions[image.id]
        assert mask.uncertainty is not None
        assert mask.uncertainty > 0
        assert mask.classes == [1, 4]
        painted = spots.mask(mask) == 1
        truth = spot(image.id - 1)[1] == 1
        assert (painted & truth).sum() / (painted | truth).sum() > 0.4


@pytest.mark.training
def test_prelabel__changes_nothing_about_images_that_are_settled(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    spots.catalogue.images.skip(9, "blurry", None, "anna")
    accepted = {i: m.id for i, m in spots.catalogue.masks.accepted().items()}
    _, outcomes = prelabel(spots, spots.catalogue.images.select(ids=[1, 9]))
    assert Counter(o.outcome for o in outcomes) == {Outcome.ADDED: 2}
    states = [i.state for i in spots.catalogue.images.select(ids=[1, 9])]
    assert states == [State.ACCEPTED, State.SKIPPED]
    assert {i: m.id for i, m in spots.catalogue.masks.accepted().items()} == accepted
    assert spots.catalogue.events.contradictions() == []


@pytest.mark.training
def test_prelabel__emptied_photograph_in_the_words_of_verify(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    (image,) = spots.catalogue.images.select(ids=[5])
    Path(spots.store.path(Kind.IMAGE, image.content_hash)).write_bytes(b"")
    _, (refused,) = prelabel(spots, [image])
    (found,) = verify(spots).problems
    for said in (str(refused.note), found.line):
        assert "the stored file is empty; import the original again" in said


@pytest.mark.training
def test_prelabel__event_holds_the_precision(spots: Workspace, learn: Learn) -> None:
    learn(spots)
    for image, precision in ((5, "float32"), (6, "bfloat16")):
        prelabel(spots, spots.catalogue.images.select(ids=[image]), precision=precision)
        event = spots.catalogue.events.of_image(image)[-1]
        (mask,) = spots.catalogue.masks.of_image(image)
        assert event.kind == "prelabel"
        assert event.detail == {"mask": mask.content_hash, "precision": precision}


@pytest.mark.training
def test_prelabel__again_is_unchanged(spots: Workspace, learn: Learn) -> None:
    learn(spots)
    todo = spots.catalogue.images.select(states=[State.NEW])
    prelabel(spots, todo)
    events = spots.catalogue.events.count()
    _, outcomes = prelabel(spots, todo)
    assert {o.outcome for o in outcomes} == {Outcome.UNCHANGED}
    assert spots.catalogue.events.count() == events


@pytest.mark.training
def test_prelabel__interrupted_keeps_what_was_painted(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(spots)
    monkeypatch.setattr(prediction_writer, "TRANSACTION", 2)
    todo = spots.catalogue.images.select(states=[State.NEW])

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prelabel(spots, todo, stop)
    assert len(spots.catalogue.masks.newest_predictions()) == 2
    _, outcomes = prelabel(spots, todo)
    assert Counter(o.outcome for o in outcomes) == {Outcome.UNCHANGED: 2, Outcome.ADDED: 3}
    assert spots.catalogue.events.contradictions() == []


@pytest.mark.training
def test_prelabel__missing_photograph_does_not_stop_the_rest(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    image = spots.catalogue.images.find("5.png")
    Path(spots.store.path(Kind.IMAGE, image.content_hash)).unlink()
    _, outcomes = prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))
    refused = [o for o in outcomes if o.outcome is Outcome.REFUSED]
    assert [o.name for o in refused] == ["5.png"]
    assert "the stored file is missing" in str(refused[0].note)
    assert len(outcomes) == 5


@pytest.mark.training
def test_prelabel__outcomes_in_order_and_an_image_given_twice_once(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    by_id = {image.id: image for image in spots.catalogue.images.select()}
    prelabel(spots, [by_id[7]])
    progress: list[tuple[int, int]] = []
    given = [by_id[i] for i in (9, 7, 5, 9)]
    _, outcomes = prelabel(spots, given, lambda done, total: progress.append((done, total)))
    assert [(o.name, o.outcome) for o in outcomes] == [
        ("8.png", Outcome.ADDED),
        ("6.png", Outcome.UNCHANGED),
        ("4.png", Outcome.ADDED),
        ("8.png", Outcome.UNCHANGED),
    ]
    assert progress == [(1, 2), (2, 2)]
    assert len(spots.catalogue.masks.of_image(9)) == 1


@pytest.mark.training
@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("in a decoder")], ids=str)
def test_prelabel__photograph_that_fails_in_a_thread(
    spots: Workspace,
    learn: Learn,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    wording: SnapshotAssertion,
) -> None:
    learn(spots)
    opened = Workspace.photograph

    def photograph(workspace: Workspace, image: Image) -> Photograph:
        if image.id == 6:
            raise error
        return opened(workspace, image)

    monkeypatch.setattr(Workspace, "photograph", photograph)
    _, outcomes = prelabel(spots, spots.catalogue.images.select(ids=[5, 6, 7]))
    assert [o.outcome for o in outcomes] == [Outcome.ADDED, Outcome.REFUSED, Outcome.ADDED]
    assert outcomes[1].note == wording


@pytest.mark.training
def test_prelabel__disk_full_says_what_is_stored(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    learn(spots)
    monkeypatch.setattr(mask_writer, "THREADS", 1)
    write, calls = store.atomic_write, [0]

    def full(path: Path, *args: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *args, **options)

    todo = spots.catalogue.images.select(states=[State.NEW])
    with monkeypatch.context() as patch, refusal(WorkspaceError):
        patch.setattr(store, "atomic_write", full)
        prelabel(spots, todo)
    assert spots.catalogue.masks.newest_predictions().keys() == {5, 6}
    assert verify(spots).problems == []
    _, outcomes = prelabel(spots, todo)
    assert Counter(o.outcome for o in outcomes) == {Outcome.UNCHANGED: 2, Outcome.ADDED: 3}


@pytest.mark.training
def test_prelabel__device_that_fails_keeps_what_was_predicted(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(spots)
    passes, real = [0], DiffusionUNet.activations

    def activations(net: DiffusionUNet, *args: Any, **options: Any) -> Any:
        passes[0] += 1
        if passes[0] > 2:
            raise DeviceError("the GPU's memory does not suffice for one photograph")
        return real(net, *args, **options)

    monkeypatch.setattr(DiffusionUNet, "activations", activations)
    with pytest.raises(DeviceError):
        prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))
    kept = len(spots.catalogue.masks.newest_predictions())
    assert 0 < kept < 5
    monkeypatch.undo()
    _, outcomes = prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))
    assert Counter(o.outcome for o in outcomes)[Outcome.ADDED] == 5 - kept


@pytest.mark.training
def test_prelabel__without_a_model(spots: Workspace) -> None:
    with pytest.raises(LookupError, match="ddiseg refresh"):
        prelabel(spots, spots.catalogue.images.select())


@pytest.mark.training
def test_prelabel__model_file_changed_on_disk(
    spots: Workspace, learn: Learn, refusal: Refusal
) -> None:
    path = Path(spots.store.path(Kind.MODEL, learn(spots).version.file_hash))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refusal(WorkspaceError):
        prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))


@pytest.mark.training
def test_prelabel__backbone_replaced_by_another(
    spots: Workspace, learn: Learn, tmp_path: Path, tiny_weights: Path
) -> None:
    from fedd.weights.files import save_backbone
    from tests.fedd.conftest import TINY

    path = tmp_path / "own.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    train_version(spots, "tester", str(path), 0, QUICK)
    save_backbone(path, "own", TINY, DiffusionUNet.random(TINY, 7).net.state_dict(), {})
    with pytest.raises(WeightsError, match="train new probes"):
        prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))


@pytest.mark.training
def test_prediction__same_image_same_bytes_whatever_the_batch(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    todo = spots.catalogue.images.select(states=[State.NEW])
    prelabel(spots, todo)
    together = {i: spots.mask(m) for i, m in spots.catalogue.masks.newest_predictions().items()}
    learn(spots, seed=0)
    probes, net = load_version(spots, spots.catalogue.models.current())
    for image in todo:
        alone = probes.predict(net, [spots.photograph(image)])[0].mask
        assert np.mean(alone != together[image.id]) < 0.001
    assert masks.classes_in(together[todo[0].id])
