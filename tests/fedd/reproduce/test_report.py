"""Tables, figures and the page, from results that are made up here."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedd.backbone import DiffusionUNet
from fedd.reproduce import Cell, PaperSplit, PlanOutcome, Workbench, write_report
from fedd.reproduce.plan import Plan
from fedd.reproduce.results import Cost, Result
from fedd.reproduce.table import ReproductionTable
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
        for item in parts.tested(cell.task):
            if cell.task == "segmentation":
                confusions[item.stem] = (rng.integers(0, 9, (5, 5)) + 40 * np.eye(5, dtype=int)).tolist()  # fmt: skip
            else:
                probabilities[item.stem] = float(rng.random())
        if cell not in without:
            done.append(
                Result(cell, 30, Cost(61.0, 2 * 10**9, 10**9), confusions, probabilities, 0.5)
            )
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


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_table__ours_beside_the_papers(report: Path) -> None:
    text = (report / "table.md").read_text()
    row = next(x for x in text.splitlines() if x.startswith("| all | FEDD"))
    rows = _rows(report)
    first = rows[0]
    assert (first["model"], first["tone"], first["figure"]) == ("FEDD", "all", "miou")
    value, low, high = (float(first[key]) for key in ("value", "low", "high"))
    assert (
        f"{value:.3f} [{low:.3f}, {high:.3f}]<br>n = 18 images of 18 patients<br>paper 0.703, "
        f"{value - 0.703:+.3f}" in row
    )
    assert float(first["difference"]) == pytest.approx(value - 0.703, abs=1e-6)


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
    names = ["figure4.png", "figure5.png", "figure7.png", "roc.png", "f1.png", "costs.png"]
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


def test_table__cells_are_escaped() -> None:
    table = ReproductionTable("a < b", "c & d", ["<x>"], [["1\n<2>"]])
    html = table.html()
    assert "a &lt; b" in html
    assert "<small>&lt;2&gt;</small>" in html
