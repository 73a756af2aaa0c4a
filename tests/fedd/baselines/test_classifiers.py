from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedd.baselines import (
    MODELS,
    ClassificationBaseline,
    CNNSettings,
    Diagnosed,
    Recipe,
    Start,
    load_cnn,
    train_cnn,
)
from fedd.baselines.cnns import _build
from fedd.baselines.fitting import scaled, seeded, squeezed
from fedd.baselines.frozen import encoder_of
from fedd.baselines.packages import define_missing_operators
from fedd.errors import DeviceError, TrainingDataError, WeightsError
from tests.fedd.baselines.full_gpu import FullGPU
from tests.fedd.conftest import spot
from tests.wording import Refusal

define_missing_operators()
pytest.importorskip("torchvision", reason="needs ddiseg[baselines]")

SCRATCH = CNNSettings(
    model="densenet121",
    start=Start.SCRATCH,
    image_size=32,
    epochs=8,
    batch_size=4,
    learning_rate=1e-3,
    augment=False,
)


FROZEN = CNNSettings.of(
    Recipe.PAPER, "mobilenet_v2", start=Start.SCRATCH, image_size=32, batch_size=4
)


def _examples(seeds: range) -> list[Diagnosed]:
    """Reddish lesions are the malignant ones."""
    found = []
    for seed in seeds:
        photograph, mask = spot(seed)
        malignant = seed % 2 == 0
        photograph[mask == 1] = (200, 20, 20) if malignant else (60, 60, 90)
        found.append(Diagnosed(photograph, malignant))
    return found


@pytest.fixture(scope="module")
def trained() -> ClassificationBaseline:
    return train_cnn(_examples(range(8)), _examples(range(8, 12)), SCRATCH)


@pytest.mark.training
def test_train__learns_to_tell_them_apart(trained: ClassificationBaseline) -> None:
    others = _examples(range(20, 28))
    found = trained.predict(e.photograph for e in others)
    malignant = np.array([e.malignant for e in others])
    assert found.shape == (8,)
    assert found[malignant].mean() > found[~malignant].mean() + 0.2


@pytest.mark.training
def test_predict__nothing(trained: ClassificationBaseline) -> None:
    assert trained.predict([]).shape == (0,)


@pytest.mark.training
def test_predict__one_whatever_the_others(trained: ClassificationBaseline) -> None:
    a, b = (e.photograph for e in _examples(range(20, 22)))
    np.testing.assert_allclose(trained.predict([a, b])[1:], trained.predict([b]), rtol=1e-6)


@pytest.mark.training
def test_predict__a_full_gpu(
    trained: ClassificationBaseline, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setattr(trained, "net", FullGPU(trained.net))
    with refusal(DeviceError):
        trained.predict([spot(1)[0]])


@pytest.mark.training
def test_file__says_the_same(trained: ClassificationBaseline, tmp_path: Path) -> None:
    trained.save(tmp_path / "cnn.safetensors")
    again = load_cnn(tmp_path / "cnn.safetensors")
    photographs = [e.photograph for e in _examples(range(3))]
    np.testing.assert_array_equal(again.predict(photographs), trained.predict(photographs))
    assert (again.settings, again.epoch) == (SCRATCH, trained.epoch)


@pytest.mark.training
def test_train__same_seed_same_network() -> None:
    settings = replace(SCRATCH, model="mobilenet_v2", epochs=2, augment=True)
    first, second = (train_cnn(_examples(range(6)), (), settings) for _ in range(2))
    for a, b in zip(first.net.state_dict().values(), second.net.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.training
@pytest.mark.parametrize("model", MODELS)
def test_build__two_outputs(model: str) -> None:
    net = _build(model).eval()
    size = 75 if model == "deepderm" else 32
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, size, size)).shape == (1, 2)


