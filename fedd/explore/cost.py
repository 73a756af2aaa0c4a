"""What an ablation will cost before it starts: passes of the backbone, and room for activations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedd.explore.ablation import Ablation
from fedd.network.architecture import Architecture
from fedd.network.cost import Cost, Step, activation_bytes, flop_of


def ablation_cost(ablation: Ablation, config: Architecture) -> Cost:
    """Return what the missing timesteps of an ablation will cost."""
    timesteps = [t for t in ablation.grid.timesteps if any(ablation.pending(t).values())]
    if not timesteps:
        return Cost([])
    blocks = ablation.grid.blocks
    pending = [
        task for task in ablation.grid.tasks if any(ablation.pending(t)[task] for t in timesteps)
    ]
    images = {item.path for task in pending for item in ablation.parts.of(task)}
    recorded: set[Path] = set()
    views = 0
    if "segmentation" in pending:
        recorded = {item.path for item in ablation.parts.recorded("segmentation")}
        learned = ablation.parts.learned["segmentation"].values()
        views = ablation.settings.probes.views * len({i.path for part in learned for i in part})
    passes = (len(images) + views) * len(timesteps)
    step = Step(
        f"figure 6, blocks {numbers(blocks)}",
        f"{passing(len(images), views)} at {len(timesteps)} timesteps",
        passes * flop_of(config, *blocks),
    )
    each = sum(activation_bytes(config, block) for block in blocks)
    return Cost([step], scratch_bytes=each * (len(recorded) + views))


def passing(images: int, more: int) -> str:
    """Return how many photographs pass through the backbone."""
    views = f" and {more} augmented or mirrored" if more else ""
    return f"{images} photographs{views}"


def numbers(blocks: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(blocks)))
