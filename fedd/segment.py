"""Segmentation by pixel probes: 5 small MLPs that classify a pixel from its activations.

As in FEDD and ddpm-segmentation, each member is in -> 128 -> 32 -> classes with ReLU and batch norm.
The members decide by majority, as there, or by the mean of their softmaxes (`fedd/probes/decision.py`):
the settings say which. Two things differ, with the same result: the members are trained together as one batched computation (`fedd/probes/training.py`), and the first
layer, which is linear, is applied at each block's own resolution and its 128 outputs are up-sampled
instead of the 1024 inputs (bilinear up-sampling and a linear layer commute).

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids, S the backbone's image size, g the
width and height of the predicted grid, D the channels of all blocks together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from fedd.features import check_finite, extract, image_statistics, prepare
from fedd.network.devices import within_memory
from fedd.probes.calibration import Calibration
from fedd.probes.decision import Ensemble, combine
from fedd.probes.ensemble import HIDDEN
from fedd.probes.refiner import REACH, Window, window_around
from fedd.probes.settings import PAPER, SMALL, ProbeSettings, default_settings
from fedd.weights.files import read_safetensors, write_safetensors

__all__ = [
    "PAPER",
    "SMALL",
    "Ensemble",
    "MemberPredictions",
    "Prediction",
    "ProbeSettings",
    "ProbeTrainingRecord",
    "Probes",
    "default_settings",
    "load_probes",
]

PROBES_KIND = "fedd-probes"

#: Prefix of the refiner's entries in a model file.
_REFINER = "closer."

#: (H, W, 3) uint8.
Photograph: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """A predicted mask (H, W) uint8, its uncertainty, and the photograph's embedding (D,).

    `uncertainty` is the mutual information between class and member, in nats, mean over pixels.
    `embedding` is the mean over positions of each channel of the settings' blocks, in their order, of
    the original photograph. It is in the activations' own units: only embeddings of one backbone,
    timestep and set of blocks can be compared.
    """

    mask: NDArray[np.uint8]
    uncertainty: float
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class MemberPredictions:
    """The members' predictions for N photographs.

    `member_probabilities` are the softmaxes, (N, members, classes, g, g), averaged with those of the
    mirrored image where the settings say so; on the CPU. `activations` are (N, C, h, w), one for each
    block of the settings, of the original photographs; on the backbone's device.
    """

    member_probabilities: Tensor
    activations: list[Tensor]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The mean of each channel over positions, (N, D)."""
        return _pooled(self.activations)


