"""Settings of a baseline's training, and the two recipes that they come from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Self

from fedd.baselines.weights import Start
from fedd.errors import TrainingDataError


class Recipe(Enum):
    """How a baseline is trained; numbers such as epochs are settings of their own."""

    #: By the authors' notebooks: of a CNN only the head is trained, by accuracy; a UNet is trained whole, by IoU.
    PAPER = "paper"
    #: End to end, on augmented photographs, by the validation loss.
    OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Everything that determines a training's outcome besides network and images."""

    image_size: int
    recipe: Recipe = Recipe.OURS  #: of all files that do not name one
    start: Start | Path = Start.IMAGENET  #: a path is a file of weights
    epochs: int = 100
    patience: int = 20  #: epochs without a better `monitored` value before training ends
    plateau: int = 0  #: as many before the learning rate falls to a tenth; 0 keeps it
    batch_size: int = 8
    learning_rate: float = 1e-4
    augment: bool = True  #: random views
    seed: int = 0

    @property
    def monitored(self) -> str:
        """Return what on the validation split chooses the epoch; all but a loss are best high."""
        return "loss"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the settings that `to_json` wrote, also before there were recipes."""
        values: dict[str, Any] = json.loads(text)
        known = {start.value for start in Start}
        start = Start(values["start"]) if values["start"] in known else Path(values["start"])
        recipe = Recipe(values.get("recipe", Recipe.OURS.value))
        return cls(**{**values, "start": start, "recipe": recipe})

    def to_json(self) -> str:
        start = self.start.value if isinstance(self.start, Start) else str(self.start)
        return json.dumps({**asdict(self), "start": start, "recipe": self.recipe.value})

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.image_size) < 1 or self.batch_size < 2:
            raise TrainingDataError(
                f"epochs {self.epochs}, patience {self.patience}, image size {self.image_size} and "
                f"batch size {self.batch_size}: at least 1, and a batch of at least 2"
            )
        if self.plateau < 0:
            raise TrainingDataError(f"plateau {self.plateau}: a number of epochs, 0 for none")
