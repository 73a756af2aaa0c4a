"""Batches of images alone; what concerns results is in test_pipeline.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedd.backbone import DiffusionUNet
from fedd.batches import image_batches
from fedd.errors import DatasetError
from fedd.features import prepare


def photograph(value: int, size: tuple[int, int] = (20, 30)) -> NDArray[np.uint8]:
    return np.full((*size, 3), value, np.uint8)


def test_image_batches__in_order_the_last_one_smaller(tiny: DiffusionUNet) -> None:
    found = list(image_batches([lambda v=v: photograph(v) for v in range(9)], tiny, 4))  # type: ignore[misc]
    assert [len(batch) for batch in found] == [4, 4, 1]
    expected = torch.stack([prepare(photograph(value), 32) for value in range(9)])
    assert torch.equal(torch.cat(found), expected)


def test_image_batches__unreadable_photograph_is_an_error_in_its_turn(
    tiny: DiffusionUNet,
) -> None:
    def unreadable() -> NDArray[np.uint8]:
        raise DatasetError("b.png can't be read")

    batches = image_batches([lambda: photograph(1), unreadable], tiny, 1)
    assert len(next(batches)) == 1
    with pytest.raises(DatasetError, match=r"b\.png"):
        next(batches)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (501, 50)], ids=str)
def test_image_batches__tiny_and_odd_photographs(
    tiny: DiffusionUNet, shape: tuple[int, int]
) -> None:
    (found,) = image_batches([lambda: photograph(0, shape)], tiny, 4)
    assert found.shape == (1, 3, 32, 32)
