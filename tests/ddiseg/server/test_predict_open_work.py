from __future__ import annotations

import pytest

from ddiseg.server import predictions
from ddiseg.server.jobs import StoppedError
from ddiseg.server.model_cache import ModelCache
from ddiseg.server.predictions import predict_open_work
from tests.ddiseg.server.desk import Desk


@pytest.fixture
def model(trained: Desk) -> ModelCache:
    return ModelCache(trained.workspace, "cpu")


def _painted(desk: Desk) -> set[int]:
    return set(desk.workspace.catalogue.masks.newest_predictions())


@pytest.mark.training
def test_paint__what_people_have_and_nothing_else(trained: Desk, model: ModelCache) -> None:
    given, _ = trained.workspace.catalogue.images.select()[4:]
    trained.give([given])
    predict_open_work(trained.workspace, model, lambda: False)
    assert _painted(trained) == {given.id}


@pytest.mark.training
def test_paint__leaves_what_an_older_model_has_painted(trained: Desk, model: ModelCache) -> None:
    images = list(trained.workspace.catalogue.images.select())[4:]
    trained.give(images)
    trained.predict(images[:1])
    trained.workspace.catalogue.models.promote("fedd-1", "manager", "a test", forced=True)
    predict_open_work(trained.workspace, model, lambda: False)
    names = {
        image.id: [m.model_version_id for m in trained.workspace.catalogue.masks.of_image(image.id)]
        for image in images
    }
    assert names == {images[0].id: [2], images[1].id: [1]}


@pytest.mark.training
def test_paint__stops_between_parts(
    trained: Desk, model: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.give(list(trained.workspace.catalogue.images.select())[4:])
    monkeypatch.setattr(predictions, "JOB_BATCH", 1)
    answers = iter([False, True])
    with pytest.raises(StoppedError):
        predict_open_work(trained.workspace, model, lambda: next(answers))
    assert len(_painted(trained)) == 1


@pytest.mark.training
def test_model__another_one_in_use_is_loaded(trained: Desk, model: ModelCache) -> None:
    with model.predictor() as predictor:
        first = predictor.version.name
    settings = trained.workspace.catalogue.models.current()
    trained.predict(list(trained.workspace.catalogue.images.select())[4:5])
    assert (first, settings.name) == ("fedd-1", "fedd-1")
    with pytest.raises(Exception, match="missing"), model.predictor():
        pass  # fedd-2 of the test has no file: it was looked for
    trained.workspace.catalogue.models.promote("fedd-1", "manager", "a test", forced=True)
    with model.predictor() as predictor:
        assert predictor.version.name == "fedd-1"
