from __future__ import annotations

import numpy as np
import torch

from fedd.features import prepare
from fedd.malignancy.colours import COLOURS, colour_numbers


def test_colours__of_each_ring_from_the_centre() -> None:
    """Of 9 x 9 pixels the rings are those up to 1, 2 and 4 from the centre."""
    image = np.zeros((9, 9, 3), np.uint8)
    image[..., 0] = 255  # the outer ring is red
    image[2:7, 2:7] = (0, 255, 0)
    image[3:6, 3:6] = (0, 0, 255)
    found = colour_numbers(prepare(image, 9)[None])
    assert found.shape == (1, COLOURS)
    rings = found[0].reshape(3, 3, 3)  # ring, measure, colour
    for ring, colour in enumerate(([0, 0, 1], [0, 1, 0], [1, 0, 0])):
        np.testing.assert_allclose(rings[ring, 0], colour, atol=1e-6)
        np.testing.assert_allclose(rings[ring, 1], 0, atol=1e-6)
        np.testing.assert_allclose(rings[ring, 2], colour, atol=1e-6)


def test_colours__deviation_and_dark_colour() -> None:
    image = torch.full((1, 3, 9, 9), 1.0)
    image[0, 0, 3:6, 3] = -1  # three of the nine inner pixels have no red
    rings = colour_numbers(image)[0].reshape(3, 3, 3)
    np.testing.assert_allclose(rings[0, :, 0], [2 / 3, (2 / 9) ** 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(rings[0, :, 1], [1, 0, 1], atol=1e-6)


def test_colours__one_by_one_as_together() -> None:
    images = torch.rand(3, 3, 12, 12) * 2 - 1
    together = colour_numbers(images)
    for row, image in enumerate(images):
        torch.testing.assert_close(colour_numbers(image[None])[0], together[row])
