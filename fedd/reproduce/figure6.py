"""The paper's figure 6 in a reproduction: the ablation on the paper's split, and the best block of each fraction.

Classifiers are trained on each fraction, probes on the largest. The best block is derived on the validation
split; accuracy on the balanced test, which the paper's figure shows, chooses nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedd.explore.ablation import TASKS, Ablation, Grid, default_blocks
from fedd.explore.cells import TEST, VALIDATION, AblationSettings, AblationSplit
from fedd.malignancy.classifier import PAPER_BLOCKS
from fedd.reproduce.cells import Workbench
from fedd.reproduce.plan import CLASSIFICATION, SEGMENTATION
from fedd.reproduce.split import ImageSet

#: The paper's best blocks by fraction in percent: 30 photographs are 5 %.
PAPER_BEST = {images // 6: block for images, block in PAPER_BLOCKS.items()}

#: Folder of the ablation in that of a reproduction.
FOLDER = "ablation"


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
