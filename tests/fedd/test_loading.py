from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedd.errors import DatasetError
from fedd.features import AHEAD, Open, image_batches, prepare


def _photograph(value: int) -> NDArray[np.uint8]:
    return np.full((20, 30, 3), value, np.uint8)


def _slow(value: int, seconds: float) -> Open:
    def opened() -> NDArray[np.uint8]:
        time.sleep(seconds)
        return _photograph(value)

    return opened


def test_image_batches__in_order_whoever_is_ready_first() -> None:
    openers = [_slow(value, 0.02 * (9 - value)) for value in range(9)]
    found = list(image_batches(openers, 16, 4))
    assert [len(batch) for batch in found] == [4, 4, 1]
    expected = torch.stack([prepare(_photograph(value), 16) for value in range(9)])
    assert torch.equal(torch.cat(found), expected)


def test_image_batches__opened_on_several_threads() -> None:
    """Each waits for the other: one thread alone would never come back."""
    meeting = threading.Barrier(2, timeout=30)

    def opened() -> NDArray[np.uint8]:
        meeting.wait()
        return _photograph(1)

    assert len(list(image_batches([opened, opened], 8, 2, workers=2))) == 1


def test_image_batches__holds_few_photographs_ready() -> None:
    asked = 0

    def endless() -> Iterator[Open]:
        nonlocal asked
        while True:
            asked += 1
            yield lambda: _photograph(0)

    batches = image_batches(endless(), 8, 3)
    next(batches)
    assert asked <= 3 + AHEAD * 3
    batches.close()


def test_image_batches__unreadable_photograph_is_an_error_in_its_turn() -> None:
    def unreadable() -> NDArray[np.uint8]:
        raise DatasetError("b.png can't be read")

    batches = image_batches([lambda: _photograph(1), unreadable], 8, 1)
    assert len(next(batches)) == 1
    with pytest.raises(DatasetError, match=r"b\.png"):
        next(batches)


def test_image_batches__none() -> None:
    assert list(image_batches([], 8, 4)) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (501, 50)], ids=str)
def test_image_batches__tiny_and_odd_photographs(shape: tuple[int, int]) -> None:
    (found,) = image_batches([lambda: np.zeros((*shape, 3), np.uint8)], 32, 4)
    assert found.shape == (1, 3, 32, 32)
