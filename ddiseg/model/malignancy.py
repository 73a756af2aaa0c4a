"""Malignancy: train a classifier on images of known malignancy, estimate and evaluate others.

Everything here is research output, not a diagnosis. It is never shown to annotators: the word
"malignant" would bias their masks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from annotation_protocol.estimates import METHOD
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.catalogue import ModelKind, NewEstimate, NewModelVersion, State
from ddiseg.catalogue.malignancy import DISCLAIMER
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.compute.job import Refused
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.model.backbones import Backbones, say_precision
from ddiseg.model.cluster_backbone import ClusterBackbone, Net, backbone_for
from ddiseg.model.photographs import in_order, reason, sources
from ddiseg.model.prediction_writer import SECONDS, TRANSACTION
from ddiseg.model.storage import (
    model_file,
    recorded_backbone,
    store_model,
)
from ddiseg.outcomes import FileOutcome, Outcome, Progress, Stages, silent, silent_stages, track
from ddiseg.sampling.groups import Groups
from ddiseg.sampling.subsets import RESERVED
from ddiseg.workspace.store import Kind
from ddiseg.workspace.stored_files import is_intact
from ddiseg.workspace.workspace import Workspace
from fedd.malignancy.classifier import (
    ClassifierSettings,
    Examples,
    MalignancyClassifier,
    default_settings,
    load_classifier,
    train_classifier,
)
from fedd.malignancy.discrimination import ABOVE_HALF, discrimination_by_tone, paper_threshold
from fedd.pipeline import features
from fedd.precision import AUTO
from fedd.validation import stratified_validation
from fedd.weights.names import SHIPPED

#: A test set that is never learned from: results on it are for the paper's table.
PAPER_TEST = f"{RESERVED}-test"


@dataclass(frozen=True)
class RefreshedMalignancy:
    """The outcome of a refresh."""

    version: ModelVersion
    new: bool  #: False where the same training had made this version before
    left_out: dict[str, int]  #: images that were not learned from, by reason


def refresh_malignancy(
    workspace: Workspace,
    actor: str,
    backbone: str = SHIPPED,
    seed: int = 0,
    settings: ClassifierSettings | None = None,
    exclude: Sequence[str] = (),
    stages: Stages = silent_stages,
    *,
    device: str = "cpu",
    precision: str = "float32",
    cluster: Cluster | None = None,
) -> RefreshedMalignancy:
    """Train a classifier on the images of known malignancy and record it as a new model version.

    Images of the subsets `exclude` and of the paper's test set, if it is drawn, are not learned from,
    nor are other images of their groups (patient, lesion, near-duplicates): they can be tested on
    later. Of the rest, a validation split that shares no group with the training split ends the
    training and sets the threshold. The same images, backbone and settings as those of the current
    model change nothing.

    Args:
        device: where the backbone runs; "auto" is all GPUs, or the CPU.
        precision: of the backbone, as `Backbones.get` takes it.
        cluster: its workers do the passes through the backbone.

    Raises:
        InputError: there are not both malignant and benign images, the weights do not fit, or there
            is no such device.
        NotFoundError: an unknown subset.
        WorkspaceError: a photograph can't be read.
    """
    groups = Groups.read(workspace.catalogue)
    images, left_out = _learnable(workspace, groups, exclude)
    net = backbone_for(workspace, backbone, device, precision, Backbones(workspace), cluster)
    settings = replace(settings or default_settings(net.config, len(images)), seed=seed)
    settings.check_block(net)
    keys = groups.keys(images)
    malignant = np.array([bool(image.malignant) for image in images])
    tones = [image.tone for image in images]
    in_validation = stratified_validation(
        malignant.tolist(), tones, keys, settings.validation, seed
    )
    learned = {
        image.content_hash: {"malignant": bool(image.malignant), "validation": bool(validates)}
        for image, validates in zip(images, in_validation, strict=True)
    }
    if (same := _same_version(workspace, net, settings, learned, precision)) is not None:
        return RefreshedMalignancy(same, False, left_out)
    started = time.monotonic()
    by_id: dict[int, NDArray[np.float32]] = {}
    with closing(_pooled(workspace, net, images, settings)) as found:
        for _, (image, each) in zip(
            track(images, stages("Photographs through the backbone")), found, strict=True
        ):
            if isinstance(each, Refused):
                raise WorkspaceError(f"{image.name}: {each.reason}")
            by_id[image.id] = each
    rows = [by_id[image.id] for image in images]
    examples = Examples(torch.from_numpy(np.stack(rows)), malignant)
    done = train_classifier(
        examples.part(~in_validation),
        examples.part(in_validation),
        net,
        settings,
        stages("Training, epochs"),
    )
    digest = store_model(workspace, done.classifier.save)
    scores = _scores(
        [image for image, validates in zip(images, in_validation, strict=True) if validates],
        [key for key, validates in zip(keys, in_validation, strict=True) if validates],
        done.classifier.probabilities(examples.part(in_validation).features).tolist(),
        done.classifier.threshold,
    )
    version = workspace.catalogue.models.add(
        NewModelVersion(
            file_hash=digest,
            backbone=recorded_backbone(backbone),
            backbone_hash=net.hash,
            settings=settings.to_dict(),
            training_masks=[],
            metrics={
                "note": DISCLAIMER,
                "seconds": round(time.monotonic() - started, 1),
                "images": len(images),
                "malignant": int(malignant.sum()),
                "validation": int(in_validation.sum()),
                "by_tone": dict(sorted(Counter(tones).items())),
                "left_out": left_out,
                "epochs": done.epochs,
                "best_epoch": done.best_epoch,
                "threshold": done.classifier.threshold,
                "precision": net.precision,
                "on_its_validation_images": scores,
            },
            protocol_version=load_protocol().version,
            kind=ModelKind.MALIGNANCY,
            training_images=learned,
        ),
        actor,
    )
    return RefreshedMalignancy(version, True, left_out)


def prelabel_malignancy(
    workspace: Workspace,
    images: Sequence[Image],
    progress: Progress = silent,
    *,
    device: str = "cpu",
    precision: str = "float32",
    cluster: Cluster | None = None,
) -> tuple[ModelVersion, list[FileOutcome]]:
    """Store probabilities of malignancy by the current model; images that have one are unchanged.

    The backbone runs on `device` ("auto": all GPUs, or the CPU). Nothing else about an image
    changes. A stopped run loses at most the last few.
    """
    version = workspace.catalogue.models.current(ModelKind.MALIGNANCY)
    classifier, net = load_classifier_version(workspace, version, device, precision, cluster)
    estimated = workspace.catalogue.malignancy.estimated_by(version.id)
    todo = list({image.id: image for image in images if image.id not in estimated}.values())
    if todo:
        say_precision(version.name, version.classifier_training.precision, net)
    stored: dict[int, Outcome] = {}
    refused: dict[int, str] = {}
    waiting: dict[int, NDArray[np.float32]] = {}
    begun = time.monotonic()
    with closing(_pooled(workspace, net, todo, classifier.settings)) as found:
        for done, (image, each) in enumerate(found, start=1):
            if isinstance(each, Refused):
                refused[image.id] = each.reason
            else:
                waiting[image.id] = each
            late = time.monotonic() - begun >= SECONDS
            if late or len(waiting) >= TRANSACTION or done == len(todo):
                stored |= _store_estimates(workspace, version, classifier, waiting)
                waiting, begun = {}, time.monotonic()
            progress(done, len(todo))
    return version, in_order(images, stored, refused)


def _pooled(
    workspace: Workspace, net: Net, images: Sequence[Image], settings: ClassifierSettings
) -> Generator[tuple[Image, NDArray[np.float32] | Refused], None, None]:
    """Yield each image with its features (F,), or why it can't be read; a cluster in any order."""
    at = (settings.timestep, settings.block)
    if isinstance(net, ClusterBackbone):
        yield from net.pooled(images, *at)
        return
    with closing(features(net, sources(workspace, images), at[0], at[1:])) as found:
        for each in found:
            if each.features is None:
                yield each.key, Refused(reason(each.key, each.error))
            else:
                yield each.key, each.features[0]


