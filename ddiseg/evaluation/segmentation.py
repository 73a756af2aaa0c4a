"""Evaluation of predictions against true masks: IoU and Dice by class and tone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from annotation_protocol.estimates import METHOD, estimate_classes, estimate_classes_by_stratum
from ddiseg import masks
from ddiseg.catalogue.evaluations import Compared
from ddiseg.catalogue.lifecycle import SETTLED
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.errors import InputError
from ddiseg.evaluation.comparison import ComparedMasks, compare_on
from ddiseg.evaluation.partial_masks import PartialMasks
from ddiseg.formats import MASKS, guess_format, load_format
from ddiseg.ingest.class_values import class_mask, classes_of, keeps_class_ids
from ddiseg.ingest.mask_files import MaskFile, read_files
from ddiseg.ingest.mask_targets import MaskTargets, find_targets
from ddiseg.ingest.mask_values import FolderValues, refusals_of
from ddiseg.ingest.placement import AS_THEY_ARE, Geometry, Placement
from ddiseg.outcomes import (
    FileOutcome,
    Progress,
    counted,
    halves,
    one_file,
    reasons_in_words,
    silent,
)
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class Truth:
    """The true mask of an image, at the photograph's size, with the classes its author could use."""

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
    suffixes: Sequence[str] = (),
    geometry: Geometry = AS_THEY_ARE,
    subset: str | None = None,
    refused: list[FileOutcome] | None = None,
    progress: Progress = silent,
    cluster: Cluster | None = None,
) -> dict[str, Any]:
    """Evaluate the newest prediction of each image that has a truth; store and return the result.

    A prediction by a model that was trained on a mask of the same image, or of another image of its
    group, is never used: the newest one by another model is, or the image is left out and counted. A truth does not become a mask of
    its image.

    Args:
        workspace: holds the images and predictions.
        actor: who evaluates.
        truth: folder of mask files; None for the accepted masks.
        format_name: format of the files; None for the only one that fits.
        mapping: class ids by value; without it all values of all files must be class ids, or nothing
            is evaluated.
        suffixes: what the names of the files may end in besides the photograph's.
        geometry: how the truths were drawn on their photographs.
        subset: only images of this subset.
        refused: receives the truths that can't be used, by name and reason.
        progress: called with truths done.
        cluster: its workers read the predictions, and compare them with the truths.

    Returns:
        An `EvaluationRecord` as JSON.

    Raises:
        InputError: no such folder or format, or no image is left to score; says why of each.
        NotFoundError: no such subset.
    """
    refused = [] if refused is None else refused
    notes: list[str] = []
    faults: list[tuple[str, InputError]] = []
    if truth is not None:
        format_name = format_name or guess_format(truth, MASKS)
        files, notes = read_files(load_format(MASKS, format_name), truth)
        targets = find_targets(workspace, files, suffixes)
        source = str(truth)
        if keeps_class_ids(mapping):
            values = FolderValues.read(files, halves(progress)[0], mapping)
            if not values.are_class_ids:
                refused += values.refuse(files, targets.of)
                raise InputError(_nothing_to_evaluate(source, refused, 0, (), 0))
            notes += values.notes
        orientations = workspace.catalogue.sources.orientations(targets.image_ids)
        placements = partial(Placement.of, orientations=orientations, geometry=geometry)
        truths = _from_files(targets, files, mapping, placements, faults)
    else:
        truths = _from_accepted(workspace)
        source = "accepted masks"
    wanted = None if subset is None else workspace.catalogue.subsets.members(subset)
    provenance = workspace.catalogue.provenance
    groups = Groups.read(workspace.catalogue)
    choices = provenance.unleaked_predictions()
    learned = provenance.images_learned()
    version_names = {version.id: version.name for version in workspace.catalogue.models.all()}
    names = load_protocol().class_names
    confusions, images, valid = [], [], []
    compared: list[ComparedMasks] = []
    predictions: list[Mask] = []
    models: Counter[str] = Counter()
    trained_on, same_group, outside = 0, 0, 0
    unpredicted: list[Image] = []
    accepted: dict[int, list[int]] = defaultdict(list)  # mask ids, by the version compared with
    partial_masks = PartialMasks()
    for done, item in enumerate(truths, 1):
        progress(done, done)
        if wanted is not None and item.image.id not in wanted:
            outside += 1
            continue
        choice = choices.get(item.image.id)
        if choice is None:
            leaked = item.image.id in choices
            trained_on += leaked and item.image.id in learned
            same_group += leaked and item.image.id not in learned
            unpredicted += [] if leaked else [item.image]
            continue
        prediction = workspace.catalogue.masks.get([choice.mask_id])[choice.mask_id]
        if cluster is None:
            predicted = workspace.mask_over(item.image, prediction)
            confusions.append(metrics.confusion(item.mask, predicted, len(names)))
        partial_masks.count(item.mask)
        defined = partial_masks.defines_overlaps(item.image.id, item.mask)
        valid.append([defined and index in item.classes for index in range(len(names))])
        images.append(item.image)
        models[version_names[choice.model_version_id]] += 1
        if item.accepted is not None:
            accepted[choice.model_version_id].append(item.accepted.id)
        truth_hash, size = workspace.store_mask(item.mask), (item.image.height, item.image.width)
        compared.append(ComparedMasks(item.image.name, truth_hash, prediction.content_hash, size))
        predictions.append(prediction)
    refused += refusals_of(faults)
    if not images:
        left_out = trained_on + same_group
        raise InputError(_nothing_to_evaluate(source, refused, left_out, unpredicted, outside))
    drawn_over = sum(
        len(provenance.predictions_under(masks, version)) for version, masks in accepted.items()
    )
    if cluster is not None:
        confusions = compare_on(cluster, workspace.store, compared, progress)
    keys = groups.keys(images)
    arrays = np.stack(confusions), keys, np.array(valid)
    shown = {name for index, name in enumerate(names) if arrays[2][:, index].any()}
    overall = estimate_classes(*arrays, names)
    by_tone = estimate_classes_by_stratum(*arrays, [i.tone for i in images], names)
    result: dict[str, Any] = {
        "truth": source,
        "format": format_name if truth is not None else None,
        "subset": subset,
        "models": dict(models),
        "n_images": len(images),
        "patients": len(set(keys)),
        "learned_from": trained_on,
        "same_group": same_group,
        "without_prediction": len(unpredicted),
        "notes": [*notes, *_notes(workspace, models, drawn_over), *partial_masks.notes()],
        "refused": [f"{each.name}: {each.note}" for each in refused],
        "intervals": METHOD,
        "classes": {c: e.to_json() for c, e in overall.items() if c in shown},
        "by_tone": {
            tone: {c: e.to_json() for c, e in estimates.items() if c in shown}
            for tone, estimates in by_tone.items()
        },
    }
    scored = [
        Compared(prediction.image_id, prediction.id, pair.truth, _lesion_iou(confusion, of))
        for prediction, pair, confusion, of in zip(
            predictions, compared, confusions, valid, strict=True
        )
    ]
    workspace.catalogue.evaluations.add(result, scored, actor)
    return result


