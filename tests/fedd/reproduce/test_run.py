from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from fedd.backbone import DiffusionUNet
from fedd.baselines.packages import define_missing_operators
from fedd.cache import image_digest
from fedd.errors import ReproductionError, TrainingDataError
from fedd.reproduce import Cell, PaperSplit, Workbench, run_cells, write_report
from fedd.reproduce import cells as running
from fedd.reproduce.plan import FEDD
from fedd.reproduce.results import Result
from tests.fedd.reproduce.conftest import TINY_PLAN
from tests.wording import Refusal

pytestmark = pytest.mark.training

define_missing_operators()

Make = Callable[[Path], Workbench]


def test_run_cells__all_and_then_none(workbench: Make, tmp_path: Path) -> None:
    bench = workbench(tmp_path)
    first = run_cells(bench, tmp_path)
    assert first.ran == bench.plan.cells
    assert not first.missing
    again = run_cells(workbench(tmp_path), tmp_path)
    assert not again.ran
    by_cell = {r.cell: r for r in again.done}
    assert by_cell == {r.cell: r for r in first.done}
    for result in first.done:
        stems = {i.stem for i in bench.split.measured(result.cell.task)}
        assert {*result.confusions, *result.probabilities} == stems
        assert result.cost.seconds > 0
        assert result.cost.peak_rss > 10**7


def test_run_cells__same_seed_same_result(workbench: Make, tmp_path: Path) -> None:
    def measured(folder: Path) -> list[tuple[object, object]]:
        done = run_cells(workbench(folder), folder, only=["FEDD"]).done
        return [(r.confusions, r.probabilities) for r in done]

    assert measured(tmp_path / "a") == measured(tmp_path / "b")


