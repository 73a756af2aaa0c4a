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

from fedd.backbone import SMALL, DiffusionUNet, Replicas, place
from fedd.baselines.packages import define_missing_operators
from fedd.errors import FigureError, ReproductionError, TrainingDataError
from fedd.paper import splits
from fedd.precision import trial_later
from fedd.reproduce import Workbench, small, small_plan
from fedd.weights.files import save_backbone
from tests.fedd.conftest import TINY, fedd

define_missing_operators()

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
    assert "4 of 4 cells done, 4 in this run" in done.output
    assert not (tmp_path / "out" / "ablation").exists(), "with --only, only where it is asked for"
    text = (tmp_path / "out" / "table.md").read_text()
    assert "5 % (30 photographs)" in text
    assert "n = 30 images of 30 patients<br>paper 0.780" in text
    assert "## Classification: accuracy at 0.5, all 476 remaining photographs" in text
    assert "n = 476 images of 476 patients<br>paper 0.810" in text
    assert "## Classification: accuracy at 0.5, all 506 photographs outside" in text
    assert "validated on 30 photographs, 15 of which have a mask" in text
    again = _paper_run(ddi, weights, tmp_path / "out", *words)
    assert "4 of 4 cells done, 0 in this run" in again.output
    other = _paper_run(ddi, weights, tmp_path / "out", *words, "--precision", "bfloat16")
    assert other.exit_code == 1
    assert 'precision "float32", not "bfloat16"' in other.output


@pytest.mark.training
def test_small__every_cell_and_figure_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 52 cells, each on fewer and smaller phantoms and for fewer steps than `--small` has."""
    pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")
    _make_smaller(monkeypatch, {5: 2, 10: 3, 15: 4, 20: 5})
    usual = small_plan()
    probes = replace(usual.probes, members=2, views=0, steps=20, grid=32)
    plan = replace(
        usual,
        probes=probes,
        ablation=replace(probes, members=1),
        timesteps=(0,),
        unet=replace(usual.unet, image_size=32, epochs=1),
    )
    monkeypatch.setattr("fedd.reproduce.small_plan", lambda *_: plan)
    done = fedd("reproduce", "--small", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "52 of 52 cells done, 52 in this run" in done.output
    assert "Nothing here can be compared with the paper" in (tmp_path / "table.md").read_text()
    assert "Figure 6: the best block of each fraction" in (tmp_path / "table.md").read_text()
    page = (tmp_path / "index.html").read_text()
    for name in (
        "figure1", "figure4", "figure5", "figure7", "figure7-by-tone", "roc", "supplement1",
        "supplement2", "f1", "costs", "ablation/figure6-segmentation",
        "ablation/figure6-classification", "ablation/figure6-classification-test",
    ):  # fmt: skip
        assert (tmp_path / f"{name}.png").stat().st_size > 5000, name
        assert f'src="{name}.png"' in page
    again = fedd("reproduce", "--small", "--out", tmp_path)
    assert "52 of 52 cells done, 0 in this run" in again.output
    assert "Nothing is left to compute." in again.stderr
    (tmp_path / "cells" / "segmentation-VGG16-05-seed0.json").write_text("{")
    damaged = fedd("reproduce", "--small", "--out", tmp_path)
    assert damaged.exit_code == 1
    assert "segmentation-VGG16-05-seed0.json can't be read as a cell's result" in damaged.stderr
    assert "delete it to run the cell again" in damaged.stderr


@pytest.mark.training
def test_plan__says_the_cost_and_writes_nothing(ddi: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = _paper_run(ddi, weights, out, "--plan", "--only", "FEDD", "--only", "figure6")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "To be computed:"
    assert [line.split("  ")[1].split(",")[0] for line in lines[1:4]] == [
        "FEDD",
        "FEDD",
        "figure 6",
    ]
    assert "at 21 timesteps" in lines[3]
    assert "of one timed batch" in lines[4]
    assert "of activations are kept" in lines[5]
    assert not out.exists()
    unknown = _paper_run(ddi, weights, out, "--plan", "--only", "figure5")
    assert "expected some of segmentation, classification, figure6, FEDD" in unknown.stderr


@pytest.mark.training
def test_plan__says_what_can_not_be_run(ddi: Path, weights: Path, tmp_path: Path) -> None:
    """DeepDerm's weights are never fetched."""
    pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")
    done = _paper_run(ddi, weights, tmp_path / "out", "--plan", "--only", "DeepDerm")
    assert done.exit_code == 0, done.output
    first, line = done.stdout.splitlines()
    assert first == "Nothing that can be run is left to compute."
    assert line.startswith("Can't be run: DeepDerm, classification (4 cells): DeepDerm's weights")
    assert "deepderm.safetensors or .pth" in line
    run = _paper_run(ddi, weights, tmp_path / "out", "--only", "DeepDerm")
    assert run.exit_code == 1
    assert line in run.stderr.splitlines()
    assert "0 of 4 cells done" in run.stdout