def _notes(workspace: Workspace, models: Counter[str], drawn_over: int) -> list[str]:
    """Return notes on predictions by other models, and on masks drawn over their prediction."""
    notes = []
    version = workspace.catalogue.models.current_or_none()
    current = version.name if version else None
    others = {name: n for name, n in models.items() if name != current}
    if current and others:
        named = ", ".join(f"{name} ({n})" for name, n in others.items())
        notes.append(
            f"{sum(others.values())} of {counted(models.total(), 'image')} are evaluated with a prediction of "
            f"another version, {named}: the current {current} was trained on them or has not predicted them"
        )
    if drawn_over:
        notes.append(
            f"{drawn_over} of {counted(models.total(), 'accepted mask')} were drawn over the same prediction that "
            "they are compared with, which favours it: masks drawn with the prediction withheld "
            "(ddiseg label push --control), or --truth, are a better test"
        )
    return notes


def _nothing_to_evaluate(
    source: str,
    refused: Sequence[FileOutcome],
    trained_on: int,
    unpredicted: Sequence[Image],
    outside: int,
) -> str:
    """Return why no truth could be used, and what to do about each reason."""
    total = len(refused) + trained_on + len(unpredicted) + outside
    if not total:
        return f"nothing to evaluate: there are no {source}; import some, or give --truth"
    reasons = []
    if refused:
        reasons.append(f"refused: {reasons_in_words(refused, 'truths')}")
    if trained_on:
        reasons.append(
            f"{trained_on} are of images that the model was trained on, or of their groups (patient, lesion, "
            "near-duplicates): give --truth masks of other images"
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
    return f"nothing to evaluate of {counted(total, 'truth')} ({source}): " + "; ".join(reasons)


def _from_files(
    targets: MaskTargets,
    files: Sequence[MaskFile],
    mapping: dict[int, int] | None,
    placement: Callable[[MaskFile, Image], Placement],
    faults: list[tuple[str, InputError]],
) -> Iterator[Truth]:
    found: dict[int, str] = {}
    for file in files:
        try:
            with one_file():
                image = targets.of(file)
                mask, _ = placement(file, image).place(class_mask(file, mapping))
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
        classes = classes_of(file, mapping)
        yield Truth(image, masks.stretch(mask, (image.height, image.width)), classes)


def _from_accepted(workspace: Workspace) -> Iterator[Truth]:
    accepted = workspace.catalogue.masks.accepted()
    for image in workspace.catalogue.images.select(ids=list(accepted)):
        mask = accepted[image.id]
        yield Truth(image, workspace.mask_over(image, mask), mask.classes, mask)


def _lesion_iou(confusion: NDArray[np.int64], valid: Sequence[bool]) -> float | None:
    """Return the IoU; None where neither mask has a lesion, or the truth does not define it."""
    lesion = load_protocol().class_named("lesion").index
    iou = float(metrics.iou_per_class(confusion)[lesion])
    return None if math.isnan(iou) or not valid[lesion] else iou
