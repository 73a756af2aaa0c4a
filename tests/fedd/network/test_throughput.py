from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fedd.backbone import IMAGENET_256, DiffusionUNet, Replicas
from fedd.features import FeatureSpec
from fedd.network import throughput
from fedd.network.throughput import flop_per_image, matrix_peak, measure
from tests.fedd.conftest import TINY, fedd

SPEC = FeatureSpec(blocks=(3, 5), timestep=10)


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "PEAK_SIZE", {"cpu": 64})


@pytest.mark.slow
def test_flop__of_the_papers_network() -> None:
    """Known figures: a whole forward is 2240 GFLOP, to block 8 797."""
    assert flop_per_image(IMAGENET_256, (6, 8)) == pytest.approx(797e9, rel=0.01)
    assert flop_per_image(IMAGENET_256, (17,)) == pytest.approx(2240e9, rel=0.01)


@pytest.mark.slow
def test_measure__figures_belong_together(tiny: DiffusionUNet) -> None:
    found = measure(tiny, SPEC, images=6, batch=4)
    assert found.images_per_second == pytest.approx(6 / found.seconds)
    assert found.gflop_per_image == pytest.approx(flop_per_image(TINY, (3, 5)) / 1e9)
    assert found.gflop_per_second == pytest.approx(found.gflop_per_image * found.images_per_second)
    assert found.flop_share == pytest.approx(found.gflop_per_second / found.peak_gflop_per_second)
    assert found.peak_memory_bytes > 50e6
    assert (found.devices, found.precision, found.images) == (("cpu",), "float32", 6)


@pytest.mark.slow
def test_measure__several_devices_are_measured_together(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "matrix_peak", lambda device, precision: 1e9)
    found = measure(Replicas([tiny, tiny]), SPEC, images=4, batch=4)
    assert found.devices == ("cpu", "cpu")
    assert found.peak_gflop_per_second == 2


@pytest.mark.slow
def test_measure__counts_every_photograph(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    activations = tiny.activations
    monkeypatch.setattr(
        tiny,
        "activations",
        lambda images, *rest: passed.append(len(images)) or activations(images, *rest),
    )
    measure(tiny, SPEC, images=20, batch=8)
    assert passed == [8, 8, 8, 4], "a warm-up of one batch, then all"


def test_matrix_peak__in_either_precision() -> None:
    for precision in ("float32", "bfloat16"):
        assert matrix_peak(torch.device("cpu"), precision) > 0


@pytest.mark.slow
def test_bench__text_and_json(tiny_file: Path) -> None:
    options = ["bench", "--backbone", tiny_file, "--device", "cpu", "--images", 3]
    text = fedd(*options)
    assert text.exit_code == 0, text.output
    for part in (
        "tiny on cpu, float32, to decoder block 5, n = 3 photographs",
        "images/s from JPEG to features, no masks predicted",
        "GFLOP/s reached",
        "peak memory",
    ):
        assert part in text.stdout
    options += ["--json", "--precision", "bfloat16"]
    found = json.loads(fedd(*options).stdout)
    assert (found["precision"], found["backbone"], found["images"]) == ("bfloat16", "tiny", 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_bench__device_that_does_not_exist() -> None:
    done = fedd("bench", "--device", "cuda")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: there is no device cuda")
