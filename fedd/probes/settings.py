"""Settings of probe training and prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

from fedd.backbone import IMAGENET_256
from fedd.composite import CompositeConfig
from fedd.encoders import EncoderConfig
from fedd.errors import WeightsError
from fedd.features import FeatureSpec
from fedd.network.architecture import Architecture
from fedd.probes.decision import Ensemble

#: Names in model files of settings that are called otherwise here.
_STORED = {"validation_share": "held_out", "refined_class": "second_look"}


@dataclass(frozen=True)
class ProbeSettings:
    """Everything that determines a training's outcome besides images and backbone."""

    features: FeatureSpec
    members: int = 5
    views: int = 3  #: augmented views of each image, besides the image itself
    pixels_per_image: int = 2048  #: over all views
    class_balance: float = 0.5  #: 0 samples pixels by frequency, 1 every class equally
    class_weight: float = 0.0  #: in the loss: 0 as sampled, 1 weights every class equally
    tone_weight: float = 0.0  #: in the loss: 0 as sampled, 1 weights every known tone equally
    corrected_weight: float = 1.0  #: in the loss, of pixels that a person changed in a prediction
    validation_share: float = 0.2  #: of the images, for early stopping and calibration; 0: none
    averaging: float = 0.0  #: share of the last steps whose weights are averaged; 0 keeps the last
    folds: int = 0  #: parts of the patients, each unseen by as many members as any other; 0: none
    member_blocks: tuple[tuple[int, ...], ...] = ()  #: blocks of member i, in turn; (): all
    patience: int = 100  #: steps without a lower validation loss before training ends
    steps: int = 500  #: maximum
    warm_steps: int = 100  #: maximum with a warm start
    batch_size: int = 256  #: pixels in one step of a member
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0
    grid: int | None = None  #: width and height of the predicted grid; None: the backbone's S
    mirrored: bool = False  #: average with the prediction of the mirrored image, under other noise
    mirrored_windows: bool = True  #: where `mirrored`: in the refinement pass, too
    refined_class: str | None = None  #: class whose largest region gets a refinement pass
    ensemble: Ensemble = Ensemble.MEAN  #: how the members decide; also of files that don't say

    def __post_init__(self) -> None:
        """Raise ValueError for settings that no training can have."""
        if not 0 <= self.averaging <= 1:
            raise ValueError(f"averaging is a share of the steps, 0 to 1, not {self.averaging}")
        if not self.corrected_weight > 0:
            raise ValueError(f"corrected_weight must be above 0, not {self.corrected_weight}")
        if self.folds and (self.folds < 2 or self.members % self.folds):
            raise ValueError(
                f"{self.members} members can't be divided into {self.folds} folds: the number of "
                "members must be a multiple of the number of folds, which are 0 or at least 2"
            )
        if self.folds and self.validation_share:
            raise ValueError(
                "folds and a validation split exclude each other: set validation_share to 0"
            )
        if strange := {b for of in self.member_blocks for b in of} - {*self.features.blocks}:
            raise ValueError(
                f"member_blocks names the blocks {sorted(strange)}, and the probes read "
                f"{list(self.features.blocks)}"
            )
        if not all(self.member_blocks):
            raise ValueError("member_blocks gives a member no block: name at least one")

    def blocks_of(self, member: int) -> tuple[int, ...]:
        """Return the blocks that a member reads."""
        if not self.member_blocks:
            return self.features.blocks
        return self.member_blocks[member % len(self.member_blocks)]

    @property
    def of_refiner(self) -> ProbeSettings:
        """The settings of the probes of the refinement pass."""
        return replace(self, refined_class=None, mirrored=self.mirrored and self.mirrored_windows)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as model files hold them."""
        return {_STORED.get(name, name): value for name, value in asdict(self).items()}

    def trains_like(self, other: ProbeSettings) -> bool:
        """Return whether a training with both gives the same members: they may decide differently."""
        return replace(self, ensemble=other.ensemble) == other

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProbeSettings:
        """Return the settings that `to_dict` wrote; raises WeightsError for unknown ones."""
        named = {stored: name for name, stored in _STORED.items()}
        values = {named.get(key, key): value for key, value in values.items()}
        features = dict(values["features"])
        features["blocks"] = tuple(features["blocks"])
        _check_names(cls, values)
        _check_names(FeatureSpec, features)
        if "ensemble" in values:
            values["ensemble"] = _ensemble(values["ensemble"])
        values["member_blocks"] = tuple(map(tuple, values.get("member_blocks", ())))
        try:
            return cls(**{**values, "features": FeatureSpec(**features)})
        except ValueError as error:
            raise WeightsError(f"the settings of the probes don't fit together: {error}") from error


#: The paper's settings for OpenAI's ImageNet backbone: blocks 6 and 8 at t = 100, plain activations,
#: and the majority of the members, as in ddpm-segmentation, on which the paper builds.
PAPER = ProbeSettings(
    FeatureSpec(blocks=(6, 8), timestep=100),
    views=0,
    class_balance=1.0,
    ensemble=Ensemble.VOTE,
)

#: The settings for the shipped backbone, chosen on pad300's train90 part. Its finest block has 64 x 64
#: positions; a finer grid gains nothing.
SMALL = ProbeSettings(
    FeatureSpec(blocks=(1, 3, 5), timestep=50, normalise=True),
    tone_weight=0.5,
    grid=64,
    mirrored=True,
    refined_class="lesion",
)


#: The settings for `small+lite0`: blocks 1, 3 and 5 of the one, and strides 16, 8 and 4 of the other.
#: No image is held out: the members learn in folds, for few steps, and their last weights are averaged
#: (docs/decisions/0035). Chosen on the learn parts of pad300 and pad_hand.
COMPOSITE = replace(
    SMALL,
    features=FeatureSpec(blocks=(1, 3, 5, 9, 10, 11), timestep=50, normalise=True),
    members=10,
    folds=5,
    validation_share=0.0,
    steps=200,
    averaging=0.5,
    mirrored_windows=False,
)

#: The settings for EfficientNet-Lite0 alone: strides 16, 8 and 4; it knows no timestep.
LITE0 = replace(COMPOSITE, features=FeatureSpec(blocks=(1, 2, 3), timestep=0, normalise=True))


class HasArchitecture(Protocol):
    """A backbone, as far as its settings depend on it."""

    @property
    def config(self) -> Architecture: ...


def default_settings(backbone: HasArchitecture) -> ProbeSettings:
    """Return the settings for a backbone: the paper's for its network, else those chosen for its kind.

    A composite reads what its parts read alone, at the timestep of the first UNet among them.
    """
    return settings_of(backbone.config)


def settings_of(config: Architecture) -> ProbeSettings:
    """Return the settings for a backbone of this architecture, as `default_settings`."""
    if isinstance(config, CompositeConfig):
        parts = [settings_of(part).features for part in config.parts]
        blocks = tuple(
            first + block
            for first, part in zip(config.offsets, parts, strict=True)
            for block in part.blocks
        )
        timestep = next((part.timestep for part in parts if part.timestep), 0)
        return replace(
            COMPOSITE, features=replace(COMPOSITE.features, blocks=blocks, timestep=timestep)
        )
    if isinstance(config, EncoderConfig):
        return LITE0
    return PAPER if config == IMAGENET_256 else SMALL


def _ensemble(name: str) -> Ensemble:
    try:
        return Ensemble(name)
    except ValueError as error:
        raise WeightsError(
            f"the probes' ensemble is {name!r}, not one of {', '.join(Ensemble)}"
        ) from error


def _check_names(kind: type[ProbeSettings | FeatureSpec], values: dict[str, Any]) -> None:
    if unknown := set(values) - {f.name for f in fields(kind)}:
        raise WeightsError(
            f"unknown settings in the probes: {', '.join(sorted(unknown))}: a newer version of "
            "this program wrote them"
        )
