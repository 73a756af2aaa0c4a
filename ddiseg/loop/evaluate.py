"""Predictions against true masks: IoU and Dice by class and tone, each with n and interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, scoring
from ddiseg import masks
from ddiseg.catalogue.evaluations import Compared
from ddiseg.catalogue.models import Image
from ddiseg.errors import InputError
from ddiseg.formats import MASKS, load_format
from ddiseg.ingest.mask_files import MaskTargets, class_mask, size_mismatch
from ddiseg.loop.lineage import honest_predictions
from ddiseg.outcomes import Progress, silent
from ddiseg.workspace import Workspace


@dataclass(frozen=True)
class Truth:
    """The true mask of an image at the photograph's size, and the classes its author could use."""

    image: Image
    mask: NDArray[np.uint8]
    classes: Sequence[int]


def evaluate(
    workspace: Workspace,
    actor: str,
    *,
    truth: Path | None,
    format_name: str = "png",
    mapping: dict[int, int] | None = None,
    stretched: bool = False,
    subset: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score the newest prediction of each image that has a truth.

    The figures and what was compared are stored; a truth becomes no mask of its image.

    Truths are the mask files under `truth`, or the accepted masks where it is None. A prediction
    by a model that learned from a mask of the same image is never scored: the newest one by
    another model is, or the image is left out and counted.
    """
    refused: list[str] = []
    if truth is not None:
        truths = _from_files(workspace, truth, format_name, mapping, stretched, refused)
        source = str(truth)
    else:
        truths = _from_accepted(workspace)
        source = "accepted masks"
    wanted = None if subset is None else workspace.catalogue.subsets.members(subset)
    choices = honest_predictions(workspace.catalogue)
    names = load_protocol().class_names
    confusions, images, valid = [], [], []
    compared: list[Compared] = []
    models: Counter[str] = Counter()
    learned, unpainted = 0, 0
    for done, item in enumerate(truths, 1):
        progress(done, done)
        if wanted is not None and item.image.id not in wanted:
            continue
        prediction, model, tainted = choices.get(item.image.id, (None, "", False))
        if prediction is None:
            learned, unpainted = learned + tainted, unpainted + (not tainted)
            continue
        painted = workspace.mask_over(item.image, prediction)
        confusions.append(scoring.confusion(item.mask, painted, len(names)))
        valid.append([index in item.classes for index in range(len(names))])
        images.append(item.image)
        models[model] += 1
        truth_hash, iou = workspace.store_mask(item.mask), _lesion_iou(confusions[-1], item)
        compared.append(Compared(item.image.id, prediction.id, truth_hash, iou))
    if not images:
        raise InputError(
            f"nothing to evaluate: {learned} images with a truth were learned from, {unpainted} have no "
            "prediction; run 'ddiseg prelabel', or give --truth masks of other images"
        )
    scored = np.stack(confusions), [i.patient or f"image {i.id}" for i in images]
    usable = np.array(valid)
    shown = {name for index, name in enumerate(names) if usable[:, index].any()}
    overall = scoring.score(*scored, usable, names, resamples=resamples, seed=seed)
    by_tone = scoring.score_by_group(
        *scored, usable, [i.tone for i in images], names, resamples=resamples, seed=seed
    )
    result: dict[str, Any] = {
        "truth": source,
        "subset": subset,
        "models": dict(models),
        "n_images": len(images),
        "patients": len(set(scored[1])),
        "learned_from": learned,
        "without_prediction": unpainted,
        "refused": refused,
        "bootstrap": {"over": "patients", "resamples": resamples, "seed": seed},
        "classes": {c: s.as_dict() for c, s in overall.items() if c in shown},
        "by_tone": {
            tone: {c: s.as_dict() for c, s in scores.items() if c in shown}
            for tone, scores in by_tone.items()
        },
    }
    workspace.catalogue.evaluations.add(result, compared, actor)
    return result


def _from_files(
    workspace: Workspace,
    path: Path,
    format_name: str,
    mapping: dict[int, int] | None,
    stretched: bool,
    refused: list[str],
) -> Iterator[Truth]:
    images = MaskTargets.read(workspace)
    found: dict[int, str] = {}
    for file in load_format(MASKS, format_name)(path):
        try:
            image = images.of(file)
            mask = class_mask(file, mapping)
            if mask.shape != (image.height, image.width) and not (file.stretched or stretched):
                raise InputError(size_mismatch(mask, image))
        except InputError as error:
            refused.append(f"{file.name}: {error}")
            continue
        digest = masks.mask_hash(mask)
        if image.id in found:
            if found[image.id] != digest:
                refused.append(f"{file.name}: another truth for {image.name} than the first")
            continue
        found[image.id] = digest
        classes = file.classes if mapping is None else sorted(set(mapping.values()))
        yield Truth(image, masks.stretch(mask, (image.height, image.width)), classes)


def _from_accepted(workspace: Workspace) -> Iterator[Truth]:
    accepted = workspace.catalogue.masks.accepted()
    for image in workspace.catalogue.images.select(ids=list(accepted)):
        mask = accepted[image.id]
        yield Truth(image, workspace.mask_over(image, mask), mask.classes)


def _lesion_iou(confusion: NDArray[np.int64], truth: Truth) -> float | None:
    """None where neither mask shows a lesion, or the author of the truth could not."""
    lesion = load_protocol().class_named("lesion").index
    iou = float(scoring.iou_per_class(confusion)[lesion])
    return None if math.isnan(iou) or lesion not in truth.classes else iou
