"""Every fast path of the backbone against guided_diffusion's own forward.

guided_diffusion starts some layers at zero, which would make the comparison an easy one: they are
filled. Its forward is run whole, on its own untouched classes, with hooks on the decoder blocks.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from guided_diffusion import nn as library
from guided_diffusion.nn import GroupNorm32
from guided_diffusion.script_util import create_gaussian_diffusion
from guided_diffusion.unet import QKVAttentionLegacy, ResBlock, UNetModel
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.backbone import IMAGENET_256, DiffusionUNet, content_noise
from fedd.network import resblock, winograd
from fedd.network.resblock import FusedResBlock, MixedGroupNorm, affine_norm
from fedd.network.unet import (
    FusedAttention,
    UNetConfig,
    decoder_activations,
    make_fast,
    timestep_embedding,
)
from fedd.network.winograd import WinogradConv2d
from fedd.probes.pixels import Example
from fedd.probes.training import train_probes
from fedd.weights.files import load_unet
from tests.fedd.conftest import CLASSES, QUICK, TINY, spot

#: OpenAI's architecture, narrower and with fewer levels; wide enough for every fast path.
SLICE = replace(
    IMAGENET_256,
    image_size=64,
    model_channels=128,
    channel_mult=(1, 1, 2),
    num_res_blocks=1,
    attention_resolutions=(16, 8),
)
CONFIGS = {
    "OpenAI's, narrower": SLICE,
    "patches": TINY,
    "plain resampling, no scale-shift": replace(
        TINY, resblock_updown=False, use_scale_shift_norm=False, learn_sigma=True
    ),
    "two residual blocks, no patches": replace(
        TINY, patch=1, image_size=16, channel_mult=(1, 2), num_res_blocks=2
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_float32__every_block_within_1e_4(config: UNetConfig) -> None:
    net = _network(config)
    x = torch.randn(2, config.in_channels, config.grid, config.grid)
    t = torch.tensor([7, 500])
    expected = _hooked(net, x, t)
    make_fast(net)
    with torch.inference_mode():
        found = decoder_activations(net, x, t, list(expected))
    assert list(found) == list(range(config.decoder_blocks))
    for block, activation in found.items():
        assert _relative(activation, expected[block]) < 1e-4


def test_float32__the_fast_paths_are_taken() -> None:
    """What the comparison above is about: without this, it could compare a network with itself."""
    net = _network(SLICE)
    slow = [m for m in net.modules() if isinstance(m, QKVAttentionLegacy)]
    assert slow
    make_fast(net)
    fused = [m for m in net.modules() if isinstance(m, FusedAttention)]
    assert len(fused) == len(slow)
    assert not any(isinstance(m, QKVAttentionLegacy | GroupNorm32) for m in net.modules())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        decoder_activations(net, x, torch.tensor([3]), [5])
    took = [
        m for m in net.modules() if isinstance(m, WinogradConv2d) and m._transformed is not None
    ]
    assert len(took) >= 8
    assert (
        net.input_blocks[1][0].in_layers[2].weight.is_contiguous(memory_format=torch.channels_last)
    )


def test_make_fast__leaves_the_library_and_the_state_dict_alone() -> None:
    net, other = _network(SLICE), _network(SLICE)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    make_fast(net)
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in before.items()
    }
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(
        isinstance(m, FusedAttention | MixedGroupNorm | WinogradConv2d) for m in other.modules()
    )


def test_activations__equal_the_librarys_own_noising_and_forward() -> None:
    """From the photograph on: noise schedule, patches, timestep embedding, several images."""
    net = _network(TINY)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    noise = torch.stack([content_noise(i, (12, 16, 16), 2) for i in images])
    diffusion = create_gaussian_diffusion(steps=1000)
    t = torch.full((3,), 321)
    x = diffusion.q_sample(F.pixel_unshuffle(images, 2), t, noise)
    expected = _hooked(net, x, t)
    found = DiffusionUNet("n", TINY, net, "0").activations(images, 321, (1, 6), noise=2)
    for block, activation in found.items():
        assert _relative(activation, expected[block]) < 1e-4


def test_bfloat16__norms_in_float32_and_features_close() -> None:
    net = _network(SLICE)
    fast = DiffusionUNet("n", SLICE, net, "0")
    half = fast.to("cpu", "bfloat16")
    kinds = {type(m).__name__: m.weight.dtype for m in half.net.modules() if hasattr(m, "weight")}
    assert kinds["MixedGroupNorm"] == kinds["Linear"] == torch.float32
    assert kinds["Conv2d"] == kinds["Conv1d"] == kinds["WinogradConv2d"] == torch.bfloat16
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    exact, found = (n.activations(image, 100, (3,))[3] for n in (fast, half))
    assert found.dtype == torch.float32
    assert 1e-6 < _relative(found, exact) < 0.05


def test_bfloat16__predicted_masks_agree() -> None:
    """At least 99.5% of the pixels, by probes that were trained on float32 features."""
    backbone = load_unet("small")
    examples = [Example(*spot(seed, (90, 90))) for seed in range(6)]
    probes = train_probes(examples, backbone, QUICK, CLASSES)
    photographs = [spot(seed, (90, 90))[0] for seed in range(20, 24)]
    exact = probes.predict(backbone, photographs)
    found = probes.predict(backbone.to("cpu", "bfloat16"), photographs)
    same = torch.tensor(
        [float((a.mask == b.mask).mean()) for a, b in zip(exact, found, strict=True)]
    )
    assert float(same.mean()) >= 0.995
    assert {int(c) for p in exact for c in set(p.mask.flatten())} == {1, 4}, "not a blank mask"


@pytest.mark.parametrize(
    ("batch", "channels", "out_channels", "height", "width"),
    [(1, 128, 128, 32, 32), (2, 128, 160, 36, 40), (1, 136, 128, 64, 16), (1, 128, 128, 4, 256)],
)
def test_winograd__equals_the_direct_convolution(
    batch: int,
    channels: int,
    out_channels: int,
    height: int,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "STRIP_POSITIONS", 400)  # several strips, the last one shorter
    conv = nn.Conv2d(channels, out_channels, 3, padding=1)
    fast = WinogradConv2d(conv)
    x = torch.randn(batch, channels, height, width)
    with torch.inference_mode():
        found = fast(x)
        expected = conv.double()(x.double())
    assert fast._transformed is not None, "the fast way was not taken"
    assert _relative(found, expected) < 2e-5


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 128, 16, 16), torch.float32),
        ((1, 128, 33, 64), torch.float32),
        ((1, 128, 32, 32), torch.bfloat16),
    ],
    ids=["few positions", "a height that no tiles make up", "bfloat16"],
)
def test_winograd__direct_where_it_does_not_pay(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    conv = nn.Conv2d(128, 128, 3, padding=1).to(dtype)
    fast = WinogradConv2d(conv)
    x = torch.randn(shape).to(dtype)
    with torch.inference_mode():
        assert torch.equal(fast(x), conv(x))
    assert fast._transformed is None


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 128, 3, stride=2, padding=1),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, bias=False),
    ],
    ids=["1 x 1", "stride", "no padding", "narrow", "groups", "no bias"],
)
def test_winograd__stands_in_only_for_what_it_computes(conv: nn.Conv2d) -> None:
    assert not WinogradConv2d.fits(conv)
    assert WinogradConv2d.fits(nn.Conv2d(winograd.FEWEST_CHANNELS, 256, 3, padding=1))


def test_winograd__transformed_weights_are_dropped_with_the_weights_they_came_from() -> None:
    fast = WinogradConv2d(nn.Conv2d(128, 128, 3, padding=1))
    x = torch.randn(1, 128, 32, 32)
    with torch.inference_mode():
        exact = fast(x)
        fast.to(torch.bfloat16).to(torch.float32)
        assert fast._transformed is None
        assert 0 < _relative(fast(x), exact) < 0.02


def test_fused_attention__equals_the_explicit_one() -> None:
    qkv = torch.randn(2, 3 * 4 * 16, 49)
    found = FusedAttention(4)(qkv)
    torch.testing.assert_close(found, QKVAttentionLegacy(4)(qkv), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 64, 12, 12), (2, 64, 49)], ids=str)
def test_mixed_group_norm__equals_groupnorm32(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    norm = GroupNorm32(32, 64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 + 100 * torch.randn(shape)).to(dtype)
    found = MixedGroupNorm(norm)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, norm(x))


@pytest.mark.parametrize("mean", [0, 3, 30])
@pytest.mark.parametrize("shape", [(2, 64, 12, 12), (2, 64, 49), (1, 64, 96, 80)], ids=str)
def test_affine_norm__as_exact_as_groupnorm32(shape: tuple[int, ...], mean: float) -> None:
    """What a GPU computes in bfloat16: in the input's layout, as far from float64 as the library."""
    norm = GroupNorm32(32, 64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (mean + torch.randn(shape)).bfloat16()
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found, other = affine_norm(norm, x), norm(x)
        exact = F.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), norm.eps)
    assert (found.dtype, found.stride()) == (torch.bfloat16, x.stride())
    error, allowed = (float((each - exact).norm()) for each in (found, other))
    assert 0 < error < 1.02 * allowed


