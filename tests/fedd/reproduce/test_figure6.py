"""Figure 6 in a report: only of this workbench's photographs, weights and version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedd.backbone import DiffusionUNet
from fedd.explore.state import CellMetric
from fedd.reproduce import PaperSplit, PlanOutcome, Workbench, write_report
from fedd.reproduce.figure6 import FOLDER, ablation_of
from tests.fedd.conftest import TINY
from tests.fedd.reproduce.conftest import TINY_PLAN

NOTHING = PlanOutcome([], [], {}, {}, {})


@pytest.fixture
def ablated(workbench: Callable[[Path], Workbench], tmp_path: Path) -> Path:
    """A folder with one cell of an ablation, and a figure that it has not drawn."""
    made = ablation_of(workbench(tmp_path), tmp_path)
    made._state.prepare()
    made._state.add(
        CellMetric("classification", 5, 2, 0, "validation", "all", name, 0.7, 0.6, 0.8, 30, 30)
        for name in ("accuracy", "roc_auc")
    )
    (tmp_path / FOLDER / "figure6-segmentation.png").write_bytes(b"of an earlier version")
    return tmp_path


@pytest.mark.slow
def test_report__figure_6_of_this_run(
    ablated: Path, workbench: Callable[[Path], Workbench]
) -> None:
    page = write_report(workbench(ablated), NOTHING, ablated).read_text()
    assert "block 2, t = 0" in (ablated / "table.md").read_text()
    assert 'src="ablation/figure6-classification.png"' in page
    assert "figure6-segmentation" not in page, "it is not of the state"
    assert "Bold:" not in page, "a small plan is compared with nothing"


@pytest.mark.slow
def test_report__figure_6_of_other_weights_is_left_out(ablated: Path, parts: PaperSplit) -> None:
    other = Workbench(TINY_PLAN, parts, DiffusionUNet.random(TINY, 7), ablated)
    page = write_report(other, NOTHING, ablated).read_text()
    assert "Figure 6 is of another run or damaged, and left out" in page
    assert "run with backbone" in page
    assert "block 2, t = 0" not in page
    assert 'src="ablation' not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "state",
    [{"version": 1}, {"made_with": {"version": 1}, "figures": []}],
    ids=["damaged", "older"],
)
def test_report__figure_6_that_is_damaged_or_older_is_left_out(
    ablated: Path, workbench: Callable[[Path], Workbench], state: object
) -> None:
    (ablated / FOLDER / "state.json").write_text(json.dumps(state))
    page = write_report(workbench(ablated), NOTHING, ablated).read_text()
    assert "Figure 6 is of another run or damaged, and left out" in page
    assert 'src="ablation' not in page
