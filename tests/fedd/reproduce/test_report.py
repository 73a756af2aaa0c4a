"""Tables, figures and the page, from results that are made up here."""

from __future__ import annotations

import csv
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedd.backbone import DiffusionUNet
from fedd.errors import FigureError
from fedd.figures import save
from fedd.reproduce import (
    Cell,
    ImageSet,
    PaperSplit,
    PlanOutcome,
    Workbench,
    captions,
    write_report,
)
from fedd.reproduce.drawing import _figures
from fedd.reproduce.pictures import write_supplement1
from fedd.reproduce.plan import Plan
from fedd.reproduce.report import _introduction
from fedd.reproduce.results import Cost, Result
from fedd.reproduce.scores import ModelScore, scores
from fedd.reproduce.table import ReproductionTable
from fedd.weights.names import OPENAI
from tests.fedd.conftest import TINY
from tests.fedd.reproduce.conftest import TINY_PLAN

#: Looks like the paper's, but for its size.
PLAN = replace(
    TINY_PLAN,
    small=False,
    segmenters=("FEDD", "VGG16"),
    classified=("FEDD", "VGG16", "DeepDerm"),
    notes=("A note of the plan.",),
)


def _outcome(plan: Plan, parts: PaperSplit, without: tuple[Cell, ...] = ()) -> PlanOutcome:
    rng = np.random.default_rng(0)
    done = []
    for cell in plan.cells:
        confusions, probabilities = {}, {}
        for item in parts.measured(cell.task):
            if cell.task == "segmentation":
                confusions[item.stem] = (rng.integers(0, 9, (5, 5)) + 40 * np.eye(5, dtype=int)).tolist()  # fmt: skip
            else:
                probabilities[item.stem] = float(rng.random())
        if cell not in without:
            done.append(Result(cell, 30, Cost(61.0, 2 * 10**9, 10**9), confusions, probabilities))
    return PlanOutcome(done, [], dict.fromkeys(without, "not requested (--only)"), {}, {})


