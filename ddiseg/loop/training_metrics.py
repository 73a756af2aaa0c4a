"""What is kept with a model version about its training: how it went, and how it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import scoring
from ddiseg.catalogue.models import Image, Mask
from ddiseg.workspace import Workspace
from fedd.backbone import Backbone
from fedd.cache import FeatureCache, image_digest
from fedd.features import prepare
from fedd.segment import Probes


def training_metrics(
    workspace: Workspace,
    probes: Probes,
    net: Backbone,
    pairs: Sequence[tuple[Image, Mask]],
    cache: FeatureCache | None,
) -> tuple[dict[str, Any], dict[int, NDArray[np.float32]]]:
    """The record of a training as JSON has it, and the images' descriptors by their ids.

    `validation` is measured on the part that was held out: images by tone, the temperature and the
    calibration error, and IoU by class with n and interval; None where nothing was held out.
    """
    held_out = set(probes.record.held_out)
    fit: list[NDArray[np.int64]] = []
    validation: list[tuple[Image, Mask, NDArray[np.int64]]] = []
    descriptors: dict[int, NDArray[np.float32]] = {}
    for image, mask in pairs:
        photograph = workspace.photograph(image)
        prediction = probes.predict(net, [photograph], cache)[0]
        descriptors[image.id] = prediction.descriptor
        truth = workspace.mask_over(image, mask)
        matrix = scoring.confusion(truth, prediction.mask, len(probes.classes))
        if image_digest(prepare(photograph, net.image_size)) in held_out:
            validation.append((image, mask, matrix))
        else:
            fit.append(matrix)
    pooled = scoring.iou_per_class(np.sum(fit, axis=0))
    record = {
        "steps": probes.record.steps,
        "notes": list(probes.record.notes),
        "validation": _validation(probes, validation) if validation else None,
        "on_its_own_training_images": {
            name: round(float(v), 4)
            for name, v in zip(probes.classes, pooled, strict=True)
            if v == v
        },
    }
    return record, descriptors


def count_tones(images: Sequence[Image]) -> dict[str, int]:
    tones = [image.tone for image in images]
    return {tone: tones.count(tone) for tone in sorted(set(tones))}


def _validation(
    probes: Probes, held_out: Sequence[tuple[Image, Mask, NDArray[np.int64]]]
) -> dict[str, Any]:
    classes = range(len(probes.classes))
    scores = scoring.score(
        np.stack([matrix for _, _, matrix in held_out]),
        [image.patient or image.content_hash for image, _, _ in held_out],
        np.array([[c in mask.classes for c in classes] for _, mask, _ in held_out]),
        probes.classes,
    )
    return {
        "images": len(held_out),
        "by_tone": count_tones([image for image, _, _ in held_out]),
        "loss": probes.record.validation_loss,
        "calibration": asdict(probes.calibration) if probes.calibration else None,
        "scores": {name: score.as_dict() for name, score in scores.items() if score.n},
    }