def _store_estimates(
    workspace: Workspace,
    version: ModelVersion,
    classifier: MalignancyClassifier,
    found: Mapping[int, NDArray[np.float32]],
) -> dict[int, Outcome]:
    """Store the probabilities of images with these features (F,), by image id."""
    if not found:
        return {}
    # One by one: sums are rounded differently in batches of other sizes.
    estimates = [
        NewEstimate(
            image_id, version.id, classifier.probabilities(torch.from_numpy(row[None])).item()
        )
        for image_id, row in found.items()
    ]
    return dict(zip(found, workspace.catalogue.malignancy.add(estimates), strict=True))


def evaluate_malignancy(
    workspace: Workspace,
    actor: str,
    *,
    subset: str | None = None,
    as_paper: bool = False,
) -> dict[str, Any]:
    """Return the scores of the current model, overall and by tone, and store them as an event.

    Only images of known malignancy count, and none that shares a group with a training image. With
    `as_paper` F1 is at the paper's threshold, chosen on these same images, and accuracy at 0.5.

    Raises:
        InputError: there is no such image.
    """
    version = workspace.catalogue.models.current(ModelKind.MALIGNANCY)
    probabilities = workspace.catalogue.malignancy.of_version(version.id)
    groups = Groups.read(workspace.catalogue)
    chosen = workspace.catalogue.images.select(subset=subset)
    learned = workspace.catalogue.hashes.image_ids(version.training_images)
    known = [image for image in chosen if image.malignant is not None]
    seen = groups.sharing((image.id for image in known), learned)
    unseen = [image for image in known if image.id not in seen]
    scored = [image for image in unseen if image.id in probabilities]
    counts = {
        "unknown_malignancy": len(chosen) - len(known),
        "learned_from": sum(image.id in learned for image in known),
        "same_group": len(seen - learned),
        "without_probability": len(unseen) - len(scored),
    }
    if not scored:
        raise InputError(
            f"nothing to evaluate {version.name} on: of {len(chosen)} images, "
            f"{counts['learned_from']} were learned from, {counts['same_group']} are of groups (patient, "
            "lesion, near-duplicates) that were, "
            f"{counts['unknown_malignancy']} are of unknown malignancy, "
            f"{counts['without_probability']} have no probability yet; keep a test set aside with "
            "'ddiseg malignancy train --exclude SUBSET', then run 'ddiseg malignancy predict --subset "
            "SUBSET'"
        )
    values = [probabilities[image.id] for image in scored]
    threshold = float(version.metrics["threshold"])
    if as_paper and len({image.malignant for image in scored}) == 2:
        truth = np.array([bool(image.malignant) for image in scored])
        threshold = paper_threshold(truth, np.array(values))
    at = (threshold, ABOVE_HALF if as_paper else None)
    scores = _scores(scored, groups.keys(scored), values, *at)
    result: dict[str, Any] = {
        "note": DISCLAIMER,
        "model": version.name,
        "subset": subset,
        "n_images": len(scored),
        **counts,
        "threshold": threshold,
        "threshold_chosen_on": "these images for F1, 0.5 for accuracy (the paper's way)"
        if as_paper
        else "validation images",
        "intervals": {**METHOD, "fewest_patients": f"{MIN_GROUPS} of each class"},
        "by_tone": scores,
    }
    workspace.catalogue.events.record("malignancy-evaluation", actor, result)
    return result


