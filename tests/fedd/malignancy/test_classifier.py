from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedd.backbone import IMAGENET_256, DiffusionUNet
from fedd.errors import TrainingDataError, WeightsError
from fedd.malignancy.classifier import (
    CLASSIFIER_KIND,
    DISCLAIMER,
    PAPER_BLOCKS,
    ClassifierSettings,
    Examples,
    MalignancyClassifier,
    Training,
    default_settings,
    features_of,
    network,
    train_classifier,
)
from fedd.malignancy.discrimination import roc_auc
from fedd.malignancy.stored import load_classifier
from fedd.paper import results
from fedd.weights.files import read_safetensors, write_safetensors
from tests.fedd.conftest import TINY, mole
from tests.wording import Refusal

QUICK = ClassifierSettings(block=5, timestep=10, epochs=120, learning_rate=0.01)


def _examples(net: DiffusionUNet, first: int, count: int) -> Examples:
    malignant = np.arange(count) % 2 == 0
    photographs = (mole(first + n, bool(m)) for n, m in enumerate(malignant))
    return Examples(features_of(photographs, net, QUICK), malignant)


@pytest.fixture(scope="module")
def parts(tiny: DiffusionUNet) -> tuple[Examples, Examples]:
    return _examples(tiny, 0, 24), _examples(tiny, 100, 8)


@pytest.fixture(scope="module")
def done(tiny: DiffusionUNet, parts: tuple[Examples, Examples]) -> Training:
    return train_classifier(*parts, tiny, QUICK)


@pytest.mark.training
def test_train__tells_apart_what_is_plain_to_see(tiny: DiffusionUNet, done: Training) -> None:
    malignant = np.arange(12) % 3 == 0
    photographs = [mole(200 + n, bool(m)) for n, m in enumerate(malignant)]
    found = done.classifier.predict(tiny, photographs)
    assert found.shape == (12,)
    assert ((found > 0) & (found < 1)).all()
    assert roc_auc(malignant, found) > 0.9
    assert ((found >= done.classifier.threshold) == malignant).mean() > 0.8


