"""Painting images with the model version in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddiseg import masks
from ddiseg.catalogue import State
from ddiseg.errors import WorkspaceError
from ddiseg.model import prediction_writer
from ddiseg.model.predict import prelabel
from ddiseg.model.storage import load_version
from ddiseg.model.train import Refreshed, train_version
from ddiseg.outcomes import Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.errors import WeightsError
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
    from fedd.backbone import DiffusionUNet
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
