"""Batches that are halved when a GPU's memory runs out, in whatever step of their computation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

import torch

from fedd.errors import DeviceMemoryError
from fedd.features import Prepared
from fedd.network.devices import within_memory

V = TypeVar("V")

logger = logging.getLogger(__name__)


class Halving(Generic[V]):
    """A computation of batches of at most `most` photographs; `most` shrinks when memory runs out."""

    def __init__(
        self, compute: Callable[[Prepared], Generator[None, None, Sequence[V]]], most: int
    ) -> None:
        self.compute, self.most = compute, most

    def begin(self, batch: Prepared) -> Running[V]:
        """Take the first step of a batch."""
        running = Running(self, batch)
        running.step()
        return running

    def halved(self, batch: Prepared, error: BaseException) -> list[V]:
        """Compute a batch that did not fit in two halves; raise DeviceMemoryError if it can't be halved."""
        if len(batch) == 1:
            with within_memory("predicting one photograph"):
                raise error
        self.most = min(self.most, len(batch) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning(
            "the GPU's memory does not hold %d photographs at a time: going on with %d",
            len(batch),
            self.most,
        )
        values: list[V] = []
        while rows := range(len(values), len(batch)):
            values += self.begin(batch.of(rows[: self.most])).finish()
        return values


def completed(steps: Generator[None, None, V]) -> V:
    """Take all steps of a computation; returns its value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: V = end.value
            return value


class Running(Generic[V]):
    """A batch on its way."""

    def __init__(self, halving: Halving[V], batch: Prepared) -> None:
        self._halving, self._batch = halving, batch
        self._steps = halving.compute(batch)
        self._values: Sequence[V] | None = None

    def step(self) -> None:
        """Take the next step; in halves from the beginning, if memory runs out."""
        if self._values is not None:
            return
        try:
            next(self._steps)
            return
        except StopIteration as end:
            self._values = end.value
            return
        except (torch.OutOfMemoryError, DeviceMemoryError) as error:
            full: BaseException = error
        # Outside of the handler, and without the traceback, which would keep the batch in memory.
        self._steps.close()
        self._values = self._halving.halved(self._batch, full.with_traceback(None))

    def finish(self) -> Sequence[V]:
        """Take all steps that are left; returns the values of the batch."""
        while self._values is None:
            self.step()
        return self._values
