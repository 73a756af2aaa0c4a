"""Settings of a pretraining, and how they are given as text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_type_hints

from fedd.errors import TrainingDataError

#: Highest learning rates: from random weights, and from weights that know something already.
SCRATCH_RATE, TUNING_RATE = 4e-4, 1e-4

#: Settings that may change when a run is resumed: its length, and how often it is scored.
_FREE = ("steps", "score_every")


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that determines a run's outcome besides photographs, network and teacher."""

    steps: int = 3000
    batch_size: int = 16
    phantoms: int = 4000  #: rendered images with masks
    phantom_share: float = 0.5  #: of a batch
    composite_share: float = 0.0  #: of the phantoms: drawn on the photographs' own skin
    learning_rate: float = SCRATCH_RATE
    warmup: int = 200
    heads_first: int = 0  #: steps at the beginning in which the network stands still
    ema: float = 0.999
    align_weight: float = 0.5  #: 0 needs no teacher
    phantom_weight: float = 0.5
    pair_share: float = 0.0  #: of a batch: photographs without and with pen or ruler
    pair_weight: float = 0.5
    masked_share: float = 0.0  #: of the patches of every second image: hidden from the network
    zoom: tuple[float, float] = (0.55, 1.15)  #: width of a view, in widths of the photograph
    image_size: int | None = None  #: of the network, if not as it is: a wider view
    low_noise_share: float = 0.5  #: share of the timesteps sampled below `low_noise`
    low_noise: int = 150
    score_every: int = 250  #: steps from one point of the curve to the next
    seed: int = 0

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingDataError(f"{name} is {getattr(self, name)}: give a share, 0 to 1")
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) < math.inf:
                raise TrainingDataError(
                    f"{name} is {getattr(self, name)}: give a number of {least} or more"
                )
        if not 0 < self.learning_rate < math.inf:
            raise TrainingDataError(f"learning_rate is {self.learning_rate}: give one above 0")
        if not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise TrainingDataError(
                f"zoom is {self.zoom[0]:g},{self.zoom[1]:g}: give the narrowest and the widest view, "
                "such as 0.3,1.6"
            )
        if self.image_size is not None and self.image_size < 1:
            raise TrainingDataError(f"image_size is {self.image_size}: give a number of pixels")
        if self.heads_first >= self.steps:
            raise TrainingDataError(
                f"heads_first is {self.heads_first} of {self.steps} steps, so that the network would "
                "never learn: lower it, or raise steps"
            )
        if self.pair_share and not self.pairs:
            raise TrainingDataError(
                f"a pair_share of {self.pair_share:g} of {self.batch_size} images is no pair: raise it to "
                f"{2 / self.batch_size:g} or more"
            )
        if self.composite_share and not self.rendered:
            raise TrainingDataError(
                "composite_share is a share of the phantoms, and there are none in a batch: raise phantoms "
                "and phantom_share, or give composite_share=0"
            )
        if self.photographs < 0:
            raise TrainingDataError(
                f"{self.rendered} phantoms and {2 * self.pairs} images of pairs are more than a batch "
                f"of {self.batch_size}: lower phantom_share or pair_share"
            )

    @property
    def rendered(self) -> int:
        """Phantoms in a batch."""
        return round(self.batch_size * self.phantom_share) if self.phantoms else 0

    @property
    def pairs(self) -> int:
        """Pairs in a batch, of two images each."""
        return round(self.batch_size * self.pair_share / 2)

    @property
    def photographs(self) -> int:
        """Photographs in a batch, besides those of the pairs."""
        return self.batch_size - self.rendered - 2 * self.pairs

    def identity(self) -> dict[str, Any]:
        """Return what must stay the same when a run is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE}


_SHARES = (
    "phantom_share",
    "composite_share",
    "pair_share",
    "masked_share",
    "low_noise_share",
    "ema",
)
_LEAST = {"batch_size": 2, "phantoms": 0, "steps": 1, "score_every": 1, "heads_first": 0}
_LEAST |= {"align_weight": 0, "phantom_weight": 0, "pair_weight": 0, "warmup": 0, "low_noise": 1}


def with_changes(settings: PretrainSettings, changes: Iterable[str]) -> PretrainSettings:
    """Return settings with changes such as `zoom=0.3,1.6`.

    Raises TrainingDataError for an unknown name or a value of another kind.
    """
    kinds = get_type_hints(PretrainSettings)
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        name = name.strip().replace("-", "_")
        if name not in kinds:
            names = ", ".join(field.name for field in fields(PretrainSettings))
            raise TrainingDataError(
                f"there is no setting {name!r}: give NAME=VALUE, NAME one of {names}"
            )
        try:
            values[name] = _read(text.strip(), kinds[name])
        except ValueError as error:
            kind = {int: "a whole number", float: "a number"}.get(kinds[name])
            if kind is None:
                kind = "two numbers, such as 0.3,1.6" if name == "zoom" else "a whole number"
            raise TrainingDataError(f"{name} is {text.strip()!r}: give {kind}") from error
    return replace(settings, **values)


def _read(text: str, kind: Any) -> Any:
    if kind in (int, float):
        return kind(text)
    if kind == tuple[float, float]:
        low, high = map(float, text.split(","))
        return low, high
    return int(text)
