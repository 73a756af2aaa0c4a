from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from benchmarks.torchvision_ops import define_where_missing
from fedd.backbone import SMALL, DiffusionUNet, Replicas
from fedd.cli.main import cli
from fedd.errors import ReproductionError
from fedd.paper import splits
from fedd.reproduce import Workbench, small, small_plan
from fedd.weights.files import save_backbone
from tests.fedd.conftest import TINY

define_where_missing()

STEMS = sorted({stem for stems in splits()["subsets"].values() for stem in stems})
CODES = ("12", "34", "56")


def _run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["reproduce", *map(str, words)])


@pytest.fixture(scope="session")
def ddi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All photographs of the paper's split in DDI's layout, in one colour each, and their masks."""
    folder = tmp_path_factory.mktemp("ddi")
    photographs, masks = folder / "photographs", folder / "masks"
    photographs.mkdir()
    masks.mkdir()
    rng = np.random.default_rng(0)
    lines = [["", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease"]]
    for n, stem in enumerate(STEMS):
        pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(photographs / f"{stem}.png")
        np.save(masks / f"{stem}.npy", np.full((8, 8), 4, np.int32))
        lines.append(
            [str(n), str(n + 1), f"{stem}.png", CODES[n % 3], str(n % 2 == 0).upper(), "x"]
        )
    with (photographs / "ddi_metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained backbone of the shipped architecture."""
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    net = DiffusionUNet.random(replace(TINY, image_size=32))
    save_backbone(path, "tiny", net.config, net.net.state_dict(), {})
    return path


