"""How probes are trained and read: what decides their outcome besides images and backbone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from fedd.backbone import IMAGENET_256, UNetConfig
from fedd.errors import WeightsError
from fedd.features import FeatureSpec


@dataclass(frozen=True)
class ProbeSettings:
    """Everything that decides the outcome of a training, besides images and backbone."""

    features: FeatureSpec
    members: int = 5
    views: int = 3  #: augmented views of each image, besides the image itself
    pixels_per_image: int = 2048  #: over all views
    class_balance: float = 0.5  #: 0 samples pixels as they come, 1 every class alike
    class_weight: float = 0.0  #: in the loss: 0 as sampled, 1 gives every class the same say
    tone_weight: float = 0.0  #: in the loss: 0 as sampled, 1 gives every known tone the same say
    held_out: float = 0.2  #: share of the images kept to stop by and to calibrate on
    patience: int = 100  #: steps without a lower loss on the held-out part before training ends
    steps: int = 500  #: at most
    warm_steps: int = 100  #: at most, from earlier probes
    batch_size: int = 256  #: pixels of one member's step
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0
    grid: int | None = None  #: side of the grid that the members vote on; None: the backbone's S
    mirrored: bool = False  #: vote on the mirror image too, whose noise is another draw
    second_look: str | None = None  #: class whose largest part is seen once more, enlarged

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProbeSettings:
        """Settings as `to_dict` wrote them; raises WeightsError where a newer version wrote others."""
        features = dict(values["features"])
        features["blocks"] = tuple(features["blocks"])
        _check_names(cls, values)
        _check_names(FeatureSpec, features)
        return cls(**{**values, "features": FeatureSpec(**features)})


#: The paper's setting for OpenAI's ImageNet backbone: blocks 6 and 8 at t = 100, plain activations.
PAPER = ProbeSettings(FeatureSpec(blocks=(6, 8), timestep=100), views=0, class_balance=1.0)

#: The setting for the backbone that ships with the package; chosen on pad300's train90 part. Its
#: finest block has 64 x 64 positions, and voting on more gains nothing.
SMALL = ProbeSettings(
    FeatureSpec(blocks=(1, 3, 5), timestep=50, normalise=True),
    tone_weight=0.5,
    grid=64,
    mirrored=True,
    second_look="lesion",
)


def default_settings(config: UNetConfig) -> ProbeSettings:
    """The setting that goes with a backbone: the paper's for its network, else the small one's."""
    return PAPER if config == IMAGENET_256 else SMALL


def _check_names(kind: type[ProbeSettings | FeatureSpec], values: dict[str, Any]) -> None:
    if unknown := set(values) - {f.name for f in fields(kind)}:
        raise WeightsError(
            f"unknown settings in the probes: {', '.join(sorted(unknown))}: a newer version of "
            "this program wrote them"
        )
