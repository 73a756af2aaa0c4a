"""Masks are turned as Pillow turns photographs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ddiseg.images import open_photograph
from ddiseg.masks.orientation import raw_size, turn_upright

RAW = np.arange(6, dtype=np.uint8).reshape(2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_upright__as_the_photograph_was(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    Image.fromarray(RAW).save(file, "PNG", exif=exif)
    opened = open_photograph(file.getvalue())
    assert opened.orientation == orientation
    turned = turn_upright(RAW, orientation)
    np.testing.assert_array_equal(turned, opened.pixels[..., 0])
    assert raw_size(turned.shape, orientation) == RAW.shape


@pytest.mark.parametrize("orientation", [0, 9, -6])
def test_turn_upright__no_orientation(orientation: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        turn_upright(RAW, orientation)
