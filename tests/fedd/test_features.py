from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from fedd.backbone import DiffusionUNet
from fedd.features import (
    FeatureSpec,
    at_points,
    extract,
    image_statistics,
    prepare,
)


def test_prepare__stretches_to_a_square() -> None:
    photograph = np.zeros((10, 100, 3), np.uint8)
    photograph[:, 50:] = 255
    found = prepare(photograph, 32)
    assert found.shape == (3, 32, 32)
    assert float(found.min()) == -1
    assert float(found.max()) == 1
    assert float(found[:, :, :14].max()) == -1
    assert float(found[:, :, 18:].min()) == 1


def test_at_points__equals_upsampling_first() -> None:
    rng = torch.Generator().manual_seed(0)
    blocks = [torch.randn(2, 5, 8, 8, generator=rng), torch.randn(2, 3, 16, 16, generator=rng)]
    points = torch.randint(0, 64, (2, 200, 2), generator=rng)
    for normalise in (False, True):
        layers = []
        for block in blocks:
            layers.append(block)
            if normalise:
                mean, std = image_statistics(block)
                layers.append((block - mean) / std)
        up = torch.cat(
            [F.interpolate(x, (64, 64), mode="bilinear", align_corners=False) for x in layers], 1
        )
        expected = torch.stack([u[:, p[:, 0], p[:, 1]].T for u, p in zip(up, points, strict=True)])
        torch.testing.assert_close(
            at_points(blocks, points, 64, normalise), expected, rtol=1e-4, atol=1e-5
        )


def test_image_statistics__what_differs_from_the_skin_around_it() -> None:
    """Standardised, an image and the same image in other light read alike."""
    x = torch.randn(1, 4, 8, 8)
    scale = torch.tensor([0.3, 2.0, 1.0, 5.0]).view(1, 4, 1, 1)
    (m, s), (m2, s2) = image_statistics(x), image_statistics(x * scale + 7)
    torch.testing.assert_close((x - m) / s, (x * scale + 7 - m2) / s2, rtol=1e-4, atol=1e-4)


def test_image_statistics__flat_channel_is_finite() -> None:
    mean, std = image_statistics(torch.full((1, 1, 4, 4), 3.0))
    assert torch.isfinite((3.0 - mean) / std).all()


def test_extract__noise_of_the_spec(tiny: DiffusionUNet) -> None:
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    plain, first, second = (
        extract(tiny, images, FeatureSpec((3, 5), 300, **noise))
        for noise in ({}, {"noise": 0}, {"noise": 1})
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, first, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