@pytest.mark.training
def test_plan__of_a_small_run_trains_nothing_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def placing(backbone: DiffusionUNet, device: str, _: str, trial: object) -> object:
        given.append(trial)
        return place(backbone, device, "float32")

    monkeypatch.setattr("fedd.precision.place_in", placing)
    done = fedd("reproduce", "--small", "--plan", "--only", "FEDD", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("To be computed:")
    assert given == [trial_later]
    assert not (tmp_path / "out").exists()


@pytest.mark.training
def test_plan__activations_that_exist_are_an_upper_bound(
    ddi: Path, weights: Path, tmp_path: Path
) -> None:
    words = ("--plan", "--only", "FEDD", "--only", "segmentation")
    assert "at most" not in _paper_run(ddi, weights, tmp_path, *words).stdout
    (tmp_path / "features" / "ab").mkdir(parents=True)
    (tmp_path / "features" / "ab" / "entry.safetensors").touch()
    assert "FEDD takes at most this" in _paper_run(ddi, weights, tmp_path, *words).stdout


@pytest.mark.training
def test_partial__gaps_are_said_in_the_plan(ddi: Path, weights: Path, tmp_path: Path) -> None:
    """Two photographs are gone; a third has no known malignancy."""
    shutil.copytree(ddi, tmp_path / "ddi")
    outside = [stem for stem in STEMS if stem not in PUBLISHED]
    for stem in outside[:2]:
        (tmp_path / "ddi" / "photographs" / f"{stem}.png").unlink()
    table = tmp_path / "ddi" / "photographs" / "ddi_metadata.csv"
    lines = [
        line.replace("TRUE", "").replace("FALSE", "") if outside[2] in line else line
        for line in table.read_text().splitlines()
    ]
    table.write_text("\n".join(lines))
    words = ("--plan", "--partial", "--only", "FEDD", "--only", "classification")
    done = _paper_run(tmp_path / "ddi", weights, tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    left_out, untested = done.stdout.splitlines()[-2:]
    assert left_out.endswith(f"2 photographs of the split, {', '.join(outside[:2])}.")
    assert untested == f"Not tested on, malignancy unknown: 1 photograph, {outside[2]}."


@pytest.mark.training
def test_figure6__alone(ddi: Path, weights: Path, tmp_path: Path) -> None:
    """`--only figure6` runs no cell; the blocks of the paper's split are ranked."""
    from fedd.explore.ablation import Ablation

    made: list[Ablation] = []
    run = Ablation.run

    def few(self: Ablation, *arguments: Any) -> list[Path]:
        object.__setattr__(self.grid, "timesteps", (0,))
        object.__setattr__(self.grid, "blocks", (2,))
        object.__setattr__(self.grid, "tasks", ("classification",))
        made.append(self)
        return run(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ablation, "run", few)
        done = _paper_run(ddi, weights, tmp_path / "out", "--only", "figure6")
    assert done.exit_code == 0, done.output
    assert "No cell was requested: " in done.output
    (ablation,) = made
    sizes = {f: len(items) for f, items in ablation.parts.learned["classification"].items()}
    assert sizes == {5: 30, 10: 60, 15: 90, 20: 120}
    assert {k: len(v) for k, v in ablation.parts.measured["classification"].items()} == {
        "validation": 30, "test": 30,
    }  # fmt: skip
    assert len(ablation.parts.measured["segmentation"]["validation"]) == 15
    assert "block 2, t = 0" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.training
def test_files__that_can_not_be_read_are_named_before_any_work(
    ddi: Path, weights: Path, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    folder = tmp_path / "ddi"
    shutil.copytree(ddi, folder)
    (folder / "photographs" / f"{STEMS[7]}.png").write_bytes(b"\x89PNG cut short")
    np.save(folder / "masks" / f"{STEMS[8]}.npy", np.full((8, 8), 77))
    np.save(folder / "masks" / "stranger.npy", np.full((8, 8), 4, np.int32))
    words = ("--only", "FEDD", "--only", "segmentation", "--plan")
    refused = _paper_run(folder, weights, tmp_path / "out", *words)
    assert refused.exit_code == 1
    assert refused.stderr.replace(str(folder), "<ddi>") == wording
    partial = _paper_run(folder, weights, tmp_path / "out", *words, "--partial")
    assert partial.exit_code == 0, partial.output
    assert f"left out: {folder}" in partial.stderr.replace("\n", " ")
    assert "To be computed:" in partial.stdout


@pytest.mark.training
def test_out__that_can_not_be_written(ddi: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words in (("--only", "FEDD"), ("--only", "figure6")):
        done = _paper_run(ddi, weights, tmp_path / "file" / "out", *words)
        assert done.exit_code == 1
        assert len(done.stderr.strip().splitlines()) < 9
        assert "file/out" in done.stderr.splitlines()[-1]


@pytest.mark.training
def test_figure6__missing_is_said_and_the_rest_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_smaller(monkeypatch)

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
    assert fedd("reproduce", "--small", "--only", "FEDD", "--out", tmp_path).exit_code == 0


@pytest.mark.training
def test_figure__that_can_not_be_written_is_said_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_smaller(monkeypatch)
    plan = replace(small_plan(), fractions=(20,), segmenters=(), classified=("FEDD",))
    monkeypatch.setattr("fedd.reproduce.small_plan", lambda *_: plan)

    def full(figure: Any, path: Path) -> None:
        raise FigureError("figure1.png can't be written (No space left on device): make room")

    monkeypatch.setattr("fedd.reproduce.drawing.save", full)
    done = fedd("reproduce", "--small", "--only", "FEDD", "--out", tmp_path)
    assert done.exit_code == 1
    assert "1 of 1 cells done" in done.stdout
    assert "figure missing: figure1.png can't be written (No space left" in done.stderr
    assert (tmp_path / "results.csv").is_file()


@pytest.mark.training
def test_figure6__damaged_state_is_refused_before_any_cell(
    ddi: Path, weights: Path, tmp_path: Path
) -> None:
    state = tmp_path / "ablation" / "state.json"
    state.parent.mkdir()
    state.write_text('{"version": 1}')
    done = _paper_run(ddi, weights, tmp_path)
    assert done.exit_code == 1
    assert "state.json can't be read as an ablation's state, it is damaged" in done.stderr
    assert not (tmp_path / "cells").exists()


@pytest.mark.training
def test_baselines_that_can_not_be_run__exit_1_unless_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_smaller(monkeypatch)
    plan = replace(small_plan(), fractions=(20,), segmenters=())
    monkeypatch.setattr(
        "fedd.reproduce.small_plan", lambda *_: replace(plan, classified=("FEDD", "VGG16"))
    )
    monkeypatch.setattr("fedd.reproduce.write_report", lambda *_: tmp_path / "index.html")
    monkeypatch.setattr("fedd.reproduce.cells.baselines_problem", lambda: "torchvision is broken")
    words = ("--small", "--only", "classification", "--out", tmp_path)
    done = fedd("reproduce", *words)
    assert done.exit_code == 1
    assert "1 of 2 cells done" in done.stdout
    assert "1 cell missing: torchvision is broken" in done.stderr
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


def _make_smaller(patch: pytest.MonkeyPatch, learned: dict[int, int] | None = None) -> None:
    """Fewer and smaller phantoms than `--small` has; `learned`: masks by fraction."""
    patch.setattr(small, "LEARNED", learned or {20: 2})
    patch.setattr(small, "TESTED", 2)
    patch.setattr(small, "UNMASKED", 6)
    patch.setattr(small, "DIAGNOSED", 4)
    patch.setattr(small, "SIZE", 64)


def _paper_run(folder: Path, weights: object, out: Path, *more: object) -> Result:
    words = ("--ddi", folder / "photographs", "--masks", folder / "masks", "--weights", weights)
    return fedd("reproduce", *words, "--out", out, *more)