@pytest.mark.training
def test_train__same_seed_same_weights_other_seed_other_weights(
    tiny: DiffusionUNet, parts: tuple[Examples, Examples], done: Training
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = train_classifier(*parts, tiny, QUICK)
    assert torch.equal(torch.rand(3), expected), "nobody else's random numbers are touched"
    other = train_classifier(*parts, tiny, replace(QUICK, seed=1))
    assert (again.epochs, again.best_epoch) == (done.epochs, done.best_epoch)
    for name, value in done.classifier.tensors.items():
        assert torch.equal(again.classifier.tensors[name], value)
    assert not torch.equal(
        other.classifier.tensors["0.weight"], done.classifier.tensors["0.weight"]
    )


def test_network__as_in_the_paper(done: Training) -> None:
    net = done.classifier._net
    linear = [m for m in net if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(512, 64), (64, 32), (32, 1)]
    assert [m.p for m in net if isinstance(m, torch.nn.Dropout)] == [0.5, 0.25]
    assert [m.num_features for m in net if isinstance(m, torch.nn.BatchNorm1d)] == [64, 32]
    assert (ClassifierSettings(4).epochs, ClassifierSettings(4).weight_decay) == (500, 1e-5)


@pytest.mark.training
def test_train__keeps_the_weights_of_the_lowest_validation_loss(
    tiny: DiffusionUNet, parts: tuple[Examples, Examples]
) -> None:
    seen: list[int] = []
    done = train_classifier(
        *parts, tiny, replace(QUICK, patience=5, epochs=500), lambda at, total: seen.append(at)
    )
    assert done.epochs == seen[-1] == done.best_epoch + 5
    probabilities = done.classifier.probabilities(parts[1].features)
    truth = parts[1].malignant
    loss = -np.log(np.where(truth, probabilities, 1 - probabilities)).mean()
    assert loss == pytest.approx(done.validation_loss, rel=1e-5)
    longer = train_classifier(*parts, tiny, replace(QUICK, patience=500, epochs=done.best_epoch))
    assert longer.epochs == longer.best_epoch == done.best_epoch
    assert longer.validation_loss == done.validation_loss


def test_predict__one_by_one_and_together(tiny: DiffusionUNet, done: Training) -> None:
    photographs = [mole(n, False) for n in range(10)]
    together = done.classifier.predict(tiny, photographs)
    alone = [done.classifier.predict(tiny, [p])[0] for p in photographs]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_predict__odd_sizes(tiny: DiffusionUNet, done: Training) -> None:
    wide: NDArray[np.uint8] = np.zeros((4, 40, 3), np.uint8)
    assert np.isfinite(done.classifier.predict(tiny, [wide, np.zeros((1, 1, 3), np.uint8)])).all()


def test_features__none_for_no_photographs(tiny: DiffusionUNet) -> None:
    assert len(features_of([], tiny, QUICK)) == 0


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("malignant", [True, False])
def test_train__one_class_only(
    tiny: DiffusionUNet, parts: tuple[Examples, Examples], part: str, malignant: bool
) -> None:
    training, validation = parts
    if part == "training":
        training = training.part(training.malignant == malignant)
    else:
        validation = validation.part(validation.malignant == malignant)
    with pytest.raises(
        TrainingDataError, match=f"the {part} split has .* needs malignant and beni"
    ):
        train_classifier(training, validation, tiny, QUICK)


@pytest.mark.parametrize(("images", "block"), [(2, 4), (30, 4), (60, 6), (95, 12), (5000, 14)])
def test_default_settings__the_papers_block_for_so_many_images(images: int, block: int) -> None:
    assert default_settings(IMAGENET_256, images) == ClassifierSettings(block, timestep=0)


def test_paper_blocks__those_of_figure_6() -> None:
    by_fraction = {str(images // 6): block for images, block in PAPER_BLOCKS.items()}
    assert by_fraction == results()["best_classification_block"]


def test_default_settings__of_other_backbones(tiny: DiffusionUNet) -> None:
    settings = default_settings(TINY, 30)
    assert settings == default_settings(TINY, 120)
    assert settings.block in tiny.blocks


def test_file__of_an_older_program(tmp_path: Path) -> None:
    """Written before there were recipes: two features, of which the first counts."""
    tensors = {name: torch.zeros_like(t) for name, t in network(2).state_dict().items()}
    for norm in ("1", "5"):
        tensors[f"{norm}.weight"] += 1
        tensors[f"{norm}.running_var"] += 1 - 1e-5  # the norm adds 1e-5
    tensors["0.weight"][0, 0], tensors["4.weight"][0, 0], tensors["8.weight"][0, 0] = 1, 2, 0.5
    tensors["8.bias"] -= 1
    settings = {
        **{"block": 5, "timestep": 50, "learning_rate": 0.001, "weight_decay": 1e-05},
        **{"epochs": 500, "patience": 50, "validation": 0.2, "seed": 0},
    }
    header = {
        **{"kind": "fedd-malignancy", "note": "research", "settings": json.dumps(settings)},
        **{"backbone_name": "small", "backbone_hash": "ab", "threshold": "0.25"},
    }
    write_safetensors(tmp_path / "old.safetensors", tensors, header)
    old = load_classifier(tmp_path / "old.safetensors")
    assert isinstance(old, MalignancyClassifier)
    assert (old.settings, old.threshold) == (ClassifierSettings(5, 50), 0.25)
    found = old.probabilities(torch.tensor([[3.0, 9.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(found, 1 / (1 + np.exp([-2.0, 1.0])), rtol=1e-6)


def test_file__round_trip(tmp_path: Path, tiny: DiffusionUNet, done: Training) -> None:
    path = tmp_path / "c.safetensors"
    done.classifier.save(path, {"made_by": "a test"})
    loaded = load_classifier(path)
    photographs = [mole(n, True) for n in range(3)]
    expected = done.classifier.predict(tiny, photographs)
    np.testing.assert_allclose(loaded.predict(tiny, photographs), expected, rtol=1e-6)
    for name, value in done.classifier.tensors.items():
        assert torch.equal(loaded.tensors[name], value)
    assert (loaded.settings, loaded.threshold) == (QUICK, done.classifier.threshold)
    _, header = read_safetensors(path, CLASSIFIER_KIND)
    assert (header["note"], header["made_by"]) == (DISCLAIMER, "a test")
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_predict__another_backbone_is_refused_and_both_are_named(done: Training) -> None:
    other = DiffusionUNet.random(TINY, seed=2)
    with pytest.raises(WeightsError, match=rf"block 5 .*{done.classifier.backbone_hash[:12]}.*not"):
        done.classifier.predict(other, [mole(1, True)])


def test_features__a_block_that_does_not_exist(tiny: DiffusionUNet, refusal: Refusal) -> None:
    with refusal(WeightsError):
        features_of([mole(1, True)], tiny, replace(QUICK, block=8))


def test_features__activations_that_are_not_numbers(refusal: Refusal) -> None:
    net = DiffusionUNet.random(TINY)
    for weight in net.net.middle_block.parameters():
        weight.fill_(torch.nan)
    with refusal(WeightsError):
        features_of([mole(1, True)], net, QUICK)


def test_file__missing(tmp_path: Path, refusal: Refusal) -> None:
    with refusal(WeightsError):
        load_classifier(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("header", "drop"),
    [
        ({"settings": "{}"}, ""),
        ({"settings": json.dumps({"block": 1, "unheard": 2})}, ""),
        ({"threshold": "high"}, ""),
        ({}, "0.weight"),
        ({}, "4.bias"),
        ({}, "1.running_mean"),
    ],
)
def test_file__not_of_this_version(
    tmp_path: Path, done: Training, header: dict[str, str], drop: str, refusal: Refusal
) -> None:
    path = tmp_path / "c.safetensors"
    done.classifier.save(path)
    tensors, there = read_safetensors(path, CLASSIFIER_KIND)
    write_safetensors(path, {k: v for k, v in tensors.items() if k != drop}, {**there, **header})
    with refusal(WeightsError):
        load_classifier(path)


def test_classifier__is_never_half_valid(done: Training) -> None:
    tensors = {**done.classifier.tensors, "0.weight": torch.zeros(64, 7, 2)}
    with pytest.raises(RuntimeError):
        MalignancyClassifier(QUICK, "tiny", "0" * 64, 0.5, tensors)
