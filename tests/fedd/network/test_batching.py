"""Batch sizes on a device that runs out of memory: a fake one, that says so as torch does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedd.backbone import IMAGENET_256, SMALL, DiffusionUNet
from fedd.errors import DeviceError
from fedd.network.devices import BatchSize, first_batch
from tests.wording import Refusal


class SmallGpu:
    """A job that fits up to `room` images, and notes how many it was given."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    def __call__(self, images: Tensor) -> dict[int, Tensor]:
        self.tried.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return {6: images * 2, 8: images + 1}


def test_run__doubles_while_batches_fit() -> None:
    gpu, batch = SmallGpu(100), BatchSize(2, 16)
    images = torch.arange(40.0)
    found = batch.run(gpu, images)
    assert gpu.tried == [2, 4, 8, 16, 10]
    assert torch.equal(found[6], images * 2)
    assert torch.equal(found[8], images + 1)


def test_run__halves_when_memory_runs_out_and_remembers() -> None:
    gpu, batch = SmallGpu(5), BatchSize(2, 64)
    images = torch.arange(20.0)
    assert torch.equal(batch.run(gpu, images)[6], images * 2)
    assert gpu.tried == [2, 4, 8, 4, 4, 4, 2]
    gpu.tried.clear()
    batch.run(gpu, images)
    assert gpu.tried == [4, 4, 4, 4, 4], "what did not fit is not tried again"


def test_run__less_than_a_batch_says_nothing_about_a_whole_one() -> None:
    gpu, batch = SmallGpu(100), BatchSize(4, 64)
    batch.run(gpu, torch.arange(3.0))
    assert batch.size == 4


def test_run__memory_that_others_took_meanwhile() -> None:
    gpu, batch = SmallGpu(8), BatchSize(8, 8)
    batch.run(gpu, torch.arange(8.0))
    gpu.room = 1
    images = torch.arange(5.0)
    assert torch.equal(batch.run(gpu, images)[6], images * 2)
    assert batch.size == 1


def test_run__not_even_one_image_fits(refusal: Refusal) -> None:
    with refusal(DeviceError):
        BatchSize(4, 64).run(SmallGpu(0), torch.arange(4.0))


def test_run__what_comes_of_all_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_parts: list[Tensor]) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(torch, "cat", full)
    says = r"ran out while joining the activations of 9 images \(2.00 GiB more were needed\)"
    with pytest.raises(DeviceError, match=says):
        BatchSize(4, 64).run(SmallGpu(100), torch.arange(9.0))


def test_run__other_errors_are_not_taken_for_it() -> None:
    def broken(_images: Tensor) -> dict[int, Tensor]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        BatchSize(4, 64).run(broken, torch.arange(4.0))


def test_run__no_images() -> None:
    assert BatchSize(4, 64).run(SmallGpu(9), torch.zeros(0, 3))[6].shape == (0, 3)


def test_first_batch__on_a_cpu_it_never_changes() -> None:
    cpu = torch.device("cpu")
    assert first_batch(SMALL, cpu) == (16, 16)
    assert first_batch(IMAGENET_256, cpu) == (1, 1), "67 MB a feature map"
    assert first_batch(replace(IMAGENET_256, image_size=64), cpu) == (5, 5)
    first, most = first_batch(IMAGENET_256, torch.device("cuda"))
    assert first < most


def test_activations__in_halves_when_memory_runs_out(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the backbone itself: the same activations, whatever fitted at a time."""
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    expected = tiny.activations(images, 10, (5,))[5]
    whole = tiny._forward
    tried = []

    def small(net: object, x: Tensor, t: Tensor, blocks: tuple[int, ...]) -> dict[int, Tensor]:
        tried.append(len(x))
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return whole(net, x, t, blocks)

    monkeypatch.setattr(tiny, "_forward", small)
    monkeypatch.setattr(tiny, "batch", BatchSize(4, 64))
    found = tiny.activations(images, 10, (5,))[5]
    assert tried == [4, 2, 2, 1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