def test_usage__what_is_missing_is_named(tmp_path: Path) -> None:
    done = _run("--ddi", tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "--masks and --weights missing" in done.output
    assert "--small" in done.output


def test_usage__small_takes_no_photographs(tmp_path: Path) -> None:
    done = _run("--small", "--ddi", tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "leave out --ddi" in done.output


def test_wrong_folder__no_photographs(tmp_path: Path) -> None:
    done = _run(
        "--ddi", tmp_path, "--masks", tmp_path, "--weights", "small", "--out", tmp_path / "o"
    )
    assert done.exit_code == 1
    assert f"no photographs in {tmp_path}" in done.output


def test_wrong_folder__photographs_of_something_else(tmp_path: Path) -> None:
    for name in ("photographs/beach.png", "masks/beach.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    done = _paper_run(tmp_path, "small", tmp_path / "out")
    assert done.exit_code == 1
    assert "333 of the split's 333 photographs can't be used, no photograph: 000001" in done.output


def test_missing__masks_are_named(ddi: Path, tmp_path: Path) -> None:
    few = tmp_path / "masks"
    few.mkdir()
    np.save(few / f"{STEMS[0]}.npy", np.full((8, 8), 4, np.int32))
    words = ("--ddi", ddi / "photographs", "--masks", few, "--weights", "small")
    done = _run(*words, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert f"332 of the split's 333 photographs can't be used, no mask: {STEMS[1]}" in done.output
    assert not (tmp_path / "out" / "cells").exists()


def test_weights__not_there(ddi: Path, tmp_path: Path) -> None:
    done = _paper_run(ddi, tmp_path / "no.pt", tmp_path / "out")
    assert done.exit_code == 1
    assert "no backbone called" in done.output


def test_weights__of_another_architecture(ddi: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"input_blocks.0.0.weight": torch.zeros(3, 3)}, path)
    done = _paper_run(ddi, path, tmp_path / "out")
    assert done.exit_code == 1
    assert "does not fit the network" in done.output


def test_weights__without_the_blocks(
    ddi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan()
    spec = replace(plan.probes.features, blocks=(6, 14))
    monkeypatch.setattr(
        "fedd.reproduce.paper_plan",
        lambda *_: replace(plan, probes=replace(plan.probes, features=spec), small=False),
    )
    done = _paper_run(ddi, "small", tmp_path / "out")
    assert done.exit_code == 1
    assert "read block 14 too" in done.output


def test_device__that_is_not_there(ddi: Path, tmp_path: Path) -> None:
    done = _paper_run(ddi, "small", tmp_path / "out", "--device", "cuda:7")
    assert done.exit_code == 1
    assert "cuda:7" in done.output


def test_device__auto_is_every_one_and_baselines_get_the_first(
    ddi: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [torch.device("cpu"), torch.device("cpu", 0)]
    for module in ("devices", "replicas"):
        monkeypatch.setattr(f"fedd.network.{module}.existing_devices", lambda _: two)
    given: list[object] = []

    class Noting(Workbench):
        def __init__(self, *arguments: Any) -> None:
            given.extend(arguments)
            super().__init__(*arguments)
            raise ReproductionError("as far as this test goes")

    monkeypatch.setattr("fedd.reproduce.Workbench", Noting)
    done = _paper_run(ddi, weights, tmp_path / "out", "--device", "auto", "--only", "FEDD")
    assert "as far as this test goes" in done.output
    assert isinstance(given[2], Replicas)
    assert given[2].devices == [torch.device("cpu")] * 2
    assert given[4] == "cpu"


def test_device__auto_on_this_machine(ddi: Path, tmp_path: Path) -> None:
    done = _paper_run(ddi, "small", tmp_path / "out", "--device", "auto", "--only", "AlexNet")
    assert "no task or model is called alexnet" in done.output


def test_only__unknown_name(ddi: Path, tmp_path: Path) -> None:
    done = _paper_run(ddi, "small", tmp_path / "out", "--only", "AlexNet")
    assert done.exit_code == 1
    assert "no task or model is called alexnet" in done.output


@pytest.mark.training
def test_paper_plan__on_a_folder_of_the_papers_layout(
    ddi: Path, weights: Path, tmp_path: Path
) -> None:
    """The whole classification with FEDD, resumed, with the paper's numbers beside ours."""
    words = ("--only", "FEDD", "--only", "classification")
    done = _paper_run(ddi, weights, tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    assert "4 of 52 cells done, 4 in this run" in done.output
    assert not (tmp_path / "out" / "ablation").exists(), "with --only, only where it is asked for"
    text = (tmp_path / "out" / "table.md").read_text()
    assert "5 % (30 photographs)" in text
    assert "n = 30<br>paper 0.780" in text
    again = _paper_run(ddi, weights, tmp_path / "out", *words)
    assert "4 of 52 cells done, 0 in this run" in again.output
    other = _paper_run(ddi, weights, tmp_path / "out", *words, "--precision", "bfloat16")
    assert other.exit_code == 1
    assert 'precision "float32", not "bfloat16"' in other.output


@pytest.mark.training
def test_small__the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer models, fractions and phantoms than `--small` has, the same way through."""
    pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")
    monkeypatch.setattr(small, "LEARNED", {5: 2, 20: 7})
    monkeypatch.setattr(small, "TESTED", 4)
    smaller = replace(
        small_plan(),
        fractions=(5, 20),
        segmenters=("FEDD", "MobileNetV2"),
        classified=("FEDD", "MobileNetV2"),
        resamples=50,
    )
    probes = replace(smaller.probes, members=2, views=0, steps=20, grid=32)
    smaller = replace(smaller, probes=probes, ablation=replace(probes, members=1), timesteps=(0,))
    monkeypatch.setattr("fedd.reproduce.small_plan", lambda _: smaller)
    done = _run("--small", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "8 of 8 cells done, 8 in this run" in done.output
    assert "Nothing here can be compared with the paper" in (tmp_path / "table.md").read_text()
    for name in ("figure4", "figure5", "figure7", "roc", "f1", "costs"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    for task in ("segmentation", "classification"):
        assert (tmp_path / "ablation" / f"figure6-{task}.png").stat().st_size > 5000
        assert f"ablation/figure6-{task}.png" in (tmp_path / "index.html").read_text()
    again = _run("--small", "--out", tmp_path)
    assert "8 of 8 cells done, 0 in this run" in again.output


def test_figure6__that_can_not_be_made_is_told_and_the_rest_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "LEARNED", {20: 2})  # too few for a validation split
    plan = replace(small_plan(), fractions=(20,), segmenters=(), classified=("FEDD",), resamples=50)
    monkeypatch.setattr("fedd.reproduce.small_plan", lambda _: plan)
    monkeypatch.setattr("fedd.reproduce.write_report", lambda *_: tmp_path / "index.html")
    done = _run("--small", "--out", tmp_path)
    assert done.exit_code == 1
    assert "1 of 1 cells done" in done.stdout
    assert "figure 6 missing: no test split can be drawn" in done.stderr
    assert _run("--small", "--no-ablate", "--out", tmp_path).exit_code == 0


def test_baselines_that_can_not_be_run__exit_1_unless_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "LEARNED", {20: 2})
    plan = replace(small_plan(), fractions=(20,), segmenters=(), resamples=50)
    monkeypatch.setattr(
        "fedd.reproduce.small_plan", lambda _: replace(plan, classified=("FEDD", "VGG16"))
    )
    monkeypatch.setattr("fedd.reproduce.write_report", lambda *_: tmp_path / "index.html")
    monkeypatch.setattr("fedd.reproduce.cells.baselines_problem", lambda: "torchvision is broken")
    words = ("--small", "--no-ablate", "--out", tmp_path)
    done = _run(*words)
    assert done.exit_code == 1
    assert "1 of 2 cells done" in done.stdout
    assert "1 cells missing: torchvision is broken" in done.stderr
    assert _run(*words, "--partial").exit_code == 0
    nothing = _run("--small", "--out", tmp_path / "other", "--only", "VGG16", "--partial")
    assert nothing.exit_code == 1, "nothing at all was done"
    asked = _run(*words, "--only", "FEDD")
    assert asked.exit_code == 0, "what was not requested is not missing"


def test_shipped__small_is_its_architecture() -> None:
    """`--small` counts on the blocks that its settings name."""
    plan = small_plan()
    assert max(plan.probes.features.blocks) < SMALL.decoder_blocks


def _paper_run(folder: Path, weights: object, out: Path, *more: object) -> Result:
    words = ("--ddi", folder / "photographs", "--masks", folder / "masks", "--weights", weights)
    return _run(*words, "--out", out, *more)