def test_run_cells__killed_in_the_middle_of_a_cell(
    workbench: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = TINY_PLAN.cells[2]
    run = Workbench.run

    def killed(self: Workbench, cell: Cell) -> Result:
        result = run(self, cell)  # what the cell writes besides its result may be there already
        if cell == third:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Workbench, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        run_cells(workbench(tmp_path), tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 2
    monkeypatch.setattr(Workbench, "run", run)
    outcome = run_cells(workbench(tmp_path), tmp_path)
    assert outcome.ran == TINY_PLAN.cells[2:]
    assert len(outcome.done) == len(TINY_PLAN.cells)


def test_run_cells__each_photograph_passes_the_backbone_once(
    workbench: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each task, whatever the number of fractions, but for the views that training adds."""
    passed: Counter[tuple[str, tuple[int, ...]]] = Counter()
    activations = DiffusionUNet.activations

    def counted(
        self: DiffusionUNet, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        passed.update((image_digest(image), tuple(blocks)) for image in images)
        return activations(self, images, timestep, blocks, noise)

    monkeypatch.setattr(DiffusionUNet, "activations", counted)
    run_cells(workbench(tmp_path), tmp_path)
    assert set(passed.values()) == {1}


def test_shown__same_whatever_is_known_of_malignancy(
    workbench: Make, parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    """Else the masks of an earlier run would not be those of the figure."""
    bench = workbench(tmp_path)
    assert Counter(i.tone for i in bench.shown()) == {"I-II": 2, "III-IV": 2, "V-VI": 2}
    masks_alone = {name: items for name, items in parts.sets.items() if name.task == "segmentation"}
    other = Workbench(TINY_PLAN, replace(parts, sets=masks_alone), tiny, tmp_path)
    assert other.shown() == bench.shown()
    run_cells(bench, tmp_path, only=["segmentation"])
    cells = [cell for cell in TINY_PLAN.cells if cell.task == "segmentation"]
    assert all(bench.mask_path(cell, item).is_file() for cell in cells for item in bench.shown())


def test_run_cells__only_what_is_named(workbench: Make, tmp_path: Path) -> None:
    outcome = run_cells(workbench(tmp_path), tmp_path, only=["classification"])
    assert {cell.task for cell in outcome.ran} == {"classification"}
    assert {cell.task for cell in outcome.left_out} == {"segmentation"}
    assert not outcome.failed


def test_run_cells__one_that_fails_stops_no_other(
    workbench: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise TrainingDataError("nothing to tell apart")

    monkeypatch.setattr("fedd.reproduce.cells.train_probes", refused)
    outcome = run_cells(workbench(tmp_path), tmp_path)
    assert {cell.task for cell in outcome.failed} == {"segmentation"}
    assert {cell.task for cell in outcome.ran} == {"classification"}
    page = write_report(workbench(tmp_path), outcome, tmp_path)
    assert "Nothing to tell apart" in page.read_text()


def test_run_cells__without_the_extra(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "baselines need torchvision: pip install 'ddiseg[baselines]'"
    monkeypatch.setattr(running, "baselines_problem", lambda: said)
    plan = replace(TINY_PLAN, segmenters=("FEDD", "VGG16"))
    bench = Workbench(plan, parts, tiny, tmp_path)
    outcome = run_cells(bench, tmp_path)
    assert {cell.model for cell in outcome.ran} == {"FEDD"}
    assert {cell.model for cell in outcome.unavailable} == {"VGG16"}
    assert set(outcome.unavailable.values()) == {said}
    assert not outcome.left_out
    assert not outcome.failed
    write_report(bench, outcome, tmp_path)
    assert "ddiseg[baselines]" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("change", [{"probes": replace(TINY_PLAN.probes, steps=21)}])
def test_run_cells__changed_settings_are_refused_before_any_work(
    workbench: Make,
    parts: PaperSplit,
    tiny: DiffusionUNet,
    tmp_path: Path,
    change: dict[str, object],
    refusal: Refusal,
) -> None:
    run_cells(workbench(tmp_path), tmp_path, only=["segmentation"])
    changed = Workbench(replace(TINY_PLAN, **change), parts, tiny, tmp_path)  # type: ignore[arg-type]
    with refusal(ReproductionError):
        run_cells(changed, tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 2


def test_run_cells__another_backbone_is_refused(
    workbench: Make, parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    run_cells(workbench(tmp_path), tmp_path, only=["segmentation"])
    other = DiffusionUNet.random(tiny.config, seed=2)
    with pytest.raises(
        ReproductionError, match=f'backbone "{tiny.hash[:12]}", not "{other.hash[:12]}"'
    ):
        run_cells(Workbench(TINY_PLAN, parts, other, tmp_path), tmp_path)


def test_run_cells__other_photographs_are_counted_and_named_once(
    workbench: Make, parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path, refusal: Refusal
) -> None:
    """As when a `--partial` folder is completed."""
    fewer = {name: items[1:] if name.is_test else items for name, items in parts.sets.items()}
    partial = Workbench(TINY_PLAN, replace(parts, sets=fewer), tiny, tmp_path)
    run_cells(partial, tmp_path, only=["segmentation"])
    with refusal(ReproductionError) as refused:
        run_cells(workbench(tmp_path), tmp_path)
    now = workbench(tmp_path).photographs(TINY_PLAN.cells[0])
    assert f"other photographs ({now - 1} then, {now} now)" in str(refused.value)
    assert "2 cells in" in str(refused.value)
    assert "segmentation-*.json" in str(refused.value)


def test_run_cells__numbers_those_requested(
    workbench: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "fedd.reproduce"):
        run_cells(workbench(tmp_path), tmp_path, only=["classification"])
    said = [record.getMessage()[:6] for record in caplog.records]
    assert said == ["1 of 2", "2 of 2"]


def test_workbench__backbone_without_the_blocks(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path, refusal: Refusal
) -> None:
    spec = replace(TINY_PLAN.probes.features, blocks=(6, 14))
    plan = replace(TINY_PLAN, probes=replace(TINY_PLAN.probes, features=spec))
    with refusal(ReproductionError):
        Workbench(plan, parts, tiny, tmp_path)


def test_run_cells__baselines(parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")
    plan = replace(
        TINY_PLAN, fractions=(5,), segmenters=("MobileNetV2",), classified=("MobileNetV2",)
    )
    bench = Workbench(plan, parts, tiny, tmp_path)
    outcome = run_cells(bench, tmp_path)
    assert [(r.cell.task, len(r.confusions), len(r.probabilities)) for r in outcome.done] == [
        ("segmentation", 24, 0),
        ("classification", 0, 60),
    ]
    assert all(sum(map(sum, c)) == 128 * 128 for c in outcome.done[0].confusions.values())


def test_run_cells__deepderm_without_weights_is_missing_and_says_why(
    parts: PaperSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    plan = replace(TINY_PLAN, small=False, segmenters=(), classified=(FEDD, "DeepDerm"))
    bench = Workbench(plan, parts, tiny, tmp_path)
    outcome = run_cells(bench, tmp_path)
    assert {cell.model for cell in outcome.ran} == {FEDD}
    assert {cell.model for cell in outcome.unavailable} == {"DeepDerm"}
    assert not outcome.failed
    assert all("weights are not given" in why for why in outcome.missing.values())
    page = write_report(bench, outcome, tmp_path).read_text("utf-8")
    assert "DeepDerm's weights are not given" in page.replace("&#x27;", "'").replace("&#39;", "'")
