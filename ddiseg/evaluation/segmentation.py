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

from annotation_protocol import load_protocol, metrics
from annotation_protocol.estimates import (
    RESAMPLES,
    SEED,
    estimate_classes,
    estimate_classes_by_stratum,
)
from ddiseg import masks
from ddiseg.catalogue.evaluations import Compared
from ddiseg.catalogue.lifecycle import SETTLED
from ddiseg.catalogue.provenance import Provenance, unleaked_predictions
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import InputError
from ddiseg.formats import MASKS, guess_format, load_format
from ddiseg.ingest.mask_files import MaskFile, MaskTargets, class_mask
from ddiseg.ingest.mask_values import FolderValues, OtherSizeError, refusals_of
from ddiseg.outcomes import FileOutcome, Progress, halves, reasons_in_words, silent
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class Truth:
    """The true mask of an image at the photograph's size, and the classes its author could use."""

    image: Image
    mask: NDArray[np.uint8]
    classes: Sequence[int]
    accepted: Mask | None = None  #: the row of an accepted mask


def evaluate(
    workspace: Workspace,
    actor: str,
    *,
    truth: Path | None,
    format_name: str | None = None,
    mapping: dict[int, int] | None = None,
    stretched: bool = False,
    subset: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    refused: list[FileOutcome] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score the newest prediction of each image that has a truth.

    The figures and what was compared are stored; a truth becomes no mask of its image.

    Truths are the mask files under `truth`, or the accepted masks where it is None. A prediction
    by a model that learned from a mask of the same image is never scored: the newest one by
    another model is, or the image is left out and counted. The format of the files is the only one
    that fits where `format_name` is None. Without a mapping the values must be class ids, in all
    files: where one holds another value, nothing is evaluated. Truths that can't be used are added
    to `refused`, by name and reason; the result has both in one text.

    Raises:
        InputError: no such folder or format, or no image is left to score; says why of each.
        NotFoundError: no such subset.
    """
    refused = [] if refused is None else refused
    notes: list[str] = []
    faults: list[tuple[str, InputError]] = []
    if truth is not None:
        format_name = format_name or guess_format(truth, MASKS)
        files = list(load_format(MASKS, format_name)(truth))
        targets = MaskTargets.read(workspace)
        source = str(truth)
        if mapping is None:
            values = FolderValues.read(files, halves(progress)[0])
            if not values.are_class_ids:
                refused += values.refuse(files, targets.of)
                raise InputError(_nothing_to_evaluate(source, refused, 0, (), 0))
            notes = values.notes
        truths = _from_files(targets, files, mapping, stretched, faults)
    else:
        truths = _from_accepted(workspace)
        source = "accepted masks"
    wanted = None if subset is None else workspace.catalogue.subsets.members(subset)
    lineage = Provenance(workspace.catalogue.masks.all())
    choices = unleaked_predictions(workspace.catalogue, lineage)
    names = load_protocol().class_names
    confusions, images, valid = [], [], []
    compared: list[Compared] = []
    models: Counter[str] = Counter()
    learned, outside = 0, 0
    unpredicted: list[Image] = []
    drawn_over = 0
    for done, item in enumerate(truths, 1):
        progress(done, done)
        if wanted is not None and item.image.id not in wanted:
            outside += 1
            continue
        prediction, model, tainted = choices.get(item.image.id, (None, "", False))
        if prediction is None:
            learned += tainted
            unpredicted += [] if tainted else [item.image]
            continue
        painted = workspace.mask_over(item.image, prediction)
        confusions.append(metrics.confusion(item.mask, painted, len(names)))
        valid.append([index in item.classes for index in range(len(names))])
        images.append(item.image)
        models[model] += 1
        version = prediction.model_version_id
        if item.accepted is not None and version is not None:
            drawn_over += lineage.prediction_under(item.accepted, version) is not None
        truth_hash, iou = workspace.store_mask(item.mask), _lesion_iou(confusions[-1], item)
        compared.append(Compared(item.image.id, prediction.id, truth_hash, iou))
    refused += refusals_of(faults)
    if not images:
        raise InputError(_nothing_to_evaluate(source, refused, learned, unpredicted, outside))
    scored = np.stack(confusions), [i.patient or f"image {i.id}" for i in images]
    usable = np.array(valid)
    shown = {name for index, name in enumerate(names) if usable[:, index].any()}
    overall = estimate_classes(*scored, usable, names, resamples=resamples, seed=seed)
    by_tone = estimate_classes_by_stratum(
        *scored, usable, [i.tone for i in images], names, resamples=resamples, seed=seed
    )
    result: dict[str, Any] = {
        "truth": source,
        "format": format_name if truth is not None else None,
        "subset": subset,
        "models": dict(models),
        "n_images": len(images),
        "patients": len(set(scored[1])),
        "learned_from": learned,
        "without_prediction": len(unpredicted),
        "notes": [*notes, *_notes(workspace, models, drawn_over)],
        "refused": [f"{each.name}: {each.note}" for each in refused],
        "bootstrap": {"over": "patients", "resamples": resamples, "seed": seed},
        "classes": {c: s.to_json() for c, s in overall.items() if c in shown},
        "by_tone": {
            tone: {c: s.to_json() for c, s in scores.items() if c in shown}
            for tone, scores in by_tone.items()
        },
    }
    workspace.catalogue.evaluations.add(result, compared, actor)
    return result


def _notes(workspace: Workspace, models: Counter[str], drawn_over: int) -> list[str]:
    """What a reader of the figures must know: whose predictions they are, and what flatters them."""
    notes = []
    current = _in_use(workspace)
    others = {name: n for name, n in models.items() if name != current}
    if current and others:
        named = ", ".join(f"{name} ({n})" for name, n in others.items())
        notes.append(
            f"{sum(others.values())} of {models.total()} images are scored with a prediction of "
            f"another version, {named}: {current}, in use, learned from them or has not predicted them"
        )
    if drawn_over:
        notes.append(
            f"{drawn_over} of {models.total()} accepted masks were drawn over the very prediction that "
            "they are compared with, which flatters it: masks drawn without sight of it "
            "(ddiseg label push --control), or --truth, say more"
        )
    return notes


def _in_use(workspace: Workspace) -> str | None:
    version = workspace.catalogue.models.current_or_none()
    return version.name if version else None


def _nothing_to_evaluate(
    source: str,
    refused: Sequence[FileOutcome],
    learned: int,
    unpredicted: Sequence[Image],
    outside: int,
) -> str:
    """Say why no truth could be scored, and what to do about each reason."""
    total = len(refused) + learned + len(unpredicted) + outside
    if not total:
        return f"nothing to evaluate: there are no {source}; import some, or give --truth"
    reasons = []
    if refused:
        reasons.append(f"refused: {reasons_in_words(refused, 'truths')}")
    if learned:
        reasons.append(
            f"{learned} are of images that the model learned from: give --truth masks of other images"
        )
    if unpredicted:
        states = sorted({image.state for image in unpredicted})
        # Settled images have predictions only where they are asked for by their state.
        flags = "".join(f" --state {s}" for s in states) if set(states) & set(SETTLED) else ""
        reasons.append(
            f"{len(unpredicted)} are of images without a prediction: run 'ddiseg prelabel{flags}'"
        )
    if outside:
        reasons.append(f"{outside} are of images outside the subset")
    return f"nothing to evaluate of {total} truths ({source}): " + "; ".join(reasons)


def _from_files(
    targets: MaskTargets,
    files: Sequence[MaskFile],
    mapping: dict[int, int] | None,
    stretched: bool,
    faults: list[tuple[str, InputError]],
) -> Iterator[Truth]:
    found: dict[int, str] = {}
    for file in files:
        try:
            image = targets.of(file)
            mask = class_mask(file, mapping)
            (height, width), photograph = mask.shape, (image.height, image.width)
            if (height, width) != photograph and not (file.stretched or stretched):
                raise OtherSizeError((height, width), photograph)
        except InputError as error:
            faults.append((file.name, error))
            continue
        digest = masks.mask_hash(mask)
        if image.id in found:
            if found[image.id] != digest:
                why = "another truth for the same image than the first"
                faults.append((file.name, InputError(why)))
            continue
        found[image.id] = digest
        classes = file.classes if mapping is None else sorted(set(mapping.values()))
        yield Truth(image, masks.stretch(mask, (image.height, image.width)), classes)


def _from_accepted(workspace: Workspace) -> Iterator[Truth]:
    accepted = workspace.catalogue.masks.accepted()
    for image in workspace.catalogue.images.select(ids=list(accepted)):
        mask = accepted[image.id]
        yield Truth(image, workspace.mask_over(image, mask), mask.classes, mask)


def _lesion_iou(confusion: NDArray[np.int64], truth: Truth) -> float | None:
    """None where neither mask shows a lesion, or the author of the truth could not."""
    lesion = load_protocol().class_named("lesion").index
    iou = float(metrics.iou_per_class(confusion)[lesion])
    return None if math.isnan(iou) or lesion not in truth.classes else iou
