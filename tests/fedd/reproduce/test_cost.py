from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedd.backbone import IMAGENET_256, DiffusionUNet
from fedd.baselines import UNetSettings
from fedd.baselines.frozen import encoder_of
from fedd.baselines.packages import define_missing_operators
from fedd.network.cost import Cost, Step, activation_bytes, counted, duration, flop_of, operations
from fedd.network.throughput import flop_per_image
from fedd.reproduce import PaperSplit, Workbench
from fedd.reproduce.cost import CNN_GFLOP, UNET_GFLOP, cost_of, work_of
from fedd.reproduce.figure6 import ablation_of
from tests.fedd.reproduce.conftest import TINY_PLAN

Make = Callable[[Path], Workbench]


def test_cost__counts_each_photograph_once_for_all_fractions(
    workbench: Make, parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    bench = workbench(tmp_path)
    cost = cost_of(bench, TINY_PLAN.cells, None)
    segmentation, classification = cost.steps
    settings, last = TINY_PLAN.probes, max(TINY_PLAN.probes.features.blocks)
    learned = len(parts.learned[20])
    masked = learned * (1 + settings.views) + len(parts.measured("segmentation")) * (
        1 + settings.mirrored
    )
    assert segmentation.flop == masked * flop_per_image(tiny.config, (last,))
    diagnosed = learned + len(parts.measured("classification"))
    assert classification.flop == diagnosed * flop_per_image(tiny.config, (4,)), (
        "up to the last block"
    )
    blocks = settings.features.blocks
    assert cost.kept_bytes == masked * sum(activation_bytes(tiny.config, b) for b in blocks)
    per_cell = work_of(bench, TINY_PLAN.cells)
    assert sum(per_cell.values()) == pytest.approx(cost.flop)


def test_cost__of_figure_6_is_one_pass_a_timestep(
    workbench: Make, parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    bench = workbench(tmp_path)
    bench.plan = replace(TINY_PLAN, timesteps=(0, 50, 100))
    ablation = ablation_of(bench, tmp_path)
    cost = cost_of(bench, [], ablation)
    (step,) = cost.steps
    images = {
        i.path for task in ("segmentation", "classification") for i in ablation.parts.of(task)
    }
    views = TINY_PLAN.ablation.views * len(parts.learned[20])
    assert step.flop == 3 * (len(images) + views) * flop_of(tiny.config, max(ablation.grid.blocks))
    assert cost.scratch_bytes > 0
    assert not (tmp_path / "ablation").exists(), "nothing is written before it runs"


def test_cost__nothing_left(tiny: DiffusionUNet, tmp_path: Path) -> None:
    assert Cost([]).lines(tiny, tmp_path) == ["Nothing is left to compute."]


def test_lines__times_of_passes_and_of_trainings(tiny: DiffusionUNet, tmp_path: Path) -> None:
    steps = [Step("FEDD", "2 photographs", 1e9), Step("VGG16", "1 cell", 2e9, at_most=True)]
    lines = Cost(steps, kept_bytes=10**18).lines(tiny, tmp_path / "not" / "yet")
    assert lines[1:3] == [
        "  FEDD   2 photographs  1 GFLOP",
        "  VGG16  1 cell         at most 2 GFLOP",
    ]
    assert lines[3].startswith("Time: about ")
    assert "the trainings at most " in lines[3]
    assert "on cpu" in lines[3]
    assert lines[4].endswith("are free: it will not hold them.")


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (300, "5 min"), (7200, "2.0 h"), (864000, "10 days")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_operations() -> None:
    assert [operations(x) for x in (2.5e9, 3e12, 1.49e15, 2e18)] == [
        "2.5 GFLOP", "3 TFLOP", "1.49 PFLOP", "2 EFLOP",
    ]  # fmt: skip


@pytest.mark.slow
def test_paper__one_photograph_takes_0_8_and_1_5_tflop() -> None:
    assert flop_of(IMAGENET_256, 8) / 1e12 == pytest.approx(0.797, abs=1e-3)
    assert flop_of(IMAGENET_256, 14) / 1e12 == pytest.approx(1.491, abs=1e-3)


@pytest.mark.training
@pytest.mark.parametrize("encoder", ["vgg16", "mobilenet_v2"])
def test_table__of_unets_is_what_torch_counts(encoder: str) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")
    from fedd.baselines.unets import _build

    define_missing_operators()
    assert UNetSettings(encoder=encoder)
    assert _counted(_build(encoder, 5), 256) == pytest.approx(UNET_GFLOP[encoder], rel=0.01)


@pytest.mark.training
@pytest.mark.parametrize("model", ["vgg16", "resnet50"])
def test_table__of_cnns_is_what_torch_counts(model: str) -> None:
    pytest.importorskip("torchvision", reason="needs ddiseg[baselines]", exc_type=ImportError)
    define_missing_operators()
    assert _counted(encoder_of(model), 256) == pytest.approx(CNN_GFLOP[model], rel=0.02)


def _counted(net: torch.nn.Module, size: int) -> float:
    """GFLOP of one image, a quarter of the width and height at a time would count the same."""
    small = size // 4
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, 3, small, small))
    return counter.get_total_flops() * 16 / 1e9


def test_lines__trainings_alone_and_a_grid_alone(tiny: DiffusionUNet, tmp_path: Path) -> None:
    lines = Cost([Step("VGG16", "1 cell", 2e9, at_most=True)], scratch_bytes=10**8).lines(
        tiny, tmp_path
    )
    assert lines[2].startswith("Time: at most ")
    assert " more" not in lines[2]
    assert lines[3].startswith("Disk: 0.1 GB while the grid is computed; ")


def test_counted__one_and_more() -> None:
    assert [counted(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
