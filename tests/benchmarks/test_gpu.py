"""The GPU's table, whole, with a tiny network on the CPU."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import gpu
from benchmarks.gpu import Sizes, measure
from benchmarks.gpu_inputs import untrained_network
from benchmarks.gpu_passes import differences
from fedd.backbone import DiffusionUNet
from fedd.network import throughput
from fedd.network.unet import decoder_activations
from tests.fedd.conftest import QUICK, TINY

ROOT = Path(__file__).parents[2]

#: What the command may import besides the standard library, and what torch itself needs.
ALLOWED = {"torch", "numpy", "PIL", "safetensors", "guided_diffusion"}
OURS = {"annotation_protocol", "benchmarks", "ddiseg", "fedd"}

#: Runs the command where no other package can be found.
RESTRICTED = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class Limited(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if known or top in ALLOWED else None

ALLOWED = set(sys.argv[1].split(","))
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Limited]
import torch
torch.set_num_threads(1)
from benchmarks import gpu
from fedd.features import FeatureSpec
from fedd.network import throughput
from fedd.network.unet import UNetConfig
from fedd.segment import ProbeSettings

throughput.PEAK_SIZE = {"cpu": 64}
ok = gpu.measure("cpu", gpu.Sizes(
    config=UNetConfig(32, 32, (1, 1, 1, 1), 1, (4,), 16, patch=2, learn_sigma=False),
    settings=ProbeSettings(FeatureSpec((3, 5), 10), views=0, steps=20, batch_size=64),
    batches={"bfloat16": (1, 2), "float32": (2,)}, untuned_batch=3, seconds=0.02, masks=4,
    compared=2, phantom_size=32, photographs=((60, 45), (64, 64)), pipeline_batch=2,
    pipeline_seconds=0.05, compiler=lambda forward: forward,
))
sys.exit(not ok)
"""

SMALL = Sizes(
    config=TINY,
    settings=replace(QUICK, steps=20),
    batches={"bfloat16": (1, 2, 4), "float32": (2,)},
    untuned_batch=3,
    seconds=0.02,
    masks=4,
    compared=2,
    phantom_size=32,
    photographs=((60, 45),),
    pipeline_batch=2,
    pipeline_seconds=0.05,
    compiler=lambda forward: forward,
)


def _needed_by_torch() -> set[str]:
    """Return the import names of torch's own requirements, with theirs."""
    found, waiting = {"torchgen", "functorch"}, ["torch"]
    while waiting:
        try:
            lines = requires(waiting.pop()) or []
        except PackageNotFoundError:
            continue
        names = {
            re.split(r"[ ;<>=!~\[(]", line)[0] for line in lines if "extra ==" not in line
        } - found
        found |= names
        waiting += names
    return {name.replace("-", "_").lower() for name in found}


@pytest.mark.process
def test_command__needs_no_other_package_and_prints_every_row() -> None:
    allowed = ",".join(ALLOWED | OURS | _needed_by_torch())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RESTRICTED, allowed],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.match(r"\d+ cores, torch .*, Python .*; random weights$", lines[0])
    assert lines[1:4] == ["", "| What | Measured | Goal |", "|---|---|---|"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert [re.sub(r"[\d.]+", "N", what) for what, _, _ in rows] == [
        "activations against guided_diffusion's own forward, largest difference",
        "matrix product, bfloatN",
        "matrix product, floatN",
        "prefix to blocks N and N, bfloatN, batches of N",
        "prefix to blocks N and N, bfloatN, batches of N",
        "prefix to blocks N and N, bfloatN, algorithms not tried, batches of N",
        "prefix to blocks N and N, floatN, batches of N",
        "noise of an image on one core, and of N on threads",
        "images on the CPU to floatN activations, bfloatN, batches of N",
        "N probes of N masks, bfloatN",
        "pixels of equal class in bfloatN and floatN, N phantoms",
        "a small file written and flushed to the disk, alone",
        "JPEG of N x N decoded and resized, photographs/s by threads",
        "JPEG of N x N decoded and resized, photographs/s by threads",
        "N JPEG files of N x N to stored masks, bfloatN",
        "N JPEG files of N x N to stored masks, bfloatN",
        "prefix to blocks N and N, bfloatN, compiled, batches of N",
        "N JPEG files of N x N to stored masks, bfloatN, compiled",
        "N JPEG files of N x N to stored masks, bfloatN, compiled",
        "prefix to blocks N and N, floatN, compiled, batches of N",
        "peak memory of the run",
    ]
    assert all(re.search(r"\d", measured) for _, measured, _ in rows)


@pytest.mark.training
def test_table__memory_runs_out_beyond_a_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The row says so, and everything else goes on with what fits."""
    monkeypatch.setattr(throughput, "PEAK_SIZE", {"cpu": 64})

    def small(net: object, x: Tensor, *rest: object) -> dict[int, Tensor]:
        if len(x) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decoder_activations(net, x, *rest)

    monkeypatch.setattr(gpu, "decoder_activations", small)
    lines: list[str] = []
    assert measure("cpu", SMALL, lines.append)
    full = "| prefix to blocks 3 and 5, bfloat16, batches of 4 | does not fit into the GPU's memory |  |"
    assert full in lines
    assert lines[-1].startswith("| peak memory of the run | host ")
    assert not any("not measured" in line or "failed" in line for line in lines)


@pytest.mark.slow
def test_table__a_stage_that_fails_costs_only_those_that_need_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(throughput, "PEAK_SIZE", {"cpu": 64})

    def broken(*_: object) -> None:
        raise ValueError("no masks | at all\nmore of it")

    monkeypatch.setattr(gpu, "train_probes", broken)
    lines: list[str] = []
    assert not measure("cpu", SMALL, lines.append)
    assert "| probes of 4 masks | failed: no masks / at all |  |" in lines
    missing = "failed: there are no probes: their training failed, or had no time"
    assert [line.split(" | ")[0] for line in lines if missing in line] == [
        "| bfloat16 against float32",
        "| JPEG to masks, 60 x 45",
        "| JPEG to masks, 60 x 45, compiled",
    ]
    assert any(line.startswith("| prefix to blocks 3 and 5, float32, compiled") for line in lines)
    assert "ValueError: no masks" in capsys.readouterr().err


def test_differences__of_a_changed_network_are_seen() -> None:
    library = untrained_network(TINY, torch.device("cpu"))
    nets = [
        DiffusionUNet("n", TINY, untrained_network(TINY, torch.device("cpu")), "0")
        for _ in range(2)
    ]
    nets[1].net.output_blocks[3][0].out_layers[3].weight *= 1.5
    same, other = differences(library, nets, decoder_activations, QUICK.features)
    assert same < 1e-5
    assert other > 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_main__without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main()
    assert capsys.readouterr().out.startswith("skipped: no GPU")