def test_train__one_kind_only(refusal: Refusal) -> None:
    benign = [e for e in _examples(range(6)) if not e.malignant]
    with refusal(TrainingDataError):
        train_cnn(benign, (), SCRATCH)


def test_train__validation_of_one_kind_only(refusal: Refusal) -> None:
    malignant = [e for e in _examples(range(6)) if e.malignant]
    with refusal(TrainingDataError):
        train_cnn(_examples(range(6)), malignant, FROZEN)


def test_settings__a_frozen_encoder_sees_no_views(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        replace(FROZEN, augment=True)


@pytest.mark.training
@pytest.mark.parametrize("model", ["mobilenet_v2", "deepderm"])
def test_file__of_the_papers_recipe_holds_all_that_it_needs(model: str, tmp_path: Path) -> None:
    size = 75 if model == "deepderm" else 32
    settings = CNNSettings.of(Recipe.PAPER, model, start=Start.SCRATCH, image_size=size, epochs=2)
    done = train_cnn(_examples(range(6)), _examples(range(8, 12)), settings)
    done.save(tmp_path / "cnn.safetensors")
    again = load_cnn(tmp_path / "cnn.safetensors")
    photographs = [e.photograph for e in _examples(range(20, 23))]
    np.testing.assert_array_equal(again.predict(photographs), done.predict(photographs))
    assert (again.settings, again.epoch) == (settings, done.epoch)


@pytest.mark.training
def test_train__the_head_learns_its_photographs_by_heart(tmp_path: Path) -> None:
    with seeded(0):
        encoder = encoder_of("mobilenet_v2").train()
        pictures = [squeezed(e.photograph, 32) for e in _examples(range(40, 72))]
        for _ in range(60):  # random weights whose batch norms know how large their inputs are
            encoder(scaled(torch.stack(pictures)))
    torch.save(encoder.state_dict(), tmp_path / "e.pth")
    settings = replace(FROZEN, start=tmp_path / "e.pth", epochs=400, learning_rate=1e-2)
    examples = _examples(range(12))
    done = train_cnn(examples, (), settings)
    found = done.predict(e.photograph for e in examples) > 0.5
    assert found.tolist() == [e.malignant for e in examples]


@pytest.mark.training
def test_train__frozen_same_seed_same_network() -> None:
    settings = replace(FROZEN, epochs=2)
    first, second = (train_cnn(_examples(range(6)), (), settings) for _ in range(2))
    for a, b in zip(first.net.state_dict().values(), second.net.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.training
def test_train__frozen_on_a_full_gpu(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    monkeypatch.setattr("fedd.baselines.cnns._frozen_encoder", lambda _: FullGPU(nn.Linear(1, 1)))
    with refusal(DeviceError):
        train_cnn(_examples(range(6)), (), FROZEN)


def test_load__damaged(tmp_path: Path, refusal: Refusal) -> None:
    from fedd.weights.files import write_safetensors

    header = {"kind": "fedd-cnn", "settings": FROZEN.to_json(), "epoch": "1"}
    write_safetensors(tmp_path / "c.safetensors", {"a": torch.zeros(1)}, header)
    with refusal(WeightsError):
        load_cnn(tmp_path / "c.safetensors")


def test_train__nothing(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        train_cnn([], (), SCRATCH)


def test_train__device_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="cuda:9"):
        train_cnn(_examples(range(2)), (), SCRATCH, device="cuda:9")


def test_settings__unknown_model(refusal: Refusal) -> None:
    with refusal(WeightsError):
        CNNSettings(model="resnet")


def test_settings__smaller_than_the_network(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        CNNSettings(model="deepderm", image_size=64)


def test_load__a_unet(tmp_path: Path, refusal: Refusal) -> None:
    from fedd.weights.files import write_safetensors

    write_safetensors(tmp_path / "u.safetensors", {"a": torch.zeros(1)}, {"kind": "fedd-unet"})
    with refusal(WeightsError):
        load_cnn(tmp_path / "u.safetensors")
