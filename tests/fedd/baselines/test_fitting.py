from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedd.baselines.fitting import (
    Samples,
    _batches,
    _views,
    fit,
    scaled,
    seeded,
    squeezed,
)
from fedd.baselines.losses import Objective
from fedd.baselines.settings import FitSettings, Recipe
from fedd.baselines.weights import Start
from fedd.dataset import UNKNOWN
from fedd.errors import DeviceError, TrainingDataError
from tests.fedd.conftest import spot
from tests.wording import Refusal

CROSS_ENTROPY = Objective(nn.functional.cross_entropy)


def _settings(epochs: int = 6, patience: int = 3, rate: float = 0.1) -> FitSettings:
    return FitSettings(
        image_size=4,
        epochs=epochs,
        patience=patience,
        batch_size=2,
        learning_rate=rate,
        augment=False,
    )


def _samples(count: int = 4) -> Samples:
    images = torch.arange(count * 3 * 16).view(count, 3, 4, 4).to(torch.uint8)
    return Samples(images, torch.arange(count) % 2)


def _net() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


def _scripted(net: nn.Module, validation: list[float]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that trains as usual, and whose validation values are these, epoch after epoch."""
    coming = iter(validation)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if net.training:
            return nn.functional.cross_entropy(outputs, targets)
        return torch.tensor(next(coming))

    return loss


def test_fit__keeps_the_epoch_of_the_lowest_validation_loss() -> None:
    net, seen = _net(), []
    loss = _scripted(net, [3.0, 1.0, 2.0, 2.0, 2.0])

    def report(epoch: int, _train: float, validation: float) -> None:
        seen.append((epoch, validation, net[1].weight.detach().clone()))  # type: ignore[index,union-attr]

    best = fit(net, Objective(loss), _samples(), _samples(2), _settings(), report)
    assert best == 2
    assert [(e, v) for e, v, _ in seen] == [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]
    torch.testing.assert_close(net.state_dict()["1.weight"], seen[1][2])
    assert not torch.allclose(seen[1][2], seen[4][2])
    assert not net.training


def test_fit__without_validation_runs_every_epoch() -> None:
    seen: list[tuple[int, float]] = []
    best = fit(
        _net(),
        CROSS_ENTROPY,
        _samples(),
        _samples(0),
        _settings(),
        lambda epoch, _train, validation: seen.append((epoch, validation)),
    )
    assert best == 6
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert all(math.isnan(validation) for _, validation in seen)


def test_fit__one_image(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        fit(_net(), CROSS_ENTROPY, _samples(1), _samples(0), _settings())


def test_fit__loss_that_is_no_number(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        fit(
            _net(),
            Objective(lambda o, _t: o.sum() * math.nan),
            _samples(),
            _samples(0),
            _settings(),
        )


def test_fit__gpu_out_of_memory(refusal: Refusal) -> None:
    def full(_outputs: Tensor, _targets: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with refusal(DeviceError):
        fit(_net(), Objective(full), _samples(), _samples(0), _settings())


@pytest.mark.property
@given(st.integers(2, 70), st.integers(2, 9), st.sampled_from(Recipe))
def test_batches__all_images_once_and_none_alone(count: int, size: int, recipe: Recipe) -> None:
    parts = _batches(torch.arange(count), FitSettings(image_size=4, batch_size=size, recipe=recipe))
    assert torch.cat(parts).tolist() == list(range(count))
    assert all(2 <= len(part) <= size + 1 for part in parts)


@pytest.mark.parametrize("recipe", Recipe)
def test_views__mask_turned_with_its_image_and_unknown_stays_unknown(recipe: Recipe) -> None:
    photograph, mask = spot(3)
    mask[:8] = UNKNOWN
    image = scaled(squeezed(photograph, 40))[None].expand(16, -1, -1, -1)
    masks = torch.from_numpy(mask)[None].expand(16, -1, -1)
    views, turned = _views(image, masks, recipe, torch.Generator().manual_seed(0))
    assert set(turned.unique().tolist()) == {1, 4, UNKNOWN}
    grey = views.mean(1)
    middle = (grey.amin((1, 2), keepdim=True) + grey.amax((1, 2), keepdim=True)) / 2
    known = turned != UNKNOWN
    dark, lesion = (grey < middle) & known, turned == 1
    assert (dark & lesion).sum() > 0.8 * (dark | lesion).sum()


def test_views__targets_of_whole_images_stay() -> None:
    targets = torch.tensor([0, 1, 1])
    _, same = _views(
        torch.zeros(3, 3, 8, 8), targets, Recipe.OURS, torch.Generator().manual_seed(0)
    )
    assert same is targets


@pytest.mark.parametrize("start", [Start.IMAGENET, Start.SCRATCH, Path("a") / "file.pth"])
def test_settings__round_trip(start: Start | Path) -> None:
    settings = FitSettings(image_size=64, start=start, epochs=3, recipe=Recipe.PAPER, plateau=5)
    assert FitSettings.from_json(settings.to_json()) == settings


def test_settings__of_a_file_that_knows_no_recipe() -> None:
    old = (
        '{"image_size": 64, "start": "imagenet", "epochs": 100, "patience": 20, "batch_size": 8, '
        '"learning_rate": 0.0001, "augment": true, "seed": 0}'
    )
    assert FitSettings.from_json(old) == FitSettings(image_size=64, recipe=Recipe.OURS)


def test_settings__a_batch_of_one(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        FitSettings(image_size=64, batch_size=1)