@pytest.mark.parametrize("kind", ["plain", "up", "down", "wider", "no scale-shift"])
def test_fused_res_block__equals_the_librarys(kind: str) -> None:
    """Step by step to the bit; fused, in bfloat16, no farther from float64 than the library is."""
    block = ResBlock(
        64,
        32,
        dropout=0.0,
        out_channels=96 if kind == "wider" else None,
        use_scale_shift_norm=kind != "no scale-shift",
        up=kind == "up",
        down=kind == "down",
    ).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    x, emb = torch.randn(3, 64, 16, 12), torch.randn(1, 32)
    fast = FusedResBlock(copy.deepcopy(block))
    assert fast.state_dict().keys() == block.state_dict().keys()
    with torch.inference_mode():
        assert torch.equal(fast.plain(x, emb), block(x, emb))
        half = x.bfloat16().contiguous(memory_format=torch.channels_last)
        for net in (block, fast):
            for layer in net.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.to(torch.bfloat16)
        found, other = fast.fused(half, emb), block(half, emb)
        for norm in (block.in_layers[0], block.out_layers[0]):
            norm.forward = partial(
                nn.GroupNorm.forward, norm
            )  # GroupNorm32 would compute in float32
        exact = block.double()(half.double(), emb.double())
    assert (found.dtype, found.shape) == (torch.bfloat16, other.shape)
    error, allowed = (float((each - exact).norm()) for each in (found, other))
    assert 0 < error < 1.02 * allowed


