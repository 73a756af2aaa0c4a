"""What is kept with a model version about its training: how it went, and what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import metrics
from annotation_protocol.estimates import estimate_classes
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.outcomes import Progress, silent, track
from ddiseg.sampling.groups import patient_key
from ddiseg.workspace.workspace import Workspace
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
    progress: Progress = silent,
) -> tuple[dict[str, Any], dict[int, NDArray[np.float32]]]:
    """The record of a training as JSON has it, and the images' descriptors by their ids.

    `validation` is measured on the part that was held out: images by tone, the temperature and the
    calibration error, and IoU by class with n and interval; None where nothing was held out. Images
    that were learned from are not painted: what they show flatters, and painting them takes longer
    than the training.
    """
    held_out = set(probes.record.validation)
    validation: list[tuple[Image, Mask, NDArray[np.int64]]] = []
    descriptors: dict[int, NDArray[np.float32]] = {}
    for image, mask in track(pairs, progress):
        photograph = workspace.photograph(image)
        if image_digest(prepare(photograph, net.image_size)) not in held_out:
            descriptors[image.id] = probes.embeddings(net, [photograph], cache)[0]
            continue
        prediction = probes.predict(net, [photograph], cache)[0]
        descriptors[image.id] = prediction.embedding
        truth = workspace.mask_over(image, mask)
        matrix = metrics.confusion(truth, prediction.mask, len(probes.classes))
        validation.append((image, mask, matrix))
    record = {
        "steps": probes.record.steps,
        "notes": list(probes.record.notes),
        "validation": _validation(probes, validation) if validation else None,
    }
    return record, descriptors


def count_tones(images: Sequence[Image]) -> dict[str, int]:
    tones = [image.tone for image in images]
    return {tone: tones.count(tone) for tone in sorted(set(tones))}


def _validation(
    probes: Probes, held_out: Sequence[tuple[Image, Mask, NDArray[np.int64]]]
) -> dict[str, Any]:
    classes = range(len(probes.classes))
    scores = estimate_classes(
        np.stack([matrix for _, _, matrix in held_out]),
        [patient_key(image) for image, _, _ in held_out],
        np.array([[c in mask.classes for c in classes] for _, mask, _ in held_out]),
        probes.classes,
    )
    return {
        "images": len(held_out),
        "by_tone": count_tones([image for image, _, _ in held_out]),
        "loss": probes.record.validation_loss,
        "calibration": asdict(probes.calibration) if probes.calibration else None,
        "scores": {name: score.to_json() for name, score in scores.items() if score.n},
    }
