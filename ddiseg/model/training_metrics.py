"""What is measured of a training: the validation split's scores, and the embeddings of all images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import metrics
from annotation_protocol.estimates import estimate_classes, estimate_classes_by_stratum
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.model.compare import confusions
from ddiseg.model.passes import embedded_images
from ddiseg.model.performance import ALL
from ddiseg.model.styles import find_styles
from ddiseg.outcomes import Progress, halves, silent, track
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.probes.own_masks import OwnMask
from fedd.segment import Probes


def training_metrics(
    workspace: Workspace,
    probes: Probes,
    net: Backbone,
    pairs: Sequence[tuple[Image, Mask]],
    groups: Groups,
    cache: FeatureCache | None,
    progress: Progress = silent,
) -> tuple[dict[str, Any], dict[int, NDArray[np.float32]]]:
    """Return the stored record of a training, as JSON has it, and the embeddings by image id.

    `validation` is measured on the validation split: images by tone, their content hashes,
    temperature, calibration error, and IoU by class with n and interval; None without a validation
    split. No mask is predicted for the training split: its IoU would be too high. `own_masks` tells what
    decides and how well the expected IoU holds, of predictions by members that did not learn from them;
    `styles` how annotators differ, and `out_of_fold`, without a validation split, IoU by tone and class of
    the same predictions.
    """
    first, second = halves(progress)
    digests: dict[int, str] = {}
    embeddings: dict[int, NDArray[np.float32]] = {}
    images = [image for image, _ in pairs]
    with closing(embedded_images(workspace, probes, net, images, cache)) as found:
        for image, each in zip(track(images, first), found, strict=True):
            embeddings[image.id], digests[image.id] = each
    in_validation = set(probes.record.validation)
    held = [(image, mask) for image, mask in pairs if digests[image.id] in in_validation]
    measured: list[tuple[Image, Sequence[int], NDArray[np.int64]]] = []
    for (image, mask), matrix in zip(
        held, confusions(workspace, probes, net, held, cache, second), strict=True
    ):
        truth = workspace.mask_over(image, mask)
        classes = () if metrics.labels_one_class(truth) else tuple(mask.classes)
        measured.append((image, classes, matrix))
    record: dict[str, Any] = {
        "steps": probes.record.steps,
        "notes": list(probes.record.notes),
        "validation": _validation(probes, measured, groups) if measured else None,
        "calibration": asdict(probes.calibration) if probes.calibration else None,
    }
    if (own := probes.own_masks) is not None:
        of_digest = {each.digest: each for each in own.masks}
        by_image = {i: of_digest[digest] for i, digest in digests.items() if digest in of_digest}
        styles = find_styles(workspace, pairs, groups, by_image)
        record |= {"own_masks": own.to_dict(), "styles": [style.to_json() for style in styles]}
        if not measured:
            record["out_of_fold"] = out_of_fold(probes, pairs, by_image, groups)
    return record, embeddings


def _validation(
    probes: Probes,
    validation: Sequence[tuple[Image, Sequence[int], NDArray[np.int64]]],
    groups: Groups,
) -> dict[str, Any]:
    classes = range(len(probes.classes))
    images = [image for image, _, _ in validation]
    scores = estimate_classes(
        np.stack([matrix for _, _, matrix in validation]),
        groups.keys(images),
        np.array([[c in scored for c in classes] for _, scored, _ in validation]),
        probes.classes,
    )
    return {
        "images": len(validation),
        "by_tone": count_tones(images),
        "members": sorted(image.content_hash for image in images),
        "loss": probes.record.validation_loss,
        "calibration": asdict(probes.calibration) if probes.calibration else None,
        "scores": {name: score.to_json() for name, score in scores.items() if score.n},
    }


def out_of_fold(
    probes: Probes,
    pairs: Sequence[tuple[Image, Mask]],
    by_image: Mapping[int, OwnMask],
    groups: Groups,
) -> dict[str, Any] | None:
    """Return IoU by tone and class of images by members that did not learn from them; None without any."""
    found = [
        (image, mask.classes, own.confusion)
        for image, mask in pairs
        if (own := by_image.get(image.id)) is not None and own.confusion is not None
    ]
    if not found:
        return None
    images = [image for image, _, _ in found]
    matrices, keys = np.stack([matrix for _, _, matrix in found]), groups.keys(images)
    scored = np.array([[c in of for c in range(len(probes.classes))] for _, of, _ in found])
    tones = [image.tone for image in images]
    by_tone = {
        ALL: estimate_classes(matrices, keys, scored, probes.classes),
        **estimate_classes_by_stratum(matrices, keys, scored, tones, probes.classes),
    }
    return {
        "images": len(images),
        "by_tone": count_tones(images),
        "scores": {
            tone: {name: score.to_json() for name, score in scores.items() if score.n}
            for tone, scores in by_tone.items()
        },
    }


def count_tones(images: Sequence[Image]) -> dict[str, int]:
    """Return the number of images of each tone, by name."""
    return dict(sorted(Counter(image.tone for image in images).items()))
