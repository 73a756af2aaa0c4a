"""The backbone; its numbers are compared with guided_diffusion's in tests/peers."""

from __future__ import annotations

import threading
import time
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
from fedd.network.devices import BatchSize
from fedd.network.turns import Turns
from tests.fedd.conftest import TINY
from tests.wording import Refusal


def test_prefix__runs_no_block_after_the_last() -> None:
    net = DiffusionUNet.random(TINY).net
    ran: list[int] = []
    for i, block in enumerate(net.output_blocks):
        block.register_forward_hook(lambda _m, _i, _o, i=i: ran.append(i))
    x = torch.zeros(1, TINY.in_channels, TINY.grid, TINY.grid)
    decoder_activations(net, x, torch.zeros(1, dtype=torch.long), [1, 3])
    assert ran == [0, 1, 2, 3]


@pytest.mark.training
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


@pytest.mark.training
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


def test_content_noise__draw_0_is_what_probes_were_trained_on() -> None:
    """Numbers of version 0.1.0: other noise would silently change what saved probes predict."""
    image = torch.linspace(-1, 1, 48).view(3, 4, 4)
    assert content_noise(image, (3,)).tolist() == pytest.approx(
        [1.1484733819961548, 0.5258095264434814, 2.6143453121185303], abs=1e-7
    )
    assert content_noise(image, (3,), 1).tolist() == pytest.approx(
        [-2.3476645946502686, -0.19531984627246857, -0.6051884293556213], abs=1e-7
    )


def test_activations__each_draw_of_the_noise_is_another(tiny: DiffusionUNet) -> None:
    image = torch.zeros(1, 3, 32, 32)
    default, first, second = (
        tiny.activations(image, 300, (5,), *noise)[5] for noise in ((), (0,), (1,))
    )
    assert torch.equal(default, first)
    assert (first - second).abs().mean() > 0.01


def test_activations__timestep_decides_how_much_noise(tiny: DiffusionUNet) -> None:
    image = torch.zeros(1, 3, 32, 32)
    clean, noisy = (tiny.activations(image, t, (5,))[5] for t in (0, 900))
    assert (clean - noisy).abs().mean() > 0.05


@pytest.mark.parametrize(("timestep", "blocks"), [(1000, (1,)), (-1, (1,)), (5, (9,))])
def test_activations__what_does_not_exist(
    tiny: DiffusionUNet, timestep: int, blocks: tuple[int, ...], refusal: Refusal
) -> None:
    with refusal(ValueError):
        tiny.activations(torch.zeros(1, 3, 32, 32), timestep, blocks)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (1, 3, 32, 64), (3, 32, 32), (1, 12, 32, 32)])
def test_activations__images_of_another_size(
    tiny: DiffusionUNet, shape: tuple[int, ...], refusal: Refusal
) -> None:
    with refusal(ValueError):
        tiny.activations(torch.zeros(shape), 10, (5,))


def test_activations__plain_float32_in_one_piece(tiny: DiffusionUNet) -> None:
    """Whatever the network computes in: they are saved, flattened and compared as they are."""
    for net in (tiny, tiny.to("cpu", "bfloat16")):
        found = net.activations(torch.zeros(2, 3, 32, 32), 10, (1, 5))
        assert all(a.dtype == torch.float32 and a.is_contiguous() for a in found.values())


def test_config__image_size_that_does_not_fit(refusal: Refusal) -> None:
    with refusal(WeightsError):
        replace(TINY, image_size=40)


def test_config__round_trip_and_unknown_setting() -> None:
    assert UNetConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(WeightsError, match="depth"):
        UNetConfig.from_dict({**TINY.to_dict(), "depth": 3})


def test_activations__threads_take_turns_by_batch_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    net = DiffusionUNet.random(TINY, seed=1)
    order: list[int] = []
    monkeypatch.setattr(net, "_turns", Turns())
    monkeypatch.setattr(net, "batch", BatchSize(1, 1))

    def forward(_net: object, x: Tensor, _t: Tensor, _b: tuple[int, ...]) -> dict[int, Tensor]:
        order.append(threading.get_ident())
        if len(order) == 2:  # the other thread asks now
            other.start()
            while not net._turns._waiting:  # type: ignore[attr-defined]
                time.sleep(0.001)
        return {5: x}

    monkeypatch.setattr(net, "_forward", forward)
    other = threading.Thread(target=lambda: net.activations(torch.zeros(1, 3, 32, 32), 10, (5,)))
    net.activations(torch.zeros(20, 3, 32, 32), 10, (5,))
    other.join()
    assert order.index(other.ident or 0) == 2, "after one batch, not after all"
