"""Model versions without a training: their files load, and the gate judged masks made of numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.catalogue import ModelKind, NewModelVersion
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.evaluation import gate
from ddiseg.model.storage import store_model
from ddiseg.workspace.workspace import Workspace
from fedd.malignancy.discrimination import discrimination_by_tone
from fedd.segment import Probes
from fedd.weights.files import load_backbone
from tests.fedd.conftest import CLASSES, QUICK

#: Of a held-out image: patient, tone, the candidate's lesion IoU, that of the version in use.
HeldOut = tuple[str, str, float, float | None]


def add_version(
    workspace: Workspace,
    backbone: Path,
    /,
    *,
    learned: Sequence[str] = (),
    verdict: gate.GateDecision | None = None,
    promote: bool = True,
    seed: int = 0,
    **columns: Any,
) -> ModelVersion:
    """A version whose file holds probes of no worth, for the backbone of that file."""
    net = load_backbone(str(backbone))
    number = len(workspace.catalogue.models.all())
    tensors = {"w1": torch.full((1, 1), float(number))}
    probes = Probes(QUICK, CLASSES, (1, 4), net.name, net.hash, tensors)
    new = {
        "file_hash": store_model(workspace, probes.save),
        "backbone": str(backbone),
        "backbone_hash": net.hash,
        "settings": {**QUICK.to_dict(), "seed": seed},
        "training_masks": list(learned),
        "metrics": metrics(len(learned)),
        "protocol_version": load_protocol().version,
        "gate": verdict.to_json() if verdict else None,
        **columns,
    }
    return workspace.catalogue.models.add(
        NewModelVersion(**new), "annotator-1", promote=promote, why="newly trained"
    )


def metrics(n: int) -> dict[str, Any]:
    """What a training leaves behind; nothing of it is held out."""
    return {
        "seconds": 1.5,
        "images": n,
        "by_tone": {"I-II": n} if n else {},
        "absent_classes": ["marker", "ruler"],
        "went_on_from": None,
        "steps": 60,
        "notes": [],
        "validation": None,
        "on_its_own_training_images": {"lesion": 0.99},
    }


def add_classifier(workspace: Workspace, **columns: Any) -> ModelVersion:
    """A malignancy version; its file is none."""
    probabilities = np.linspace(0.1, 0.9, 12)
    figures = discrimination_by_tone(
        np.arange(12) % 3 > 0,
        probabilities,
        [f"p{k}" for k in range(12)],
        ["I-II"] * 9 + ["V-VI"] * 3,
        0.5,
    )
    new: dict[str, Any] = {
        "file_hash": "0" * 64,
        "backbone": "small",
        "backbone_hash": "1" * 64,
        "settings": {"seed": 0},
        "training_masks": [],
        "metrics": {
            "seconds": 2.0,
            "by_tone": {"I-II": 20, "V-VI": 4},
            "validation": 12,
            "on_its_validation_images": {k: v.to_json() for k, v in figures.items()},
        },
        "protocol_version": load_protocol().version,
        "kind": ModelKind.MALIGNANCY,
        "training_images": {f"{k:064d}": {"malignant": True} for k in range(24)},
        **columns,
    }
    new["metrics"] = json.loads(json.dumps(new["metrics"]))
    return workspace.catalogue.models.add(NewModelVersion(**new), "annotator-1")


def decided(held_out: Sequence[HeldOut], compared_with: str | None = None) -> gate.GateDecision:
    """What the gate says of such images."""
    images = [
        gate.HoldoutImage(
            patient, tone, (1, 4), _lesion(new), None if old is None else _lesion(old)
        )
        for patient, tone, new, old in held_out
    ]
    return gate.decide(images, compared_with)


def holdout_images(
    tones: Sequence[str], new: float, old: float | None, each: int = 8
) -> list[HeldOut]:
    """`each` images of each tone, a patient each, around those lesion IoUs."""
    return [
        (f"{tone} {k}", tone, new + k / 100, None if old is None else old + k / 100)
        for tone in tones
        for k in range(each)
    ]


def _lesion(iou: float) -> NDArray[np.int64]:
    """A confusion matrix of lesion and skin in which the lesion has that IoU."""
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    hit = round(1000 * iou)
    matrix[1, 1], matrix[1, 4], matrix[4, 4] = hit, 1000 - hit, 5000
    return matrix
