from __future__ import annotations

import logging
from collections.abc import Generator

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from fedd.errors import DeviceError, DeviceMemoryError
from fedd.features import Prepared
from fedd.network.halving import Halving
from tests.wording import Refusal


def batch(count: int) -> Prepared:
    images = torch.arange(count).float()[:, None, None, None].expand(count, 3, 2, 2)
    return Prepared(images, ((4, 4),) * count)


class SmallGpu:
    """Computes in two steps; in one of them only `room` photographs fit."""

    def __init__(
        self, room: int, full_in: int, error: type[Exception] = torch.OutOfMemoryError
    ) -> None:
        self.room, self.full_in, self.error = room, full_in, error
        self.tried: list[int] = []

    def __call__(self, part: Prepared) -> Generator[None, None, list[float]]:
        self.tried.append(len(part))
        for step in (1, 2, 3):
            if step == self.full_in and len(part) > self.room:
                raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
            if step < 3:
                yield
        return [float(image[0, 0, 0]) for image in part.images]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, DeviceMemoryError])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_begin__halved_in_any_step(step: int, error: type[Exception]) -> None:
    gpu = SmallGpu(2, step, error)
    halving = Halving(gpu, 8)
    running = halving.begin(batch(8))
    assert running.finish() == list(range(8))
    assert gpu.tried == [8, 4, 2, 2, 2, 2], "what did not fit is not tried again"
    assert halving.most == 2, "smaller from now on"


def test_begin__says_so_once_for_each_size(
    caplog: pytest.LogCaptureFixture, wording: SnapshotAssertion
) -> None:
    with caplog.at_level(logging.WARNING, "fedd.network.halving"):  # whatever other tests left
        Halving(SmallGpu(3, 1), 8).begin(batch(5)).finish()
    assert [record.getMessage() for record in caplog.records] == wording


def test_begin__one_photograph_does_not_fit(refusal: Refusal) -> None:
    with refusal(DeviceError):
        Halving(SmallGpu(0, 2), 8).begin(batch(4)).finish()


def test_begin__other_errors_are_not_taken_for_it() -> None:
    def broken(part: Prepared) -> Generator[None, None, list[float]]:
        yield
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="assert triggered"):
        Halving(broken, 8).begin(batch(2)).finish()