def load_classifier_version(
    workspace: Workspace,
    version: ModelVersion,
    device: str = "cpu",
    precision: str = "float32",
    cluster: Cluster | None = None,
) -> tuple[MalignancyClassifier, Net]:
    """Return the classifier of a model version, and its backbone on a device, in a precision.

    Raises:
        WorkspaceError: the stored file was changed.
        FeddError: the weights do not fit.
    """
    with model_file(workspace, version) as path:
        classifier = load_classifier(path)
    backbones = Backbones(workspace)
    net = backbone_for(workspace, version.backbone, device, precision, backbones, cluster)
    classifier.check_backbone(net)
    return classifier, net


def _learnable(
    workspace: Workspace, groups: Groups, exclude: Sequence[str]
) -> tuple[list[Image], dict[str, int]]:
    """Return the images to learn from, ordered by content hash, and how many are left out, by reason."""
    subsets = workspace.catalogue.subsets
    test_sets = sorted({*exclude, *({PAPER_TEST} & set(subsets.names()))})
    excluded = groups.relatives({i for name in test_sets for i in subsets.members(name)})
    images: list[Image] = []
    left_out = Counter({"of unknown malignancy": 0, "skipped": 0, "held out": 0})
    for image in workspace.catalogue.images.select():
        if image.malignant is None:
            left_out["of unknown malignancy"] += 1
        elif image.state == State.SKIPPED:
            left_out["skipped"] += 1
        elif image.id in excluded:
            left_out["held out"] += 1
        else:
            images.append(image)
    if not images:
        why = ", ".join(f"{n} {reason}" for reason, n in left_out.items() if n) or "there are none"
        raise InputError(f"no image of known malignancy to learn from ({why}){_advice(left_out)}")
    return sorted(images, key=lambda image: image.content_hash), dict(left_out)


def _advice(left_out: Mapping[str, int]) -> str:
    """Return how to import what is malignant, where that is missing."""
    if not left_out["of unknown malignancy"]:
        return ""
    return (
        ": import them again and say which diagnoses are malignant ('ddiseg import FOLDER --metadata "
        "CSV --columns image=COLUMN,diagnosis=COLUMN --malignant BCC,MEL,SCC --benign rest'), or name "
        "a column that says it with malignant=COLUMN"
    )


def _same_version(
    workspace: Workspace,
    net: Net,
    settings: ClassifierSettings,
    learned: dict[str, dict[str, bool]],
    precision: str,
) -> ModelVersion | None:
    """Return the current model if exactly this training made it, in this precision if one was asked for."""
    versions = workspace.catalogue.models.all(ModelKind.MALIGNANCY)
    if not versions:
        return None
    newest = versions[-1]
    if precision != AUTO and newest.classifier_training.precision != net.precision:
        return None
    wanted = (net.hash, settings.to_dict(), learned)
    found = (newest.backbone_hash, newest.settings, newest.training_images)
    usable = is_intact(workspace.store, Kind.MODEL, newest.file_hash)
    return newest if found == wanted and usable else None


def _scores(
    images: Sequence[Image],
    patients: Sequence[str],
    probabilities: Sequence[float],
    threshold: float,
    accuracy_threshold: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Return scores on images of known malignancy as JSON, "all" first, then by tone."""
    found = discrimination_by_tone(
        np.array([bool(image.malignant) for image in images]),
        np.array(probabilities),
        patients,
        [image.tone for image in images],
        threshold,
        accuracy_threshold,
    )
    return {tone: figures.to_json() for tone, figures in found.items()}