@dataclass(frozen=True)
class ProbeTrainingRecord:
    """How probes were trained. Images are named by the digest of their prepared pixels."""

    learned: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    steps: int = 0  #: that were run; the weights kept are the best on the validation split
    validation_loss: float | None = (
        None  #: of the members' mean, in nats; None: no validation split
    )
    warm_start: bool = False
    notes: tuple[str, ...] = ()  #: what a person should know about this training

    def to_dict(self) -> dict[str, Any]:
        """Return the record as model files hold it."""
        values = asdict(self)
        return {"learned": values.pop("learned"), "held_out": values.pop("validation"), **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbeTrainingRecord:
        """Return the record that `to_dict` wrote."""
        named: dict[str, Any] = {
            "validation" if key == "held_out" else key: tuple(v) if isinstance(v, list) else v
            for key, v in values.items()
        }
        return cls(**named)


class Probes:
    """Trained members and their settings; see `train_probes` and `load_probes`."""

    def __init__(
        self,
        settings: ProbeSettings,
        classes: tuple[str, ...],
        trained: tuple[int, ...],
        backbone_name: str,
        backbone_hash: str,
        tensors: dict[str, Tensor],
        calibration: Calibration | None = None,
        record: ProbeTrainingRecord | None = None,
        refiner: Probes | None = None,
    ) -> None:
        self.settings, self.classes, self.trained = settings, classes, trained
        self.backbone_name, self.backbone_hash = backbone_name, backbone_hash
        self.tensors = tensors  #: on the CPU
        self.calibration, self.record = calibration, record or ProbeTrainingRecord()
        self.refiner = refiner  #: the probes of the refinement pass

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes in no training mask: they are never predicted."""
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
        """Predict masks of photographs (H, W, 3), each at its own size.

        All pass through the backbone together; a cache keeps the activations. Raises as
        `predict_members` does.
        """
        found = self.predict_members(backbone, photographs, cache)
        probabilities = found.member_probabilities
        with torch.inference_mode():
            refined = self.refine(backbone, photographs, probabilities, cache)
            return [
                self._prediction(each, embedding, photograph.shape[:2], refined.get(index))
                for index, (each, embedding, photograph) in enumerate(
                    zip(probabilities, found.embeddings, photographs, strict=True)
                )
            ]

    @torch.inference_mode()
    def predict_members(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        cache: FeatureCache | None = None,
    ) -> MemberPredictions:
        """Predict each member's class probabilities, without the refinement pass.

        Raises:
            WeightsError: a damaged backbone, or not the one that the probes were trained on.
            DeviceError: the photographs do not fit into the GPU's memory.
        """
        self.check_backbone(backbone)
        images = _prepared(photographs, backbone)
        with within_memory(f"predicting {len(images)} photographs"):
            probabilities, activations = self._member_probabilities(backbone, images, cache)
            if self.settings.mirrored:
                mirrored, _ = self._member_probabilities(backbone, images.flip(-1), cache)
                probabilities = (probabilities + mirrored.flip(-1)) / 2
        check_finite(probabilities)
        return MemberPredictions(probabilities, activations)

    @torch.inference_mode()
    def refine(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        member_probabilities: Tensor,
        cache: FeatureCache | None = None,
        ensemble: Ensemble | None = None,
    ) -> dict[int, tuple[Window, Tensor]]:
        """Run the refinement pass on photographs with these probabilities (N, members, classes, g, g).

        Returns by index of each photograph that shows the refined class: a window around the largest
        predicted part of it, and what the refiner's members think of each class in the window,
        (classes, g, g); they decide as the settings say, or as `ensemble` does. Raises as
        `predict_members` does.
        """
        if self.refiner is None or self.settings.refined_class is None:
            return {}
        class_id = self.classes.index(self.settings.refined_class)
        ensemble = ensemble or self.settings.ensemble
        size = (backbone.image_size,) * 2
        windows: dict[int, Window] = {}
        for index, each in enumerate(combine(member_probabilities, ensemble)):
            if window := window_around(_resized(each, size) == class_id, REACH):
                windows[index] = window
        if not windows:
            return {}
        crops = [window.of(photographs[index]) for index, window in windows.items()]
        inside = self.refiner.predict_members(backbone, crops, cache).member_probabilities
        decided = combine(inside, ensemble)
        return {i: (window, of) for (i, window), of in zip(windows.items(), decided, strict=True)}

    @torch.inference_mode()
    def embeddings(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        cache: FeatureCache | None = None,
    ) -> NDArray[np.float32]:
        """Return `Prediction.embedding` of photographs, (N, D), without predicting masks.

        Raises as `predict_members` does.
        """
        self.check_backbone(backbone)
        images = _prepared(photographs, backbone)
        with within_memory(f"predicting {len(images)} photographs"):
            return _pooled(extract_as_cached(backbone, images, self.settings.features, cache))

    def check_backbone(self, backbone: Backbone) -> None:
        if backbone.hash != self.backbone_hash:
            raise WeightsError(
                f"these probes read the backbone {self.backbone_name} ({self.backbone_hash[:12]}), "
                f"not {backbone.name} ({backbone.hash[:12]}): give that one, or train new probes"
            )

    def probabilities(self, activations: Sequence[Tensor], size: int) -> Tensor:
        """Return each member's softmax for one image, (members, classes, size, size).

        `activations` are (1, C, h, w), one for each block of the settings, in their order.
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
        """Return each member's logits, (members, P, classes), for P pixels' activations (P, C), on the CPU.

        Before the temperature; -inf for classes without training pixels.
        """
        t = self.tensors
        h = F.relu(pixels.float() @ t["w1"] + t["b1"][:, None])
        h = F.relu(torch.baddbmm(t["b2"][:, None], h, t["w2"]))
        logits = torch.baddbmm(t["b3"][:, None], h, t["w3"])
        logits[..., [c for c in range(len(self.classes)) if c not in self.trained]] = -torch.inf
        return logits

    def save(self, path: Path, extra: dict[str, str] | None = None) -> None:
        """Write the probes to a file, atomically."""
        header = {
            "kind": PROBES_KIND,
            "settings": json.dumps(self.settings.to_dict()),
            "classes": json.dumps(self.classes),
            "backbone_name": self.backbone_name,
            "backbone_hash": self.backbone_hash,
            **self._training_header(),
            **(extra or {}),
        }
        tensors = dict(self.tensors)
        if self.refiner is not None:
            tensors |= {_REFINER + k: v for k, v in self.refiner.tensors.items()}
            header |= {_REFINER + k: v for k, v in self.refiner._training_header().items()}
        write_safetensors(path, {k: v.contiguous() for k, v in tensors.items()}, header)

    def _training_header(self) -> dict[str, str]:
        """Return what a training produced besides tensors, as text."""
        return {
            "trained": json.dumps(self.trained),
            "calibration": json.dumps(asdict(self.calibration) if self.calibration else None),
            "record": json.dumps(self.record.to_dict()),
        }

    def _first_layer(self, activations: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the first layer's weights by block, (members * 128, C), and its bias, for one image.

        A standardised channel is a linear function of the raw one, so with `normalise` both halves of
        the first layer become one matrix, specific to the image.
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

    def _member_probabilities(
        self, backbone: Backbone, images: Tensor, cache: FeatureCache | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return each member's softmax, (N, members, classes, g, g), and the activations.

        The softmaxes are copied to the CPU one by one: those of 64 images on 256 x 256 take 0.4 GB,
        and each step with them as much again.
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
        member_probabilities: Tensor,
        embedding: NDArray[np.float32],
        shape: tuple[int, ...],
        refined: tuple[Window, Tensor] | None,
    ) -> Prediction:
        """Return the mask at `shape` (H, W) from member probabilities (members, classes, g, g).

        Inside its window the refinement replaces it, except for classes that the refiner never saw.
        """
        mean = member_probabilities.mean(0)
        disagreement = _entropy(mean, 0) - _entropy(member_probabilities, 1).mean(0)
        mask = _resized(combine(member_probabilities, self.settings.ensemble), shape)
        if refined is not None and self.refiner is not None:
            window, probabilities = refined
            inside = mask[window.slices(*mask.shape)]
            known = np.isin(inside, self.refiner.trained)
            inside[known] = _resized(probabilities, inside.shape)[known]
        return Prediction(mask, float(disagreement.mean().clamp_min(0)), embedding)


def load_probes(path: Path) -> Probes:
    """Load probes from a file; raises WeightsError if it holds none."""
    if not path.is_file():
        raise WeightsError(f"no probes at {path}: train them first")
    tensors, header = read_safetensors(path, PROBES_KIND)
    settings = ProbeSettings.from_dict(json.loads(header["settings"]))
    probes = _loaded(settings, tensors, header, "")
    if _REFINER + "trained" in header:
        probes.refiner = _loaded(replace(settings, refined_class=None), tensors, header, _REFINER)
    return probes


def _loaded(
    settings: ProbeSettings, tensors: dict[str, Tensor], header: dict[str, str], prefix: str
) -> Probes:
    """Return the probes whose entries in the file begin with `prefix`."""
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
            if name.startswith(_REFINER) == bool(prefix)
        },
        Calibration(**calibration) if calibration else None,
        ProbeTrainingRecord.from_dict(json.loads(header.get(prefix + "record", "{}"))),
    )


def _prepared(photographs: Sequence[Photograph], backbone: Backbone) -> Tensor:
    """Return the photographs as the backbone reads them, (N, 3, S, S)."""
    return torch.stack([prepare(p, backbone.image_size) for p in photographs])


def _pooled(activations: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the mean of each channel over positions, (N, D)."""
    return torch.cat([a.mean((2, 3)) for a in activations], 1).float().cpu().numpy()


def _resized(probabilities: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the most probable class, (H, W), of probabilities (classes, g, g) resized to `shape`."""
    full = F.interpolate(probabilities[None], tuple(shape), mode="bilinear", align_corners=False)
    return full[0].argmax(0).to(torch.uint8).cpu().numpy()


def _entropy(p: Tensor, dim: int) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(dim)


def _listed(blocks: Sequence[int]) -> str:
    return ", ".join(map(str, blocks))
