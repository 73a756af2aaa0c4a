"""What a reproduction will cost before it starts: passes of the backbone, and trainings of the baselines.

Photographs pass through the backbone once for all fractions and seeds, except for augmented views. FEDD's own
small networks and the decoding of photographs are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedd.baselines import CNNSettings, UNetSettings
from fedd.dataset import DatasetImage
from fedd.explore.ablation import Ablation
from fedd.explore.cost import ablation_cost, numbers, passing
from fedd.network.cost import Cost, Step, activation_bytes, counted, flop_of
from fedd.probes.settings import ProbeSettings
from fedd.reproduce.cells import Workbench
from fedd.reproduce.plan import CLASSIFICATION, FEDD, SEGMENTATION, Cell, Task

#: Operations of one forward pass at 256 x 256 pixels in GFLOP, counted with torch's FlopCounterMode: of
#: segmentation_models_pytorch's UNets by encoder, and of torchvision's classifiers.
UNET_GFLOP = {
    "efficientnet-b0": 5.99,
    "vgg16": 49.5,
    "densenet121": 16.9,
    "resnet50": 21.3,
    "mobilenet_v2": 6.77,
    "efficientnet-lite0": 6.0,
}
CNN_GFLOP = {
    "efficientnet_b0": 1.01,
    "vgg16": 40.3,
    "densenet121": 7.40,
    "resnet50": 10.7,
    "mobilenet_v2": 0.785,
    "deepderm": 8.37,
}

#: The backward pass takes about twice the forward pass.
TRAINING = 3


def cost_of(workbench: Workbench, cells: Sequence[Cell], ablation: Ablation | None) -> Cost:
    """Return what the cells and the ablation's missing timesteps will cost."""
    own = [cell for cell in cells if cell.model == FEDD]
    steps = []
    kept = 0
    if of_probes := [cell for cell in own if cell.task == SEGMENTATION]:
        steps.append(_segmentation(workbench, of_probes))
        blocks = workbench.plan.probes.features.blocks
        each = sum(activation_bytes(workbench.backbone.config, block) for block in blocks)
        kept = each * _passes(workbench, of_probes)
    if classified := [cell for cell in own if cell.task == CLASSIFICATION]:
        steps += _classification(workbench, classified)
    scratch = 0
    if ablation is not None:
        found = ablation_cost(ablation, workbench.backbone.config)
        steps += found.steps
        scratch = found.scratch_bytes
    return Cost([*steps, *_baselines(workbench, cells)], kept, scratch)


def work_of(workbench: Workbench, cells: Sequence[Cell]) -> dict[Cell, float]:
    """Return the operations of each cell, those of a task's FEDD cells in equal parts."""
    own = [cell for cell in cells if cell.model == FEDD]
    found = {cell: _training(workbench, cell) for cell in cells if cell.model != FEDD}
    for task in (SEGMENTATION, CLASSIFICATION):
        if of_task := [cell for cell in own if cell.task == task]:
            flop = cost_of(workbench, of_task, None).flop
            found |= dict.fromkeys(of_task, flop / len(of_task))
    return found


def _segmentation(workbench: Workbench, cells: Sequence[Cell]) -> Step:
    features = workbench.plan.probes.features
    images = len(_images(workbench, SEGMENTATION, cells))
    passes = _passes(workbench, cells)
    return Step(
        f"FEDD, segmentation, blocks {numbers(features.blocks)}",
        passing(images, passes - images),
        passes * flop_of(workbench.backbone.config, *features.blocks),
    )


def _passes(workbench: Workbench, cells: Sequence[Cell]) -> int:
    """Return how often a photograph passes for segmentation; some more with a refinement pass."""
    settings: ProbeSettings = workbench.plan.probes
    images = len(_images(workbench, SEGMENTATION, cells))
    learned = len(workbench.split.learned[max(cell.fraction for cell in cells)])
    seeds = len({cell.seed for cell in cells})
    mirrored = len(workbench.split.measured(SEGMENTATION)) if settings.mirrored else 0
    return images + mirrored + settings.views * learned * seeds


def _classification(workbench: Workbench, cells: Sequence[Cell]) -> list[Step]:
    steps = []
    settings = [workbench.plan.classifier_settings(cell) for cell in cells]
    images = len(_images(workbench, CLASSIFICATION, cells))
    for timestep in sorted({each.timestep for each in settings}):
        # The blocks of all fractions are computed at once.
        of_plan = workbench.plan.classifiers.values()
        blocks = sorted({each.block for each in of_plan if each.timestep == timestep})
        steps.append(
            Step(
                f"FEDD, classification, blocks {numbers(blocks)}",
                passing(images, 0),
                images * flop_of(workbench.backbone.config, *blocks),
            )
        )
    return steps


def _baselines(workbench: Workbench, cells: Sequence[Cell]) -> list[Step]:
    steps = []
    for task in (SEGMENTATION, CLASSIFICATION):
        of_task = [cell for cell in cells if cell.task == task and cell.model != FEDD]
        for model in dict.fromkeys(cell.model for cell in of_task):
            of_model = [cell for cell in of_task if cell.model == model]
            frozen = all(_is_frozen(workbench.plan.settings(cell)) for cell in of_model)
            flop = sum(_training(workbench, cell) for cell in of_model)
            epochs = max(workbench.plan.settings(cell).epochs for cell in of_model)  # type: ignore[union-attr]
            cells_of = counted(len(of_model), "cell")
            trained = f"{counted(epochs, 'epoch')} at most"
            how = f"{cells_of}, {'frozen' if frozen else trained}"
            steps.append(Step(f"{model}, {task}", how, flop, at_most=not frozen))
    return steps


def _training(workbench: Workbench, cell: Cell) -> float:
    """Return the operations of a baseline's training and test."""
    settings = workbench.plan.settings(cell)
    assert isinstance(settings, UNetSettings | CNNSettings)
    gflop = (
        UNET_GFLOP[settings.encoder]
        if isinstance(settings, UNetSettings)
        else CNN_GFLOP[settings.model]
    )
    forward = gflop * 1e9 * (settings.image_size / 256) ** 2
    learned = len(workbench.split.learned[cell.fraction])
    validated = len(workbench.split.validation(cell.task))
    measured = len(workbench.split.measured(cell.task))
    if _is_frozen(settings):  # the encoder sees each photograph once
        return forward * (learned + validated + measured)
    return forward * (settings.epochs * (TRAINING * learned + validated) + measured)


def _is_frozen(settings: object) -> bool:
    return bool(getattr(settings, "frozen", False))


def _images(workbench: Workbench, task: Task, cells: Sequence[Cell]) -> dict[Path, DatasetImage]:
    """Return the photographs that cells of a task need, each once."""
    split = workbench.split
    learned = split.learned[max(cell.fraction for cell in cells)]
    return {i.path: i for i in (*learned, *split.validation(task), *split.measured(task))}
