from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedd.backbone import IMAGENET_256, SMALL, DiffusionUNet, UNetConfig
from fedd.malignancy import pooling
from fedd.malignancy.pooling import FEATURES, decoder_shapes, pooled, pooling_of
from tests.fedd.conftest import TINY


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, num_res_blocks=2),
        replace(TINY, channel_mult=(1, 2), model_channels=64),
        replace(TINY, image_size=96, patch=1, channel_mult=(1, 1, 2), attention_resolutions=()),
    ],
)
def test_decoder_shapes__those_of_the_network(config: UNetConfig) -> None:
    net = DiffusionUNet.random(config)
    images = torch.zeros(1, 3, config.image_size, config.image_size)
    found = net.activations(images, 0, net.blocks)
    assert [tuple(found[block].shape[1:]) for block in net.blocks] == list(decoder_shapes(config))


def test_decoder_shapes__of_the_networks_in_use() -> None:
    assert len(decoder_shapes(IMAGENET_256)) == IMAGENET_256.decoder_blocks == 18
    assert decoder_shapes(SMALL)[5] == (64, 64, 64)


#: Block: channels, side, 2-D kernel, flattened, 1-D kernel.
PAPER = {
    2: (1024, 16, 16, 1024, 2),
    3: (1024, 16, 16, 1024, 2),
    4: (1024, 16, 16, 1024, 2),
    5: (1024, 32, 32, 1024, 2),
    6: (512, 32, 32, 512, 1),
    7: (512, 32, 32, 512, 1),
    8: (512, 64, 64, 512, 1),
    9: (512, 64, 64, 512, 1),
    10: (512, 64, 64, 512, 1),
    11: (512, 128, 128, 512, 1),
    12: (256, 128, 64, 1024, 2),
    13: (256, 128, 64, 1024, 2),
    14: (256, 256, 128, 1024, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("block", PAPER)
def test_pooling_of__the_papers_blocks(block: int) -> None:
    shape = decoder_shapes(IMAGENET_256)[block]
    found = pooling_of(shape)
    expected = (shape[0], shape[1], found.kernel, found.flattened, found.kernel_1d)
    assert expected == PAPER[block]
    assert shape[1] == shape[2]
    assert found.features == FEATURES
    features = pooled(torch.zeros(2, *shape))
    assert features.shape == (2, FEATURES)


def test_docstring__table_is_what_the_rule_says() -> None:
    rows = re.findall(
        r"^    (\d+)(?:(?:, | to )(\d+))? +(\d+) x (\d+) x (\d+) +(\d+) +(\d+) +(\d+) +(\d+)$",
        str(pooling.__doc__),
        re.M,
    )
    seen = []
    for first, last, *numbers in rows:
        for block in range(int(first), int(last or first) + 1):
            shape = decoder_shapes(IMAGENET_256)[block]
            found = pooling_of(shape)
            row = [*shape, found.kernel, found.flattened, found.kernel_1d, found.features]
            assert row == [int(n) for n in numbers], block
            seen.append(block)
    assert seen == list(range(18))


def test_pooled__by_hand() -> None:
    """256 channels on 4 x 4: windows of 2 x 2, then neighbours of a row: the halves of a channel."""
    activations = torch.randn(3, 256, 4, 4)
    expected = torch.stack([activations[:, :, :2], activations[:, :, 2:]], 2).amax((3, 4))
    assert torch.equal(pooled(activations), expected.flatten(1))


@pytest.mark.property
@given(st.sampled_from([(1024, 8), (512, 8), (256, 8), (256, 16)]), st.integers(0, 100), st.data())
def test_pooled__a_finer_grid_gives_the_same_for_the_papers_channels(
    shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    channels, side = shape
    activations = torch.randn(1, channels, side, side, generator=torch.manual_seed(seed))
    kernel = pooling_of((channels, side, side)).kernel
    finer = data.draw(st.sampled_from([k for k in (1, 2, 4, 8, 16) if k <= kernel]))
    flat = torch.nn.functional.max_pool2d(activations, finer).flatten(1)
    again = torch.nn.functional.adaptive_max_pool1d(flat, FEATURES)
    assert torch.equal(again, pooled(activations))


@pytest.mark.property
@given(st.integers(1, 700), st.integers(1, 24), st.integers(1, 24))
def test_pooling_of__any_shape(channels: int, height: int, width: int) -> None:
    found = pooling_of((channels, height, width))
    assert found.features == min(FEATURES, channels * height * width)
    assert height % found.kernel == width % found.kernel == 0
    assert found.flattened >= found.features
    features = pooled(torch.zeros(1, channels, height, width))
    assert features.shape == (1, found.features)


def test_pooled__fewer_numbers_than_features_are_all_read() -> None:
    activations = torch.arange(24.0).view(1, 6, 2, 2)
    np.testing.assert_array_equal(pooled(activations)[0], np.arange(24))