def test_bfloat16__fused_network_no_farther_from_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass of a GPU, on this CPU."""
    net = _network(SLICE)
    x, t = torch.randn(2, 3, 64, 64), torch.tensor([100])
    expected = _hooked(net, x, t.expand(2))
    make_fast(net, torch.bfloat16)
    channels_last = x.contiguous(memory_format=torch.channels_last)

    def worst() -> float:
        with torch.inference_mode():
            found = decoder_activations(net, channels_last, t, list(expected))
        return max(_relative(a.float(), expected[b]) for b, a in found.items())

    plain = worst()
    monkeypatch.setattr(resblock, "_fuses", lambda x: x.dtype == torch.bfloat16)
    monkeypatch.setattr(MixedGroupNorm, "forward", affine_norm)
    assert 1e-4 < worst() < 1.1 * plain


@pytest.mark.parametrize("width", [256, 33])
def test_timestep_embedding__equals_the_librarys(width: int) -> None:
    timesteps = torch.tensor([0, 1, 100, 999])
    assert torch.equal(
        timestep_embedding(timesteps, width), library.timestep_embedding(timesteps, width)
    )


def _network(config: UNetConfig) -> UNetModel:
    torch.manual_seed(3)
    net = config.build().eval().requires_grad_(False)
    for parameter in net.parameters():
        if parameter.dim() > 1 and not parameter.any():
            parameter.normal_(0, 0.02)
    return net


def _hooked(net: UNetModel, x: Tensor, t: Tensor) -> dict[int, Tensor]:
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


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
