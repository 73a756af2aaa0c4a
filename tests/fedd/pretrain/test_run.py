from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from annotation_protocol import UNLABELLED
from annotation_protocol.phantoms.phantoms import LESION, MARKER, SKIN
from fedd.backbone import DiffusionUNet
from fedd.errors import WeightsError
from fedd.pretrain.data import Batch
from fedd.pretrain.run import Run, network
from fedd.pretrain.settings import PretrainSettings
from tests.fedd.conftest import TINY

pytestmark = pytest.mark.training

SETTINGS = PretrainSettings(
    steps=10, batch_size=4, warmup=0, learning_rate=1e-3, low_noise_share=1.0, low_noise=1
)


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch(size: int = 32, pairs: int = 0) -> Batch:
    """Two photographs or one and a pair, then a phantom of half lesion, half skin."""
    images = torch.rand(4, 3, size, size, generator=_rng()) - 0.5
    masks = torch.full((1, size, size), SKIN)
    masks[:, : size // 2] = LESION
    if not pairs:
        return Batch(images, masks)
    images[2] = images[1]
    images[2, :, :4] = 0.9
    drawn = torch.full((1, size, size), UNLABELLED)
    drawn[:, :4] = MARKER
    return Batch(images, torch.cat([drawn, masks]), pairs)


def test_train_step__heads_learn_before_the_network() -> None:
    run = Run(TINY, replace(SETTINGS, heads_first=2), None)
    before = {name: w.clone() for name, w in run.trained.state_dict().items()}
    for _ in range(2):
        run.train_step(_batch(), _rng())
    moved = {n for n, w in run.trained.state_dict().items() if not torch.equal(w, before[n])}
    assert moved
    assert not any(name.startswith("0.") for name in moved), "the network is the first module"
    averaged = run.averaged.state_dict()
    assert all(torch.equal(averaged[n], before[f"0.{n}"]) for n in averaged)
    run.train_step(_batch(), _rng())
    assert any(not torch.equal(w, before[f"0.{n}"]) for n, w in run.net.state_dict().items())


def test_schedule__begins_when_the_network_does() -> None:
    run = Run(TINY, replace(SETTINGS, heads_first=4, warmup=2), None)
    found = []
    for run.step in range(4, 10):
        found.append(run._schedule())
    assert found[:3] == [0.5, 1.0, 1.0]
    assert found[-1] == pytest.approx(0.02 + 0.98 * 0.5 * (1 - 2**-0.5))


def test_train_step__pairs_have_a_loss_of_their_own() -> None:
    alone = Run(TINY, SETTINGS, None).train_step(_batch(), _rng())
    assert set(alone) == {"denoising", "phantom"}
    paired = Run(TINY, replace(SETTINGS, pair_share=0.5), None).train_step(_batch(pairs=1), _rng())
    assert set(paired) == {"denoising", "phantom", "pair"}


def test_train_step__a_pair_without_a_difference_has_no_loss() -> None:
    """Both images of a pair get the same timestep, the same noise and the same hidden patches."""
    batch = _batch(pairs=1)
    batch.images[2] = batch.images[1]
    settings = replace(SETTINGS, low_noise_share=0.0, masked_share=0.5)
    for seed in range(3):
        run = Run(TINY, settings, None)
        torch.nn.init.normal_(run.net.out[-1].weight)
        assert run.train_step(batch, _rng(seed))["pair"] == pytest.approx(0, abs=1e-4)


def test_train_step__what_is_hidden_has_no_part_in_denoising() -> None:
    """The network begins with a guess of zero: its loss is 1 where it sees, and 0 where it can't."""
    plain = Run(TINY, SETTINGS, None).train_step(_batch(), _rng())["denoising"]
    hidden = Run(TINY, replace(SETTINGS, masked_share=1.0), None)
    found = hidden.train_step(_batch(), _rng())["denoising"]
    assert plain == pytest.approx(1, abs=0.1)
    assert found == pytest.approx(plain / 2, abs=0.05), "every second image is hidden"


def test_network__a_wider_view_with_attention_at_the_same_depth() -> None:
    wide = network(TINY, replace(SETTINGS, image_size=48))
    assert (wide.image_size, wide.attention_resolutions) == (48, (6,))
    assert network(TINY, SETTINGS) == TINY
    with pytest.raises(WeightsError, match="image size"):
        network(TINY, replace(SETTINGS, image_size=40))


def test_run__weights_of_another_image_size() -> None:
    start = DiffusionUNet.random(TINY, seed=2)
    run = Run(start, replace(SETTINGS, image_size=48), None)
    for name, weight in start.net.state_dict().items():
        assert torch.equal(run.net.state_dict()[name], weight)
    run.train_step(_batch(48), _rng())
    assert run.backbone("wide").image_size == 48
