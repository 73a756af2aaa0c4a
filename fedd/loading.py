"""Photographs -> batches for a backbone, decoded and resized on threads while it computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedd.features import prepare

#: Opens one photograph, (H, W, 3) uint8; `fedd.dataset.Item.photograph` is one.
Open = Callable[[], NDArray[np.uint8]]

#: Threads that decode and resize; Pillow lets the others run meanwhile.
WORKERS = 8

#: Batches that may wait ready.
AHEAD = 2


def image_batches(
    photographs: Iterable[Open], size: int, batch: int, workers: int = WORKERS, pin: bool = False
) -> Iterator[Tensor]:
    """Batches (N, 3, size, size) in the order of `photographs`, N = `batch` but for the last.

    With `pin`, in page-locked memory, from which a GPU copies by itself. What opening a photograph
    raises comes out when its turn has come.
    """
    images = _prepared(photographs, size, AHEAD * batch, workers)
    while part := list(islice(images, batch)):
        stacked = torch.stack(part)
        yield stacked.pin_memory() if pin else stacked


def _prepared(photographs: Iterable[Open], size: int, ahead: int, workers: int) -> Iterator[Tensor]:
    """Each photograph prepared, in order; at most `ahead` are held ready."""
    waiting: deque[Future[Tensor]] = deque()
    pool = ThreadPoolExecutor(workers, "photographs")
    try:
        for opened in photographs:
            waiting.append(pool.submit(_open_and_prepare, opened, size))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _open_and_prepare(opened: Open, size: int) -> Tensor:
    return prepare(opened(), size)
