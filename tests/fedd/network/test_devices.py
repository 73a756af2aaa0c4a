"""Devices that exist and that do not; several of them; memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedd.backbone import IMAGENET_256, SMALL, DiffusionUNet, Replicas, place
from fedd.errors import DeviceError
from fedd.network.devices import (
    BatchSize,
    existing_device,
    existing_devices,
    first_batch,
    within_memory,
)
from tests.fedd.conftest import TINY
from tests.wording import Refusal


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let torch count as many GPUs as the test says."""

    def count(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return count


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "gpu", "", "meta"])
def test_device__does_not_exist(
    tiny: DiffusionUNet, gpus: Callable[[int], None], name: str, refusal: Refusal
) -> None:
    gpus(0)
    with refusal(DeviceError):
        tiny.to(name)


def test_device__fewer_gpus_than_asked_for(gpus: Callable[[int], None], refusal: Refusal) -> None:
    gpus(2)
    assert existing_device("cuda:1") == torch.device("cuda", 1)
    assert existing_device("cuda") == torch.device("cuda", 0)
    with refusal(DeviceError):
        existing_device("cuda:2")


def test_auto__every_gpu_or_the_cpu(gpus: Callable[[int], None]) -> None:
    gpus(0)
    assert existing_devices() == [torch.device("cpu")]
    gpus(2)
    assert existing_devices() == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert existing_devices("cpu") == [torch.device("cpu")]


def test_precision__unknown_or_lost(tiny: DiffusionUNet, refusal: Refusal) -> None:
    with refusal(DeviceError):
        tiny.to("cpu", "float8")
    half = tiny.to("cpu", "bfloat16")
    assert (half.precision, tiny.precision) == ("bfloat16", "float32")
    assert half.hash == tiny.hash
    with refusal(DeviceError):
        half.to("cpu", "float32")
    assert tiny.to("cpu") is tiny
    assert tiny.net.input_blocks[0][0].weight.dtype == torch.float32, "the original is untouched"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_replicas__share_the_images(tiny: DiffusionUNet, count: int) -> None:
    copies = [DiffusionUNet("tiny", TINY, tiny.net, tiny.hash) for _ in range(3)]
    given: list[int] = []
    for copy in copies:
        copy.batch = _Noting(given)
    both = Replicas(copies)
    images = torch.rand(count, 3, 32, 32) * 2 - 1
    found = both.activations(images, 10, (3, 5), noise=1)
    expected = tiny.activations(images, 10, (3, 5), noise=1)
    for block in (3, 5):
        torch.testing.assert_close(found[block], expected[block], rtol=1e-4, atol=1e-5)
    assert sorted(given) == {1: [1], 2: [1, 1], 3: [1, 1, 1], 7: [2, 2, 3]}[count]
    assert (both.name, both.hash, both.blocks) == ("tiny", tiny.hash, tiny.blocks)


def test_replicas__say_where_activations_come_out(tiny: DiffusionUNet) -> None:
    first, second = (DiffusionUNet("tiny", TINY, tiny.net, tiny.hash) for _ in range(2))
    first.device, second.device = torch.device("cuda", 0), torch.device("cuda", 1)
    assert Replicas([first, second]).device == torch.device("cuda", 0)


def test_replicas__what_comes_of_all_does_not_fit(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    parts = tiny.activations(torch.zeros(1, 3, 32, 32), 10, (3,))
    monkeypatch.setattr(tiny, "activations", lambda *_: parts)

    def full(_parts: list[Tensor]) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "cat", full)
    with refusal(DeviceError):
        Replicas([tiny, tiny]).activations(torch.zeros(2, 3, 32, 32), 10, (3,))


def test_replicas__error_of_one_comes_out(tiny: DiffusionUNet) -> None:
    with pytest.raises(ValueError, match="0 to 7"):
        Replicas([tiny, tiny]).activations(torch.zeros(2, 3, 32, 32), 10, (9,))


def test_place__one_device_needs_no_replicas(tiny: DiffusionUNet) -> None:
    assert place(tiny, "cpu") is tiny
    half = place(tiny, "cpu", "bfloat16")
    assert isinstance(half, DiffusionUNet)
    assert half.precision == "bfloat16"


@pytest.mark.parametrize(
    ("torch_says", "how_much"),
    [
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has",
            " (2.00 GiB more were needed)",
        ),
        ("CUDA out of memory.", ""),
    ],
)
def test_memory__one_line_says_what_how_much_and_what_to_do(torch_says: str, how_much: str) -> None:
    with pytest.raises(DeviceError) as caught, within_memory("painting 64 photographs"):
        raise torch.OutOfMemoryError(torch_says)
    assert str(caught.value) == (
        f"the GPU's memory ran out while painting 64 photographs{how_much}: end other work on the "
        "GPU, or give --device cpu"
    )


def test_memory__other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="assert triggered"), within_memory("painting"):
        raise RuntimeError("CUDA error: device-side assert triggered")


def test_activations__an_error_of_the_network_itself_comes_out() -> None:
    net = DiffusionUNet.random(TINY)
    net.net.input_blocks[0][0].weight = torch.nn.Parameter(torch.zeros(32, 5, 3, 3))
    with pytest.raises(RuntimeError, match="channels"):
        net.activations(torch.zeros(1, 3, 32, 32), 10, (5,))


class _Noting(BatchSize):
    def __init__(self, given: list[int]) -> None:
        super().__init__(64, 64)
        self.given = given

    def run(self, job: Callable[[Tensor], dict[int, Tensor]], images: Tensor) -> dict[int, Tensor]:
        self.given.append(len(images))
        return super().run(job, images)


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
