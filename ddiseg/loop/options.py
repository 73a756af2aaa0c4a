"""Options of rounds of the loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from ddiseg.errors import InputError
from ddiseg.labelstudio.push import PushOptions
from ddiseg.workspace.settings import StudySettings, TrainingSettings


@dataclass(frozen=True)
class RoundOptions:
    """Options of a round.

    Raises:
        InputError: a number is out of range.
    """

    every: int = TrainingSettings.every  #: accepted masks that make a refresh due
    max_age: float = TrainingSettings.max_age  #: days; with a version that old, one mask is enough
    draw: int = 0  #: size of the next batch, selected once nobody has work left; 0 for none
    max_drop: float = TrainingSettings.max_drop
    backbone: str = TrainingSettings.backbone
    device: str = "auto"
    precision: str = TrainingSettings.precision
    ensemble: str = TrainingSettings.ensemble
    corrected_weight: float = TrainingSettings.corrected_weight
    seed: int = 0
    review_sample: float = 100.0  #: percent of the masks that are reviewed
    push: PushOptions = field(default_factory=PushOptions)  #: for batches of rounds

    def __post_init__(self) -> None:
        TrainingSettings(every=self.every, max_age=self.max_age, max_drop=self.max_drop)
        StudySettings(review_sample=self.review_sample)
        if self.draw < 0:
            raise InputError(f"--draw is {self.draw}: give a number of images, or 0 for none")

    @property
    def longest(self) -> timedelta:
        """The age of a version with which one new mask makes a refresh due."""
        return timedelta(days=self.max_age)

    def as_dict(self) -> dict[str, Any]:
        """Return the options as the catalogue stores them with each round."""
        stored = asdict(self)
        return {**stored, "tolerance": stored.pop("max_drop")}
