from __future__ import annotations

from typing import Any

import pytest
import torch

from fedd.encoders import (
    CHANNELS,
    EncoderConfig,
    FoldedEncoder,
    ImageNetEncoder,
    load_efficientnet_lite0,
    strided_features,
)
from fedd.errors import DeviceError
from fedd.probes.training import Example, train_probes
from fedd.segment import ProbeSettings
from fedd.weights.files import load_backbone
from tests.fedd.conftest import CLASSES, QUICK, spot
from tests.wording import Refusal


@pytest.fixture(scope="module")
def net() -> Any:
    """The network as its package builds it."""
    return load_efficientnet_lite0()


@pytest.fixture(scope="module")
def lite0(net: Any) -> ImageNetEncoder:
    return ImageNetEncoder("lite0", EncoderConfig(64), FoldedEncoder(net), "0" * 64)


def _images(seed: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_strided_features__the_networks_own_forward(net: Any) -> None:
    images = _images(0)
    with torch.inference_mode():
        found = strided_features(net, images)
        deepest = net._swish(net._bn1(net._conv_head(found[32])))
        torch.testing.assert_close(deepest, net.extract_features(images))
    assert {s: tuple(f.shape) for s, f in found.items()} == {
        s: (2, CHANNELS[s], 64 // s, 64 // s) for s in (2, 4, 8, 16, 32)
    }


@pytest.mark.parametrize(("stride", "next_block"), [(2, 1), (4, 3), (8, 5), (16, 11)])
def test_strided_features__the_last_of_their_stride(net: Any, stride: int, next_block: int) -> None:
    """What enters the block that halves the resolution is the finest feature of its stride."""
    entering: list[torch.Tensor] = []
    hook = net._blocks[next_block].register_forward_pre_hook(lambda _b, x: entering.append(x[0]))
    with torch.inference_mode():
        found = strided_features(net, _images(3))
    hook.remove()
    assert torch.equal(entering[0], found[stride])
    assert (
        next(m.stride for m in net._blocks[next_block].modules() if getattr(m, "groups", 1) > 1)[0]
        == 2
    )


def test_activations__those_of_the_network_deepest_block_first(
    net: Any, lite0: ImageNetEncoder
) -> None:
    """Folded batch norms change nothing but the rounding."""
    images = _images(1)
    found = lite0.activations(images, 0, (3, 1, 0, 2, 4))
    with torch.inference_mode():
        expected = strided_features(net, images)
    assert list(found) == [3, 1, 0, 2, 4]
    for block, activations in found.items():
        torch.testing.assert_close(
            activations, expected[2 ** (5 - block)], rtol=1e-4, atol=1e-3, msg=f"block {block}"
        )


def test_activations__of_an_image_whatever_its_neighbours(lite0: ImageNetEncoder) -> None:
    images = _images(2, 3)
    together = lite0.activations(images, 0, (2,))[2]
    alone = lite0.activations(images[1:2], 500, (2,), noise=1)[2]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)


def test_activations__unknown_block(lite0: ImageNetEncoder, refusal: Refusal) -> None:
    with refusal(ValueError):
        lite0.activations(_images(0), 0, (2, 5))


def test_activations__images_of_another_size(lite0: ImageNetEncoder, refusal: Refusal) -> None:
    with refusal(ValueError):
        lite0.activations(torch.zeros(1, 3, 96, 96), 0, (2,))


def test_config__image_size_that_no_stride_divides(refusal: Refusal) -> None:
    with refusal(ValueError):
        EncoderConfig(image_size=100)


def test_config__traces_the_shapes_of_the_activations(lite0: ImageNetEncoder) -> None:
    found = lite0.activations(_images(0, 1), 0, lite0.blocks)
    traced = lite0.config.trace(lite0.blocks)
    assert {b: a.shape for b, a in traced.items()} == {b: a.shape for b, a in found.items()}


def test_load__leaves_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    load_backbone("lite0")
    assert torch.equal(torch.get_rng_state(), before)


def test_to__bfloat16_and_not_back(lite0: ImageNetEncoder, refusal: Refusal) -> None:
    rounded = lite0.to("cpu", "bfloat16")
    images = _images(4)
    exact, found = (net.activations(images, 0, (1,))[1] for net in (lite0, rounded))
    assert found.dtype == torch.float32
    assert float((found - exact).abs().mean()) < 0.02 * float(exact.abs().max())
    assert not torch.equal(found, exact)
    assert lite0.to("cpu") is lite0
    with refusal(DeviceError):
        rounded.to("cpu")


@pytest.mark.training
def test_load__imagenet_or_random(net: Any) -> None:
    fresh = load_efficientnet_lite0(pretrained=False)
    key = "_conv_stem.weight"
    assert not torch.allclose(fresh.state_dict()[key], net.state_dict()[key])
    assert not net.training


@pytest.mark.training
def test_probes__read_it_like_any_backbone(lite0: ImageNetEncoder) -> None:
    from dataclasses import replace

    spec = replace(QUICK.features, blocks=(1, 3))
    settings: ProbeSettings = replace(QUICK, features=spec)
    probes = train_probes([Example(*spot(s)) for s in range(4)], lite0, settings, CLASSES)
    photograph, mask = spot(9)
    painted = probes.predict(lite0, [photograph])[0].mask
    assert (painted == mask).mean() > 0.9
