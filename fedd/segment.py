"""The pixel probes: 5 small MLPs that read a class from the activations at a pixel.

As in FEDD and ddpm-segmentation, each is in -> 128 -> 32 -> classes with ReLU and batch norm, and
the prediction is the mean of the members' softmaxes. Two things are done differently, with the same
result: the members are trained together as one batched computation (`fedd/probes/training.py`), and the
first layer, being linear, is applied at each block's own resolution and its 128 outputs are
up-sampled, instead of the 1024 inputs (bilinear up-sampling and a linear layer commute).

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids, S the backbone's image size, g the
side of the grid that the members vote on, D the channels of all blocks together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import Backbone
from fedd.cache import FeatureCache, extract_as_cached
from fedd.errors import WeightsError
from fedd.features import extract, image_statistics, prepare
from fedd.network.devices import within_memory
from fedd.probes.calibration import Calibration
from fedd.probes.ensemble import HIDDEN
from fedd.probes.refiner import REACH, Window, window_around
from fedd.probes.settings import PAPER, SMALL, ProbeSettings, default_settings
from fedd.weights.files import read_safetensors, write_safetensors

__all__ = [
    "PAPER",
    "SMALL",
    "Look",
    "Prediction",
    "ProbeSettings",
    "Probes",
    "TrainingRecord",
    "default_settings",
    "load_probes",
]

PROBES_KIND = "fedd-probes"

#: Begins the names of what belongs to the second look, in a file.
_CLOSER = "closer."

#: (H, W, 3) uint8.
Photograph: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """A mask (H, W) uint8, how much the members disagree, and what the photograph is like.

    `uncertainty` is the mutual information between class and member, in nats, mean over pixels.
    `descriptor`, (D,), is the mean over positions of each channel of the settings' blocks, in their
    order, of the photograph as it is, neither mirrored nor enlarged. It is in the activations' own
    units, so only descriptors of one backbone, timestep and blocks can be compared.
    """

    mask: NDArray[np.uint8]
    uncertainty: float
    descriptor: NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """What one pass over N photographs gave.

    `votes` are the softmax of each member, (N, members, classes, g, g), the mean over the mirror
    image where that votes too; on the CPU. `activations` are (N, C, h, w), one a block of the
    settings, in their order, of the photographs as they are; on the backbone's device.
    """

    votes: Tensor
    activations: list[Tensor]

    @property
    def descriptors(self) -> NDArray[np.float32]:
        """The mean of each channel over positions, (N, D)."""
        return _pooled(self.activations)


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
        self.tensors = tensors  #: on the CPU
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

        With a cache the activations are kept. Raises as `look` does.
        """
        look = self.look(backbone, photographs, cache)
        with torch.inference_mode():
            close = self.look_closer(backbone, photographs, look.votes, cache)
            return [
                self._prediction(votes, descriptor, photograph.shape[:2], close.get(index))
                for index, (votes, descriptor, photograph) in enumerate(
                    zip(look.votes, look.descriptors, photographs, strict=True)
                )
            ]

    @torch.inference_mode()
    def look(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        cache: FeatureCache | None = None,
    ) -> Look:
        """The first look at photographs (H, W, 3), which pass the backbone together.

        Raises WeightsError where the backbone is damaged, or not the one the probes were trained on,
        DeviceError where they do not fit into a GPU's memory.
        """
        self.check_backbone(backbone)
        images = _prepared(photographs, backbone)
        with within_memory(f"looking at {len(images)} photographs"):
            votes, activations = self._votes(backbone, images, cache)
            if self.settings.mirrored:
                mirrored, _ = self._votes(backbone, images.flip(-1), cache)
                votes = (votes + mirrored.flip(-1)) / 2
        if not torch.isfinite(votes).all():
            raise WeightsError(
                "the backbone gave activations that are not numbers: its weights are damaged"
            )
        return Look(votes, activations)

    @torch.inference_mode()
    def look_closer(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        votes: Tensor,
        cache: FeatureCache | None = None,
    ) -> dict[int, tuple[Window, Tensor]]:
        """The second look at photographs that gave `votes` (N, members, classes, g, g).

        By photograph that shows the class looked for: a window around the largest part of it that the
        first look found, and the votes' mean in it, (classes, g, g). Raises as `look` does.
        """
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
        means = self.closer.look(backbone, cuts, cache).votes.mean(1)
        return {i: (window, mean) for (i, window), mean in zip(found.items(), means, strict=True)}

    @torch.inference_mode()
    def descriptors(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        cache: FeatureCache | None = None,
    ) -> NDArray[np.float32]:
        """What `Prediction.descriptor` holds, (N, D), without painting; raises as `look` does."""
        self.check_backbone(backbone)
        images = _prepared(photographs, backbone)
        with within_memory(f"looking at {len(images)} photographs"):
            return _pooled(extract_as_cached(backbone, images, self.settings.features, cache))

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

    def _votes(
        self, backbone: Backbone, images: Tensor, cache: FeatureCache | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Softmax of each member, (N, members, classes, g, g), and the activations it was read from.

        The softmaxes come to the CPU one by one: those of 64 images on 256 x 256 take 0.4 GB, and
        as much again at every step taken with them.
        """
        grid = self.settings.grid or backbone.image_size
        spec = self.settings.features
        activations = (
            cache.extract(backbone, images, spec) if cache else extract(backbone, images, spec)
        )
        each = [
            self.probabilities([a[i : i + 1] for a in activations], grid).cpu()
            for i in range(len(images))
        ]
        return torch.stack(each), activations

    def _prediction(
        self,
        votes: Tensor,
        descriptor: NDArray[np.float32],
        shape: tuple[int, ...],
        close: tuple[Window, Tensor] | None,
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
        return Prediction(mask, float(disagreement.mean().clamp_min(0)), descriptor)


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


def _prepared(photographs: Sequence[Photograph], backbone: Backbone) -> Tensor:
    """As the backbone sees them, (N, 3, S, S)."""
    return torch.stack([prepare(p, backbone.image_size) for p in photographs])


def _pooled(activations: Sequence[Tensor]) -> NDArray[np.float32]:
    """The mean of each channel over positions, (N, D)."""
    return torch.cat([a.mean((2, 3)) for a in activations], 1).float().cpu().numpy()


def _resized(probabilities: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The likeliest class, (H, W), of probabilities (classes, g, g) brought to `shape`."""
    full = F.interpolate(probabilities[None], tuple(shape), mode="bilinear", align_corners=False)
    return full[0].argmax(0).to(torch.uint8).cpu().numpy()


def _entropy(p: Tensor, dim: int) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(dim)


def _record(values: dict[str, Any]) -> TrainingRecord:
    read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return TrainingRecord(**read)


def _listed(blocks: Sequence[int]) -> str:
    return ", ".join(map(str, blocks))