@pytest.fixture(scope="module")
def report(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("report")
    without = (Cell("segmentation", "VGG16", 5, 0),)
    outcome = _outcome(PLAN, parts, without)
    assert write_report(Workbench(PLAN, parts, tiny, folder), outcome, folder).is_file()
    return folder


def test_introduction__openais_network_with_other_weights_is_said(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedd.reproduce.report.IMAGENET_256", tiny.config)
    workbench = Workbench(PLAN, parts, tiny, tmp_path)
    text = " ".join(_introduction(workbench, {}))
    assert "not OpenAI's checkpoint, which the paper used,** though" in text
    assert tiny.hash in text
    monkeypatch.setattr("fedd.reproduce.report.weights_origin", lambda _: OPENAI)
    assert "not OpenAI's" not in " ".join(_introduction(workbench, {}))


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_table__ours_beside_the_papers(report: Path) -> None:
    text = (report / "table.md").read_text()
    row = next(x for x in text.splitlines() if x.startswith("| all | FEDD"))
    key = ("segmentation-test", "FEDD", "all", "miou")
    names = ("measured_on", "model", "tone", "figure")
    first = next(r for r in _rows(report) if tuple(r[n] for n in names) == key)
    value = float(first["value"])
    # Six photographs of a tone are too few for an interval of the mean of the tones.
    few = "too few: 6 patients of I-II, 6 of III-IV, 6 of V-VI"
    assert (
        f"{value:.3f} ({few})<br>n = 18 images of 18 patients<br>paper 0.703, "
        f"{value - 0.703:+.3f}" in row
    )
    assert float(first["difference"]) == pytest.approx(value - 0.703, abs=1e-6)


@pytest.mark.slow
def test_table__the_pooled_mean_stands_beside_that_of_the_tones(report: Path) -> None:
    lines = (report / "table.md").read_text().splitlines()
    pooled = [line for line in lines if line.startswith("| all, pooled | FEDD")]
    assert len(pooled) == 2, "of the classes and of the lesion"
    assert not any("paper" in line for line in pooled)
    assert lines[lines.index(pooled[0]) - 2].startswith("| all | FEDD")


@pytest.mark.slow
def test_table__every_test_of_classification_by_its_name(report: Path) -> None:
    text = (report / "table.md").read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[0] == "## FEDD over the next best model (table 3)"
    tests = (
        "all 12 remaining photographs",
        "all 36 photographs outside",
        "the balanced test of 24",
    )
    positions = [
        next(i for i, t in enumerate(titles) if "accuracy at 0.5" in t and test in t)
        for test in tests
    ]
    assert positions == sorted(positions), "the paper's comes first"
    assert "Classification is tested on all 12 remaining photographs (6 malignant)" in text
    assert "validated on 24 photographs, 6 of which have a mask" in text


@pytest.mark.slow
def test_table_3__deltas_beside_the_papers(report: Path) -> None:
    with (report / "improvements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = next(r for r in rows if (r["figure"], r["chosen_on"]) == ("accuracy", "test"))
    assert (first["measured_on"], first["paper"]) == ("remaining-test", "0.140000")
    points = 100 * float(first["value"])
    text = (report / "table.md").read_text()
    line = next(x for x in text.splitlines() if x.startswith("| accuracy<br>all 12"))
    assert f"over {first['next_best']}, n = 12 images of 12 patients<br>paper 14, " in line
    assert f"{points:+.1f} (too few: 6 malignant, 6 benign)" in line, "as of its parts"


def test_table__what_is_missing_and_why(report: Path) -> None:
    text = (report / "table.md").read_text()
    assert "not run" in text
    assert "**1 cells are missing:** VGG16 (segmentation). Not requested (--only)." in text
    assert "A note of the plan." in text


def test_table__says_what_another_backbone_means(report: Path) -> None:
    assert "not OpenAI's ImageNet network" in (report / "table.md").read_text()


def test_report__probabilities_are_no_diagnosis(report: Path) -> None:
    for name in ("table.md", "index.html"):
        assert "research output, not a diagnosis" in (report / name).read_text()
    for row in _rows(report):
        expected = "research output, not a diagnosis" if row["task"] == "classification" else ""
        assert row["note"] == expected


def test_report__no_figure_without_n_and_interval(report: Path) -> None:
    for row in _rows(report):
        if row["low"] == "":
            assert row["too_few"] or int(row["patients"]) < 10
        assert int(row["n"]) > 0
        assert int(row["patients"]) > 0
        if row["low"]:
            assert float(row["low"]) <= float(row["high"])
        else:
            assert int(row["patients"]) < 20, "ten of each class"


def test_report__costs(report: Path) -> None:
    text = (report / "table.md").read_text()
    assert "| segmentation | FEDD | 61.0 s | 61.0 s | 2.0 GB | 1.0 GB |" in text
    assert "40 minutes for each of FEDD's 5 MLPs on an A100 40 GB" in text


@pytest.mark.slow
def test_page__shows_every_figure(report: Path) -> None:
    page = (report / "index.html").read_text()
    names = [
        "figure1.png", "figure4.png", "figure5.png", "figure7.png", "figure7-by-tone.png", "roc.png",
        "supplement1.png", "supplement2.png", "f1.png", "costs.png",
    ]  # fmt: skip
    for name in names:
        assert f'src="{name}"' in page
        picture = np.array(Image.open(report / name).convert("L"))
        assert picture.std() > 5, f"{name} is blank"


@pytest.mark.slow
def test_report__only_one_task(parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path) -> None:
    plan = replace(TINY_PLAN, classified=())
    write_report(Workbench(plan, parts, tiny, tmp_path), _outcome(plan, parts), tmp_path)
    assert (tmp_path / "figure4.png").is_file()
    assert not (tmp_path / "figure7.png").exists()
    assert "Classification" not in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_report__small_says_so(parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path) -> None:
    write_report(Workbench(TINY_PLAN, parts, tiny, tmp_path), _outcome(TINY_PLAN, parts), tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "Nothing here can be compared with the paper" in text
    assert "paper 0." not in text


def test_report__nothing_done(parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path) -> None:
    reasons = dict.fromkeys(TINY_PLAN.cells, "no such device")
    outcome = PlanOutcome([], [], {}, {}, reasons)
    page = write_report(Workbench(TINY_PLAN, parts, tiny, tmp_path), outcome, tmp_path)
    assert "No such device" in page.read_text()


@pytest.mark.slow
def test_report__left_out_photographs_are_named(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    fewer = replace(parts, missing=("000081",))
    write_report(Workbench(TINY_PLAN, fewer, tiny, tmp_path), _outcome(TINY_PLAN, parts), tmp_path)
    assert (
        "**1 photographs of the paper's split are left out**" in (tmp_path / "table.md").read_text()
    )
    assert "000081" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_report__what_classification_lacks_is_said(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    fewer = replace(
        parts,
        unlabelled=("000013", "000400"),
        expected={**parts.expected, ImageSet.CLASSIFICATION_VALIDATION: 30},
    )
    write_report(Workbench(TINY_PLAN, fewer, tiny, tmp_path), _outcome(TINY_PLAN, parts), tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "**2 photographs of unknown malignancy are not tested on:** 000013, 000400." in text
    validated = len(parts.sets[ImageSet.CLASSIFICATION_VALIDATION])
    assert (
        f"validated on {validated} photographs of the 30 of a complete folder, 6 of which" in text
    )


@pytest.mark.slow
def test_report__a_figure_that_can_not_be_written_costs_nothing_else(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(figure: Any, path: Path) -> None:
        if path.stem in ("figure4", "costs"):
            raise FigureError(f"{path.name} can't be written")
        save(figure, path)

    monkeypatch.setattr("fedd.reproduce.drawing.save", full)
    with pytest.raises(FigureError, match=r"figure4.png can't be written \(1 more figures too\)"):
        write_report(Workbench(PLAN, parts, tiny, tmp_path), _outcome(PLAN, parts), tmp_path)
    assert (tmp_path / "results.csv").is_file()
    assert "mean IoU" in (tmp_path / "table.md").read_text()
    page = (tmp_path / "index.html").read_text()
    assert 'src="figure7.png"' in page
    assert "figure4.png" not in page


@pytest.mark.slow
def test_supplement1__drawn_again_where_anything_differs(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    """Seed, weights, precision and the shown photographs decide; else the file is kept."""
    path = tmp_path / "supplement1.png"
    test = ImageSet.SEGMENTATION_TEST
    fewer = replace(parts, sets={**parts.sets, test: parts.sets[test][6:]})
    other = DiffusionUNet.random(TINY, 7)
    half = copy(other)
    half.precision = "bfloat16"
    drawn = []
    for used, backbone, seed in (
        (parts, tiny, 0), (parts, tiny, 0), (parts, tiny, 1), (parts, other, 1), (parts, half, 1),
        (fewer, half, 1),
    ):  # fmt: skip
        bench = Workbench(replace(TINY_PLAN, seeds=(seed,)), used, backbone, tmp_path)
        write_supplement1(bench, path)
        drawn.append(path.stat().st_mtime_ns)
    assert drawn[0] == drawn[1]
    assert drawn[1:] == sorted(set(drawn[1:]))


@pytest.mark.slow
def test_figures__marks_of_one_model_stand_at_their_ticks(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    results = [r for r in _outcome(PLAN, parts).done if r.cell.model == "FEDD"]
    figures = _figures(
        scores(results, parts, PLAN), results, Workbench(PLAN, parts, tiny, tmp_path)
    )
    for name, figure, _ in figures:
        if name in ("f1.png", "figure7.png"):
            at = {float(x) for axis in figure.axes for x in axis.lines[-1].get_xdata()}
            assert at <= {0.0, 1.0, 2.0, 3.0}, name


def _score(low: float | None) -> ModelScore:
    return ModelScore(
        "classification", ImageSet.BALANCED, "FEDD", 5, "all", "f1", 0.5, low, low, 9, 9, 30, 1, 0.5, 0.5, None
    )  # fmt: skip


def test_captions__say_where_there_is_no_interval() -> None:
    assert captions.marks([_score(0.4)]) == "Ours, with 95 % intervals."
    assert captions.marks([_score(None)]) == "Ours, no interval: too few patients."
    assert "a mark without one" in captions.marks([_score(0.4), _score(None)])


def test_captions__bold_only_where_blocks_are() -> None:
    named = {
        n: captions.figure6(Path(f"figure6-{n}.png"), paper=True)
        for n in ("classification", "classification-roc-auc", "segmentation")
    }
    assert [n for n, text in named.items() if "Bold" in text] == ["classification"]
    assert "Bold" not in captions.figure6(Path("figure6-classification.png"), paper=False)


def test_table__cells_are_escaped() -> None:
    table = ReproductionTable("a < b", "c & d", ["<x>"], [["1\n<2>"]])
    html = table.html()
    assert "a &lt; b" in html
    assert "<small>&lt;2&gt;</small>" in html
