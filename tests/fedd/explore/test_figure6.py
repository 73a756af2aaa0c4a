from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedd.explore.figure6 import best_blocks, value_at, write_heat_maps
from fedd.explore.state import CellMetric
from fedd.figures import HeatMap


def _metrics(
    accuracy: dict[tuple[int, int], float],
    auc: dict[tuple[int, int], float] | None = None,
    part: str = "validation",
    fraction: int = 5,
) -> list[CellMetric]:
    """The two metrics of cells by block and timestep."""
    values = {"accuracy": accuracy, "roc_auc": auc or dict.fromkeys(accuracy, 0.5)}
    return [
        CellMetric(
            "classification", fraction, block, t, part, "all", name, value, value - 0.1, value + 0.1, 30, 30,
        )
        for name, of_cells in values.items()
        for (block, t), value in of_cells.items()
    ]  # fmt: skip


def test_best_blocks__of_the_first_part_not_of_the_test() -> None:
    metrics = [
        *_metrics({(2, 0): 0.6, (4, 0): 0.8}),
        *_metrics({(2, 0): 0.9, (4, 0): 0.5}, part="test"),
    ]
    (best,) = best_blocks(metrics, "classification").values()
    assert (best.block, best.timestep, best.ties, best.cells) == (4, 0, (), 2)
    tested = value_at(metrics, best, "test")
    assert tested is not None
    assert tested.value == 0.5


def test_best_blocks__ties_go_to_the_higher_roc_auc_and_are_named() -> None:
    accuracy = {(2, 0): 0.8, (4, 50): 0.8, (4, 0): 0.8, (6, 0): 0.7}
    auc = {(2, 0): 0.7, (4, 50): 0.9, (4, 0): 0.6, (6, 0): 1.0}
    (best,) = best_blocks(_metrics(accuracy, auc), "classification").values()
    assert (best.block, best.timestep, best.ties) == (4, 50, (2,))


def test_best_blocks__equal_in_both_the_lower_timestep_then_the_lower_block() -> None:
    accuracy = {(4, 0): 0.8, (2, 0): 0.8, (2, 50): 0.8}
    (best,) = best_blocks(_metrics(accuracy), "classification").values()
    assert (best.block, best.timestep) == (2, 0)


def test_best_blocks__each_fraction_has_its_own() -> None:
    metrics = [
        *_metrics({(2, 0): 0.6, (4, 0): 0.8}),
        *_metrics({(2, 0): 0.7, (4, 0): 0.6}, fraction=20),
    ]
    found = best_blocks(metrics, "classification")
    assert {fraction: best.block for fraction, best in found.items()} == {5: 4, 20: 2}


def test_value_at__another_block_where_it_is_highest() -> None:
    metrics = _metrics({(2, 0): 0.6, (2, 50): 0.7, (4, 0): 0.8})
    (best,) = best_blocks(metrics, "classification").values()
    papers = value_at(metrics, best, "validation", 2)
    assert papers is not None
    assert (papers.timestep, papers.value) == (50, 0.7)
    assert value_at(metrics, best, "validation", 8) is None


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[HeatMap], str]]:
    """The panels of each figure that is drawn, with where they were measured."""
    from fedd import figures
    from fedd.explore import figure6

    found = []

    def noting(panels: Sequence[HeatMap], *rest: object) -> object:
        found.append((panels, str(rest[-1])))
        return figures.draw_heat_maps(panels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(figure6, "draw_heat_maps", noting)
    return found


@pytest.mark.slow
def test_write_heat_maps__frames_on_the_test_what_validation_chose(
    tmp_path: Path, drawn: list[tuple[Sequence[HeatMap], str]]
) -> None:
    metrics = [
        *_metrics({(2, 0): 0.6, (4, 0): 0.8, (2, 50): 0.5, (4, 50): 0.5}),
        *_metrics({(2, 0): 0.9, (4, 0): 0.5, (2, 50): 0.5, (4, 50): 0.5}, part="test"),
    ]
    written = write_heat_maps(
        metrics, (2, 4), (0, 50), ("classification",), tmp_path, "tiny", {5: 2}
    )
    assert [path.name for path in written] == [
        "figure6-classification.png", "figure6-classification-test.png",
        "figure6-classification-roc-auc.png", "figure6-classification-roc-auc-test.png",
    ]  # fmt: skip
    for path in written:
        assert np.array(Image.open(path).convert("L")).std() > 5
    assert {panel.framed for panels, _ in drawn for panel in panels} == {(1, 0)}
    of_maps = [tuple(panel.marked) for panels, _ in drawn for panel in panels]
    assert of_maps == [(2,), (2,), (), ()], "the paper's figure has accuracy only"
    assert [where.partition(",")[0] for _, where in drawn] == ["on the validation split", "on the test"] * 2  # fmt: skip
    (first,), _ = drawn[0]
    assert first.title == "Accuracy, 5 % of DDI"
    assert first.note == (
        "n = 30 photographs of 30 patients; the median 95 % interval is ±0.10; frame: block 4 at t = 0, "
        "the highest"
    )
    (tested,), _ = drawn[1]
    assert tested.note.endswith("frame: block 4 at t = 0"), "not the highest there"
