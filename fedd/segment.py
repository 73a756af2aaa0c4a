"""Segmentation by pixel probes: 5 small MLPs that classify a pixel from its activations.

As in FEDD and ddpm-segmentation, each member is in -> 128 -> 32 -> classes with ReLU and batch norm.
The members decide by majority, as there, or by the mean of their softmaxes: the settings say which
(`fedd/probes/decision.py`). Two things differ, with the same result: the members are trained together
as one batched computation (`fedd/probes/training.py`), and the first layer, which is linear, is applied
at each block's own resolution and its 128 outputs are up-sampled instead of the 1024 inputs (bilinear
up-sampling and a linear layer commute).

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids, S the backbone's image size, g the
width and height of the predicted grid, D the channels of all blocks together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.errors import WeightsError
from fedd.pipeline import Source, embeddings, predictions
from fedd.probes.calibration import Calibration
from fedd.probes.decision import Decision, Ensemble, Refinement
from fedd.probes.members import Members
from fedd.probes.own_masks import OwnMasks
from fedd.probes.prediction import Prediction
from fedd.probes.quality import Quality
from fedd.probes.settings import PAPER, SMALL, ProbeSettings, default_settings
from fedd.weights.files import read_safetensors, write_safetensors

__all__ = [
    "PAPER",
    "SMALL",
    "Decision",
    "Ensemble",
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
class ProbeTrainingRecord:
    """How probes were trained. Images are named by the digest of their prepared pixels."""

    learned: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()  #: of the images learned; () where all members learned from all
    steps: int = 0  #: that were run; the weights kept are the best on the validation split
    validation_loss: float | None = (
        None  #: of the members' mean, in nats; None: no validation split
    )
    warm_start: bool = False
    precision: str = "float32"  #: of the activations that they learned from; also of old files
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
        decision: Decision | None = None,
        quality: Quality | None = None,
    ) -> None:
        self.settings, self.classes, self.trained = settings, classes, trained
        self.backbone_name, self.backbone_hash = backbone_name, backbone_hash
        self.tensors = tensors  #: on the CPU
        self.calibration, self.record = calibration, record or ProbeTrainingRecord()
        self.refiner = refiner  #: the probes of the refinement pass
        self.decision = decision or Decision()  #: what decides besides the members
        self.quality = quality  #: tells the expected IoU; None in old files: then it is not known
        self.own_masks: OwnMasks | None = None  #: of this training; not in files
        self._members: tuple[tuple[object, ...], Members] | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes in no training mask: they are never predicted."""
        return tuple(name for i, name in enumerate(self.classes) if i not in self.trained)

    @property
    def refined_id(self) -> int | None:
        """Id of the class whose largest region gets a refinement pass; None without one."""
        name = self.settings.refined_class
        return None if name is None else self.classes.index(name)

    @property
    def needs_photographs(self) -> bool:
        """Whether a prediction reads photographs again at their own size."""
        return self.refiner is not None or self.decision.refinement is not Refinement.NONE

    @property
    def temperature(self) -> float:
        return self.calibration.temperature if self.calibration else 1.0

    def predict(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        cache: FeatureCache | None = None,
    ) -> list[Prediction]:
        """Predict masks of photographs (H, W, 3), each at its own size; a cache keeps the activations.

        Raises as `fedd.pipeline.predictions` does, which is for many photographs.
        """
        found = predictions(self, backbone, _given(photographs), expected=(), cache=cache)
        return [each.prediction for each in found if each.prediction is not None]

    def embeddings(
        self,
        backbone: Backbone,
        photographs: Sequence[Photograph],
        cache: FeatureCache | None = None,
    ) -> NDArray[np.float32]:
        """Return `Prediction.embedding` of photographs, (N, D), without predicting masks.

        Raises as `fedd.pipeline.embeddings` does, which is for many photographs.
        """
        found = embeddings(self, backbone, _given(photographs), expected=(), cache=cache)
        return np.stack([each.features for each in found if each.features is not None])

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
        device = activations[0].device
        key = device, self.temperature, self.trained
        if self._members is None or self._members[0] != key:
            members = Members(
                self.tensors,
                self.settings.features.normalise,
                self.trained,
                self.temperature,
                device,
            )
            self._members = key, members
        return self._members[1].probabilities([a[0] for a in activations], size)

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
            "decision": json.dumps(self.decision.to_dict()),
            "quality": json.dumps(self.quality.to_dict() if self.quality else None),
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

    def _check_channels(self, activations: Sequence[Tensor]) -> None:
        spec = self.settings.features
        found = sum(a.shape[1] for a in activations) * (2 if spec.normalise else 1)
        expected = self.tensors["w1"].shape[1]
        if len(activations) != len(spec.blocks) or found != expected:
            raise WeightsError(
                f"these probes read {expected} channels of blocks {_listed(spec.blocks)} at "
                f"t = {spec.timestep}, not {found} of {len(activations)} blocks"
            )


def _given(photographs: Sequence[Photograph]) -> list[Source[int]]:
    return [Source(number, partial(np.asarray, each)) for number, each in enumerate(photographs)]


def load_probes(path: Path) -> Probes:
    """Load probes from a file; raises WeightsError if it holds none."""
    if not path.is_file():
        raise WeightsError(f"no probes at {path}: train them first")
    tensors, header = read_safetensors(path, PROBES_KIND)
    settings = ProbeSettings.from_dict(json.loads(header["settings"]))
    probes = _loaded(settings, tensors, header, "")
    if "decision" in header:
        probes.decision = Decision.from_dict(json.loads(header["decision"]))
    quality = json.loads(header.get("quality", "null"))
    probes.quality = Quality.from_dict(quality) if quality is not None else None
    if _REFINER + "trained" in header:
        probes.refiner = _loaded(settings.of_refiner, tensors, header, _REFINER)
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


def _listed(blocks: Sequence[int]) -> str:
    return ", ".join(map(str, blocks))
