from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from benchmarks.torchvision_ops import define_where_missing
from fedd.backbone import SMALL, DiffusionUNet, Replicas
from fedd.errors import ReproductionError, TrainingDataError
from fedd.paper import splits
from fedd.reproduce import Workbench, small, small_plan
from fedd.weights.files import save_backbone
from tests.fedd.conftest import TINY, fedd

define_where_missing()

STEMS = splits()["photographs"]
PUBLISHED = {stem for stems in splits()["subsets"].values() for stem in stems}
CODES = ("12", "34", "56")


@pytest.fixture(scope="session")
def ddi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All photographs of DDI in its layout, in a few pixels each, and the published masks' names."""
    folder = tmp_path_factory.mktemp("ddi")
    photographs, masks = folder / "photographs", folder / "masks"
    photographs.mkdir()
    masks.mkdir()
    rng = np.random.default_rng(0)
    lines = [["", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease"]]
    for n, stem in enumerate(STEMS):
        pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(photographs / f"{stem}.png")
        if stem in PUBLISHED:
            np.save(masks / f"{stem}.npy", np.full((8, 8), 4, np.int32))
        lines.append(
            [str(n), str(n + 1), f"{stem}.png", CODES[n % 3], str(n // 3 % 4 == 0).upper(), "x"]
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


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """What is given in place of DDI, its masks or the weights."""
    for name in ("beach/photographs/beach.png", "beach/masks/beach.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    (tmp_path / "few").mkdir()
    np.save(tmp_path / "few" / f"{min(PUBLISHED)}.npy", np.full((8, 8), 4, np.int32))
    torch.save({"input_blocks.0.0.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    return tmp_path


@pytest.mark.training
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (2, "--ddi {here}"),
        (2, "--small --ddi {here}"),
        (1, "--ddi {here}/few --masks {here}/few --weights small"),
        (1, "--ddi {here}/beach/photographs --masks {here}/beach/masks --weights small"),
        (1, "--ddi {ddi}/photographs --masks {here}/few --weights small"),
        (1, "{paper} --weights {here}/no.pt"),
        (1, "{paper} --weights {here}/other.pt"),
        (1, "{paper} --weights small --device cuda:7"),
        (1, "{paper} --weights small --device auto --only AlexNet"),
    ],
    ids=[
        "no masks and weights", "photographs for a small run", "no photographs",
        "photographs of something else", "missing masks", "missing weights",
        "weights of another architecture", "missing device", "unknown model",
    ],
)  # fmt: skip
def test_reproduce__refused_at_once(
    ddi: Path, here: Path, status: int, words: str, wording: SnapshotAssertion
) -> None:
    paper = f"--ddi {ddi}/photographs --masks {ddi}/masks"
    given = words.format(paper=paper, ddi=ddi, here=here)
    done = fedd("reproduce", *given.split(), "--out", here / "out")
    assert done.exit_code == status
    assert done.stderr.replace(str(ddi), "<ddi>").partition(": torch ")[0] == wording
    assert not (here / "out" / "cells").exists()


@pytest.mark.training
def test_ddi__missing_photographs_are_counted_and_named(
    ddi: Path, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    """One of the photographs that only the test of all remaining ones needs; the table names it."""
    shutil.copytree(ddi, tmp_path / "ddi")
    stem = next(s for s in STEMS if s not in PUBLISHED)
    (tmp_path / "ddi" / "photographs" / f"{stem}.png").unlink()
    done = _paper_run(tmp_path / "ddi", "small", tmp_path / "out", "--only", "classification")
    assert done.exit_code == 1
    assert done.stderr == wording
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.training
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
    assert "also read block 14" in done.output


@pytest.mark.training
def test_device__auto_is_every_one_and_baselines_get_the_first(
    ddi: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [torch.device("cpu"), torch.device("cpu", 0)]
    for module in ("fedd.network.devices", "fedd.backbone"):
        monkeypatch.setattr(f"{module}.existing_devices", lambda _: two)
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


@pytest.mark.training
def test_paper_plan__on_a_folder_of_the_papers_layout(
    ddi: Path, weights: Path, tmp_path: Path
) -> None:
    """The whole classification with FEDD, resumed, with the paper's values."""
    words = ("--only", "FEDD", "--only", "classification")
    done = _paper_run(ddi, weights, tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    assert "4 of 52 cells done, 4 in this run" in done.output
    assert not (tmp_path / "out" / "ablation").exists(), "with --only, only where it is asked for"
    text = (tmp_path / "out" / "table.md").read_text()
    assert "5 % (30 photographs)" in text
    assert "n = 30 images of 30 patients<br>paper 0.780" in text
    assert "## Classification: accuracy at 0.5, all 476 remaining photographs" in text
    assert "n = 476 images of 476 patients<br>paper 0.810" in text
    assert "## Classification: accuracy at 0.5, all 506 photographs outside" in text
    assert "validated on 30 photographs, 15 of which have a mask" in text
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
    )
    probes = replace(smaller.probes, members=2, views=0, steps=20, grid=32)
    smaller = replace(smaller, probes=probes, ablation=replace(probes, members=1), timesteps=(0,))
    monkeypatch.setattr("fedd.reproduce.small_plan", lambda *_: smaller)
    done = fedd("reproduce", "--small", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "8 of 8 cells done, 8 in this run" in done.output
    assert "Nothing here can be compared with the paper" in (tmp_path / "table.md").read_text()
    for name in ("figure4", "figure5", "figure7", "roc", "f1", "costs"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    for task in ("segmentation", "classification"):
        assert (tmp_path / "ablation" / f"figure6-{task}.png").stat().st_size > 5000
        assert f"ablation/figure6-{task}.png" in (tmp_path / "index.html").read_text()
    again = fedd("reproduce", "--small", "--out", tmp_path)
    assert "8 of 8 cells done, 0 in this run" in again.output


@pytest.mark.training
def test_figure6__missing_is_said_and_the_rest_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "LEARNED", {20: 2})

    def fails(*_: object) -> None:
        raise TrainingDataError("the masks show only skin")

    monkeypatch.setattr("fedd.explore.ablation.Cells.at", fails)
    plan = replace(small_plan(), fractions=(20,), segmenters=(), classified=("FEDD",))
    monkeypatch.setattr("fedd.reproduce.small_plan", lambda *_: plan)
    monkeypatch.setattr("fedd.reproduce.write_report", lambda *_: tmp_path / "index.html")
    done = fedd("reproduce", "--small", "--out", tmp_path)
    assert done.exit_code == 1
    assert "1 of 1 cells done" in done.stdout
    assert "figure 6 missing: the masks show only skin" in done.stderr
    assert fedd("reproduce", "--small", "--no-ablate", "--out", tmp_path).exit_code == 0


@pytest.mark.training
def test_baselines_that_can_not_be_run__exit_1_unless_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "LEARNED", {20: 2})
    plan = replace(small_plan(), fractions=(20,), segmenters=())
    monkeypatch.setattr(
        "fedd.reproduce.small_plan", lambda *_: replace(plan, classified=("FEDD", "VGG16"))
    )
    monkeypatch.setattr("fedd.reproduce.write_report", lambda *_: tmp_path / "index.html")
    monkeypatch.setattr("fedd.reproduce.cells.baselines_problem", lambda: "torchvision is broken")
    words = ("--small", "--no-ablate", "--out", tmp_path)
    done = fedd("reproduce", *words)
    assert done.exit_code == 1
    assert "1 of 2 cells done" in done.stdout
    assert "1 cells missing: torchvision is broken" in done.stderr
    assert fedd("reproduce", *words, "--partial").exit_code == 0
    nothing = fedd(
        "reproduce", "--small", "--out", tmp_path / "other", "--only", "VGG16", "--partial"
    )
    assert nothing.exit_code == 1, "nothing at all was done"
    asked = fedd("reproduce", *words, "--only", "FEDD")
    assert asked.exit_code == 0, "what was not requested is not missing"


def test_shipped__small_is_its_architecture() -> None:
    """`--small` counts on the blocks that its settings name."""
    plan = small_plan()
    assert max(plan.probes.features.blocks) < SMALL.decoder_blocks


def _paper_run(folder: Path, weights: object, out: Path, *more: object) -> Result:
    words = ("--ddi", folder / "photographs", "--masks", folder / "masks", "--weights", weights)
    return fedd("reproduce", *words, "--out", out, *more)
