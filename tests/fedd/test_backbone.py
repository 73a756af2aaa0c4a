"""The backbone against guided_diffusion's own forward pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedd.backbone import (
    IMAGENET_256,
    SMALL,
    DiffusionUNet,
    UNetConfig,
    content_noise,
    decoder_activations,
    parameter_count,
)
from fedd.errors import WeightsError
from tests.fedd.conftest import TINY

CONFIGS = {
    "tiny": TINY,
    "plain resampling, no scale-shift": replace(
        TINY, resblock_updown=False, use_scale_shift_norm=False, learn_sigma=True
    ),
    "two residual blocks, no patches": replace(
        TINY, patch=1, image_size=16, channel_mult=(1, 2), num_res_blocks=2
    ),
}


def _hooked_full_pass(net: torch.nn.Module, x: Tensor, t: Tensor) -> dict[int, Tensor]:
    """Features as ddpm-segmentation takes them: hooks on every decoder block, the whole forward."""
    found: dict[int, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _m, _i, out, i=i: found.__setitem__(i, out))
        for i, block in enumerate(net.output_blocks)
    ]
    with torch.inference_mode():
        net(x, t)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_prefix_equals_hooked_full_pass(config: UNetConfig) -> None:
    net = DiffusionUNet.random(config, seed=3).net
    x = torch.randn(2, config.in_channels, config.grid, config.grid)
    t = torch.tensor([7, 500])
    full = _hooked_full_pass(net, x, t)
    for last in range(config.decoder_blocks):
        with torch.inference_mode():
            prefix = decoder_activations(net, x, t, [last])
        assert list(prefix) == [last]
        torch.testing.assert_close(prefix[last], full[last], rtol=1e-5, atol=1e-6)


def test_prefix__runs_no_block_after_the_last() -> None:
    net = DiffusionUNet.random(TINY).net
    ran: list[int] = []
    for i, block in enumerate(net.output_blocks):
        block.register_forward_hook(lambda _m, _i, _o, i=i: ran.append(i))
    x = torch.zeros(1, TINY.in_channels, TINY.grid, TINY.grid)
    decoder_activations(net, x, torch.zeros(1, dtype=torch.long), [1, 3])
    assert ran == [0, 1, 2, 3]


def test_imagenet_configuration__is_openais_network() -> None:
    with torch.device("meta"):
        net = IMAGENET_256.build()
    assert parameter_count(net) == 552_814_086
    x = torch.zeros(1, 3, 256, 256, device="meta")
    found = decoder_activations(net, x, torch.zeros(1, dtype=torch.long, device="meta"), [6, 8])
    assert {b: tuple(a.shape) for b, a in found.items()} == {
        6: (1, 512, 32, 32),
        8: (1, 512, 64, 64),
    }


def test_small_configuration__blocks_and_size() -> None:
    net = DiffusionUNet.random(SMALL)
    assert parameter_count(net.net) * 2 < 16e6, "fp16 weights must stay under 16 MB"
    found = net.activations(torch.zeros(1, 3, 128, 128), 50, net.blocks)
    assert [found[b].shape[-1] for b in net.blocks] == [8, 16, 16, 32, 32, 64, 64, 64]


def test_activations__depend_on_neither_batch_nor_order(tiny: DiffusionUNet) -> None:
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    together = tiny.activations(images, 400, (2, 5))
    backwards = tiny.activations(images.flip(0), 400, (2, 5))
    for block, found in together.items():
        torch.testing.assert_close(backwards[block].flip(0), found, rtol=1e-4, atol=1e-5)
        for i in range(4):
            alone = tiny.activations(images[i : i + 1], 400, (2, 5))[block]
            torch.testing.assert_close(alone, found[i : i + 1], rtol=1e-4, atol=1e-5)


def test_content_noise__same_image_same_noise_other_image_other_noise() -> None:
    a, b = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(content_noise(a, (12, 16, 16)), content_noise(a.clone(), (12, 16, 16)))
    assert not torch.equal(content_noise(a, (12, 16, 16)), content_noise(b, (12, 16, 16)))
    noise = content_noise(a, (12, 64, 64))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_activations__timestep_decides_how_much_noise(tiny: DiffusionUNet) -> None:
    image = torch.zeros(1, 3, 32, 32)
    clean, noisy = (tiny.activations(image, t, (5,))[5] for t in (0, 900))
    assert (clean - noisy).abs().mean() > 0.05


@pytest.mark.parametrize(
    ("timestep", "blocks", "says"), [(1000, (1,), "999"), (-1, (1,), "999"), (5, (9,), "0 to 7")]
)
def test_activations__what_does_not_exist(
    tiny: DiffusionUNet, timestep: int, blocks: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        tiny.activations(torch.zeros(1, 3, 32, 32), timestep, blocks)


def test_config__image_size_that_does_not_fit() -> None:
    with pytest.raises(WeightsError, match="that 16 divides, not 40"):
        replace(TINY, image_size=40)


def test_config__round_trip_and_unknown_setting() -> None:
    assert UNetConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(WeightsError, match="depth"):
        UNetConfig.from_dict({**TINY.to_dict(), "depth": 3})
