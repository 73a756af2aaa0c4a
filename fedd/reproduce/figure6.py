"""The paper's figure 6 in a reproduction: the ablation on the paper's split, and the best block of each fraction.

Classifiers are trained on each fraction, probes on the largest. The best block is derived on the validation
split; accuracy on the balanced test, which the paper's figure shows, chooses nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from annotation_protocol.estimates import Estimate, sample_size
from fedd.errors import FeddError
from fedd.explore.ablation import TASKS, Ablation, Grid, default_blocks
from fedd.explore.cells import TEST, VALIDATION, AblationSettings, AblationSplit
from fedd.explore.figure6 import best_blocks, value_at
from fedd.explore.state import STATE, CellMetric
from fedd.malignancy.classifier import DISCLAIMER, PAPER_BLOCKS
from fedd.reproduce.cells import Workbench
from fedd.reproduce.plan import CLASSIFICATION, SEGMENTATION, Plan
from fedd.reproduce.split import ImageSet
from fedd.reproduce.table import ReproductionTable

#: The paper's best blocks by fraction in percent: 30 photographs are 5 %.
PAPER_BEST = {images // 6: block for images, block in PAPER_BLOCKS.items()}

#: Folder of the ablation in that of a reproduction.
FOLDER = "ablation"


def stored_ablation(workbench: Workbench, folder: Path) -> tuple[Ablation | None, str]:
    """Return the ablation in a reproduction's folder; None with a sentence where it is of another run.

    Another run has other photographs, weights, settings or version; a damaged state is left out too.
    """
    if not (folder / FOLDER / STATE).exists():
        return None, ""
    try:
        return ablation_of(workbench, folder), ""
    except FeddError as error:
        return None, f"**Figure 6 is of another run or damaged, and left out:** {error}."


def best_block_table(ablation: Ablation, plan: Plan) -> ReproductionTable | None:
    """Return the best classification block of each fraction beside the paper's; None without cells of it."""
    metrics = ablation.metrics()
    best = best_blocks(metrics, CLASSIFICATION)
    if not best:
        return None
    rows = []
    for fraction, found in best.items():
        papers = None if plan.small else PAPER_BEST.get(fraction)
        of_papers = value_at(metrics, found, VALIDATION, papers) if papers is not None else None
        ties = f"\nequal: block {', '.join(map(str, found.ties))}" if found.ties else ""
        rows.append(
            [
                f"{fraction} %",
                f"block {found.block}, t = {found.timestep}{ties}",
                _cell(found.metric),
                _cell(value_at(metrics, found, TEST)),
                "" if papers is None else f"block {papers}",
                "" if of_papers is None else f"{_cell(of_papers)}\nat t = {of_papers.timestep}",
            ]
        )
    cells = next(iter(best.values())).cells
    return ReproductionTable(
        "Figure 6: the best block of each fraction",
        f"{DISCLAIMER.capitalize()}. The highest accuracy at probability 0.5 on the validation split among "
        f"{cells} blocks and timesteps; among equals, the higher ROC-AUC. As the highest of many it is too "
        "high; the test, which chose nothing, has the accuracy of the same cell. The paper chose on its "
        "test. Cells whose intervals overlap do not differ.",
        [
            "data", "best block", "accuracy, validation", "accuracy, balanced test", "the paper's block",
            "its accuracy, validation",
        ],
        rows,
    )  # fmt: skip


def _cell(metric: CellMetric | None) -> str:
    if metric is None:
        return ""
    interval = None if metric.low is None or metric.high is None else (metric.low, metric.high)
    estimate = Estimate.of(metric.value, interval, metric.n, metric.patients)
    return f"{estimate.text('.3f')}\n{sample_size(metric.n, metric.patients)}"


def ablation_of(workbench: Workbench, folder: Path) -> Ablation:
    """Return the ablation of a reproduction in `folder`, to be run.

    Raises ExplorationError if the folder holds another one, a damaged one, or can't be written.
    """
    plan, split, backbone = workbench.plan, workbench.split, workbench.backbone
    largest = max(plan.fractions)
    masked, diagnosed = split.validation(SEGMENTATION), split.validation(CLASSIFICATION)
    parts = AblationSplit(
        learned={
            SEGMENTATION: {largest: split.learned[largest]},
            CLASSIFICATION: {f: split.learned[f] for f in plan.fractions},
        },
        measured={
            SEGMENTATION: {VALIDATION: masked},
            CLASSIFICATION: {VALIDATION: diagnosed, TEST: split.sets[ImageSet.BALANCED]},
        },
        stopping={SEGMENTATION: masked, CLASSIFICATION: diagnosed},
    )
    settings = AblationSettings(
        replace(plan.ablation, seed=plan.seeds[0]),
        replace(plan.classifiers[largest], seed=plan.seeds[0]),
    )
    grid = Grid(default_blocks(backbone.config), plan.timesteps, TASKS)
    paper = {} if plan.small else PAPER_BEST
    return Ablation(parts, backbone, grid, settings, folder / FOLDER, paper)
