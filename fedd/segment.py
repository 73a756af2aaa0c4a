"""The pixel probes: 5 small MLPs that read a class from the activations at a pixel.

As in FEDD and ddpm-segmentation, each is in -> 128 -> 32 -> classes with ReLU and batch norm, and
the prediction is the mean of the members' softmaxes. Two things are done differently, with the same
result: the members are trained together as one batched computation (`fedd/probes/training.py`), and the
first layer, being linear, is applied at each block's own resolution and its 128 outputs are
up-sampled, instead of the 1024 inputs (bilinear up-sampling and a linear layer commute).

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids, S the backbone's image size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import IMAGENET_256, Backbone, UNetConfig
from fedd.cache import FeatureCache
from fedd.errors import WeightsError
from fedd.features import FeatureSpec, extract, image_statistics, prepare
from fedd.probes.calibration import Calibration
from fedd.probes.ensemble import HIDDEN
from fedd.probes.second_look import REACH, Window, window_around
from fedd.weights.files import read_safetensors, write_safetensors

PROBES_KIND = "fedd-probes"

#: Begins the names of what belongs to the second look, in a file.
_CLOSER = "closer."

#: (H, W, 3) uint8.
Photograph: TypeAlias = NDArray[np.uint8]


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


@dataclass(frozen=True)
class Prediction:
    """A mask (H, W) uint8 and how much the members disagree.

    `uncertainty` is the mutual information between class and member, in nats, mean over pixels.
    """

    mask: NDArray[np.uint8]
    uncertainty: float


@dataclass(frozen=True)
class TrainingRecord:
    """How probes came about, kept with them. Images are named by the digest of their prepared pixels."""

    learned: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    steps: int = 0  #: run, of those the best on the held-out part were kept
    validation_loss: float | None = None  #: of the members' mean, in nats; None: no held-out part
    warm_start: bool = False
    notes: tuple[str, ...] = ()  #: what a person should know about this training


class Probes:
    """Trained members with what they were trained for; see `train_probes` and `load_probes`."""

    def __init__(
        self,
        settings: ProbeSettings,
        classes: tuple[str, ...],
        trained: tuple[int, ...],
        backbone_name: str,
        backbone_hash: str,
        tensors: dict[str, Tensor],
        calibration: Calibration | None = None,
        record: TrainingRecord | None = None,
        closer: Probes | None = None,
    ) -> None:
        self.settings, self.classes, self.trained = settings, classes, trained
        self.backbone_name, self.backbone_hash = backbone_name, backbone_hash
        self.tensors = tensors
        self.calibration, self.record = calibration, record or TrainingRecord()
        self.closer = closer  #: the probes of the second look

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no training mask showed: they are never predicted."""
        return tuple(name for i, name in enumerate(self.classes) if i not in self.trained)

    @property
    def temperature(self) -> float:
        return self.calibration.temperature if self.calibration else 1.0

    def predict(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        cache: FeatureCache | None = None,
    ) -> list[Prediction]:
        """Masks of photographs (H, W, 3), each at its own size; all pass the backbone together.

        Raises WeightsError where the backbone is not the one that the probes were trained on.
        """
        self.check_backbone(backbone)
        with torch.inference_mode():
            votes = self._look(backbone, photographs, cache)
            close = self._look_closer(backbone, photographs, votes)
            return [
                self._prediction(each, photograph.shape[:2], close.get(index))
                for index, (each, photograph) in enumerate(zip(votes, photographs, strict=True))
            ]

    def check_backbone(self, backbone: Backbone) -> None:
        if backbone.hash != self.backbone_hash:
            raise WeightsError(
                f"these probes read the backbone {self.backbone_name} ({self.backbone_hash[:12]}), "
                f"not {backbone.name} ({backbone.hash[:12]}): give that one, or train probes anew"
            )

    def probabilities(self, activations: Sequence[Tensor], size: int) -> Tensor:
        """Softmax of each member, (members, classes, size, size), for one image's activations.

        `activations` are (1, C, h, w), one a block of the settings, in their order.
        """
        self._check_channels(activations)
        weights, bias = self._first_layer(activations)
        t = {k: v.to(bias.device) for k, v in self.tensors.items()}
        total = bias[None, :, None, None].repeat(1, 1, size, size)
        for activation, weight in zip(activations, weights, strict=True):
            low = F.conv2d(activation, weight[:, :, None, None])
            total += F.interpolate(low, (size, size), mode="bilinear", align_corners=False)
        h = F.relu_(total[0].view(self.settings.members, HIDDEN[0], size * size))
        h = F.relu_(torch.baddbmm(t["b2"][..., None], t["w2"].mT, h))
        logits = torch.baddbmm(t["b3"][..., None], t["w3"].mT, h) / self.temperature
        logits[:, [c for c in range(len(self.classes)) if c not in self.trained]] = -torch.inf
        return logits.softmax(1).view(*logits.shape[:2], size, size)

    def logits(self, pixels: Tensor) -> Tensor:
        """Of each member, (members, P, classes), for what is read at P pixels, (P, C), on CPU.

        Before temperature; classes that the probes do not know are -inf.
        """
        t = self.tensors
        h = F.relu(pixels.float() @ t["w1"] + t["b1"][:, None])
        h = F.relu(torch.baddbmm(t["b2"][:, None], h, t["w2"]))
        logits = torch.baddbmm(t["b3"][:, None], h, t["w3"])
        logits[..., [c for c in range(len(self.classes)) if c not in self.trained]] = -torch.inf
        return logits

    def save(self, path: Path, extra: dict[str, str] | None = None) -> None:
        """Write the probes, whole or not at all."""
        header = {
            "kind": PROBES_KIND,
            "settings": json.dumps(self.settings.to_dict()),
            "classes": json.dumps(self.classes),
            "backbone_name": self.backbone_name,
            "backbone_hash": self.backbone_hash,
            **self._learned(),
            **(extra or {}),
        }
        tensors = dict(self.tensors)
        if self.closer is not None:
            tensors |= {_CLOSER + k: v for k, v in self.closer.tensors.items()}
            header |= {_CLOSER + k: v for k, v in self.closer._learned().items()}
        write_safetensors(path, {k: v.contiguous() for k, v in tensors.items()}, header)

    def _learned(self) -> dict[str, str]:
        """What a training left behind besides tensors, as text."""
        return {
            "trained": json.dumps(self.trained),
            "calibration": json.dumps(asdict(self.calibration) if self.calibration else None),
            "record": json.dumps(asdict(self.record)),
        }

    def _first_layer(self, activations: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """First-layer weights by block, (members * 128, C), and the bias, for one image.

        A standardised channel is a linear function of the raw one, so with `normalise` both halves
        of the first layer become one matrix of the image's own.
        """
        device = activations[0].device
        w1 = self.tensors["w1"].to(device).transpose(1, 2).flatten(0, 1)
        bias = self.tensors["b1"].to(device).flatten()
        weights, start = [], 0
        for activation in activations:
            channels = activation.shape[1]
            weight = w1[:, start : start + channels]
            start += channels
            if self.settings.features.normalise:
                mean, std = (s.flatten() for s in image_statistics(activation))
                relative = w1[:, start : start + channels] / std
                start += channels
                weight = weight + relative
                bias = bias - relative @ mean
            weights.append(weight)
        return weights, bias

    def _check_channels(self, activations: Sequence[Tensor]) -> None:
        spec = self.settings.features
        found = sum(a.shape[1] for a in activations) * (2 if spec.normalise else 1)
        expected = self.tensors["w1"].shape[1]
        if len(activations) != len(spec.blocks) or found != expected:
            raise WeightsError(
                f"these probes read {expected} channels of blocks {_listed(spec.blocks)} at "
                f"t = {spec.timestep}, not {found} of {len(activations)} blocks"
            )

    def _look(
        self, backbone: Backbone, photographs: Sequence[Photograph], cache: FeatureCache | None
    ) -> Tensor:
        """Softmax of each member for each photograph, (N, members, classes, grid, grid)."""
        images = torch.stack([prepare(p, backbone.image_size) for p in photographs])
        votes = self._votes(backbone, images, cache)
        if self.settings.mirrored:
            votes = (votes + self._votes(backbone, images.flip(-1), cache).flip(-1)) / 2
        if not torch.isfinite(votes).all():
            raise WeightsError(
                "the backbone gave activations that are not numbers: its weights are damaged"
            )
        return votes

    def _look_closer(
        self, backbone: Backbone, photographs: Sequence[Photograph], votes: Tensor
    ) -> dict[int, tuple[Window, Tensor]]:
        """By photograph: a window around what the first look found, and the votes' mean in it."""
        if self.closer is None or self.settings.second_look is None:
            return {}
        looked = self.classes.index(self.settings.second_look)
        side = backbone.image_size
        found: dict[int, Window] = {}
        for index, each in enumerate(votes):
            window = window_around(_resized(each.mean(0), (side, side)) == looked, REACH)
            if window is not None:
                found[index] = window
        if not found:
            return {}
        cuts = [window.of(photographs[index]) for index, window in found.items()]
        means = self.closer._look(backbone, cuts, None).mean(1)
        return {i: (window, mean) for (i, window), mean in zip(found.items(), means, strict=True)}

    def _votes(self, backbone: Backbone, images: Tensor, cache: FeatureCache | None) -> Tensor:
        grid = self.settings.grid or backbone.image_size
        spec = self.settings.features
        activations = (
            cache.extract(backbone, images, spec) if cache else extract(backbone, images, spec)
        )
        each = [
            self.probabilities([a[i : i + 1] for a in activations], grid)
            for i in range(len(images))
        ]
        return torch.stack(each)

    def _prediction(
        self, votes: Tensor, shape: tuple[int, ...], close: tuple[Window, Tensor] | None
    ) -> Prediction:
        """The mask at `shape` (H, W) that the members' softmaxes (members, classes, g, g) agree on.

        Inside its window the second look replaces the first, but for classes that it never learned.
        """
        mean = votes.mean(0)
        disagreement = _entropy(mean, 0) - _entropy(votes, 1).mean(0)
        mask = _resized(mean, shape)
        if close is not None and self.closer is not None:
            window, second = close
            place = window.slices(*mask.shape)
            known = np.isin(mask[place], self.closer.trained)
            mask[place] = np.where(known, _resized(second, mask[place].shape), mask[place])
        return Prediction(mask, float(disagreement.mean().clamp_min(0)))


def load_probes(path: Path) -> Probes:
    """Probes from a file; raises WeightsError where it holds none."""
    if not path.is_file():
        raise WeightsError(f"no probes at {path}: train them first")
    tensors, header = read_safetensors(path, PROBES_KIND)
    settings = ProbeSettings.from_dict(json.loads(header["settings"]))
    probes = _loaded(settings, tensors, header, "")
    if _CLOSER + "trained" in header:
        probes.closer = _loaded(replace(settings, second_look=None), tensors, header, _CLOSER)
    return probes


def _loaded(
    settings: ProbeSettings, tensors: dict[str, Tensor], header: dict[str, str], prefix: str
) -> Probes:
    """The probes whose tensors and learning have names that begin with `prefix`."""
    calibration = json.loads(header.get(prefix + "calibration", "null"))
    return Probes(
        settings,
        tuple(json.loads(header["classes"])),
        tuple(json.loads(header[prefix + "trained"])),
        header["backbone_name"],
        header["backbone_hash"],
        {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(_CLOSER) == bool(prefix)
        },
        Calibration(**calibration) if calibration else None,
        _record(json.loads(header.get(prefix + "record", "{}"))),
    )


def _resized(probabilities: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The likeliest class, (H, W), of probabilities (classes, g, g) brought to `shape`."""
    full = F.interpolate(probabilities[None], tuple(shape), mode="bilinear", align_corners=False)
    return full[0].argmax(0).to(torch.uint8).cpu().numpy()


def _entropy(p: Tensor, dim: int) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(dim)


def _record(values: dict[str, Any]) -> TrainingRecord:
    read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return TrainingRecord(**read)


def _check_names(kind: type[ProbeSettings | FeatureSpec], values: dict[str, Any]) -> None:
    if unknown := set(values) - {f.name for f in fields(kind)}:
        raise WeightsError(
            f"unknown settings in the probes: {', '.join(sorted(unknown))}: a newer version of "
            "this program wrote them"
        )


def _listed(blocks: Sequence[int]) -> str:
    return ", ".join(map(str, blocks))
