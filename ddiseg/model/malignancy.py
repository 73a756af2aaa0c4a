"""Malignancy: estimate how likely images are malignant, and score the estimates.

Everything here is research output, not a diagnosis. It is never shown to annotators: the word
"malignant" would bias their masks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UserError
from annotation_protocol.estimates import METHOD
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.catalogue import ModelKind, NewEstimate
from ddiseg.catalogue.malignancy import DISCLAIMER
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.compute.job import Refused
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.errors import InputError
from ddiseg.model.backbones import Backbones, say_precision
from ddiseg.model.clinical import answers_for, clinical_for
from ddiseg.model.cluster_backbone import ClusterBackbone, Net, backbone_for
from ddiseg.model.photographs import in_order, open_photograph, reason, sources
from ddiseg.model.prediction_writer import SECONDS, TRANSACTION
from ddiseg.model.storage import model_file
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from fedd.features import prepare
from fedd.malignancy.colours import colour_numbers
from fedd.malignancy.covariates import Answers, ClinicalTable, imputed_in_words
from fedd.malignancy.discrimination import ABOVE_HALF, discrimination_by_tone, paper_threshold
from fedd.malignancy.linear import LinearClassifier, Reader
from fedd.malignancy.stored import Classifier, load_classifier, probability
from fedd.pipeline import Summary, summaries
from fedd.prefetch import default_workers

logger = logging.getLogger(__name__)


def prelabel_malignancy(
    workspace: Workspace,
    images: Sequence[Image],
    progress: Progress = silent,
    *,
    clinical: ClinicalTable | None = None,
    device: str = "cpu",
    precision: str = "float32",
    cluster: Cluster | None = None,
) -> tuple[ModelVersion, list[FileOutcome]]:
    """Store probabilities of malignancy by the current model; images that have one are unchanged.

    The backbone runs on `device` ("auto": all GPUs, or the CPU). Nothing else about an image
    changes. A stopped run loses at most the last few.

    Args:
        clinical: the table of the answers that the model reads, if it reads any; missing ones are
            replaced with the training images' mean, and counted in the log.

    Raises:
        InputError: a model with covariates and no table of them, or a table without one of them.
    """
    version = workspace.catalogue.models.current(ModelKind.MALIGNANCY)
    classifier, net = load_classifier_version(workspace, version, device, precision, cluster)
    asked = clinical_for(version.name, classifier, clinical)
    estimated = workspace.catalogue.malignancy.estimated_by(version.id)
    todo = list({image.id: image for image in images if image.id not in estimated}.values())
    if todo:
        say_precision(version.name, version.classifier_training.precision, net)
    answers = answers_for(asked, todo)
    _say_imputed(classifier, list(answers.values()))
    stored: dict[int, Outcome] = {}
    refused: dict[int, str] = {}
    waiting: dict[int, NDArray[np.float32]] = {}
    begun = time.monotonic()
    with closing(features_of(workspace, net, todo, classifier.settings)) as found:
        for done, (image, each) in enumerate(found, start=1):
            if isinstance(each, Refused):
                refused[image.id] = each.reason
            else:
                waiting[image.id] = each
            late = time.monotonic() - begun >= SECONDS
            if late or len(waiting) >= TRANSACTION or done == len(todo):
                stored |= _store_estimates(workspace, version, classifier, waiting, answers)
                waiting, begun = {}, time.monotonic()
            progress(done, len(todo))
    return version, in_order(images, stored, refused)


def evaluate_malignancy(
    workspace: Workspace,
    actor: str,
    *,
    subset: str | None = None,
    as_paper: bool = False,
    clinical: ClinicalTable | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Return the scores of the current model, overall and by tone, and store them as an event.

    Only images of known malignancy count, and none that shares a group with a training image. With
    `as_paper` F1 is at the paper's threshold, chosen on these same images, and accuracy at 0.5.

    Of a model of the recipe "ours", "beside" has what colour alone and the clinical answers alone reach
    on the same images; where a photograph can't be read, "not_beside" says why there is none.

    Raises:
        InputError: there is no such image, or the model reads clinical answers and `clinical` is not
            their table.
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
    scores = scores_by_tone(scored, groups.keys(scored), np.array(values), *at)
    beside = _beside(workspace, version, scored, groups, clinical, progress)
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
        **beside,
    }
    workspace.catalogue.events.record("malignancy-evaluation", actor, result)
    return result


def load_classifier_version(
    workspace: Workspace,
    version: ModelVersion,
    device: str = "cpu",
    precision: str = "float32",
    cluster: Cluster | None = None,
) -> tuple[Classifier, Net]:
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


def features_of(
    workspace: Workspace, net: Net, images: Sequence[Image], wanted: Summary
) -> Generator[tuple[Image, NDArray[np.float32] | Refused], None, None]:
    """Yield each image with its features (F,), or why it can't be read; a cluster in any order."""
    if isinstance(net, ClusterBackbone):
        yield from net.summaries(images, wanted)
        return
    with closing(summaries(net, sources(workspace, images), wanted)) as found:
        for each in found:
            if each.features is None:
                yield each.key, Refused(reason(each.key, each.error))
            else:
                yield each.key, each.features


def auc_by_tone(
    images: Sequence[Image], groups: Sequence[str], probabilities: NDArray[np.float64]
) -> dict[str, dict[str, Any]]:
    """Return the ROC-AUC on images of known malignancy as JSON, "all" first, then by tone."""
    found = scores_by_tone(images, groups, probabilities, 0.5)
    left = ("threshold", "f1", "f1_ci95", "accuracy", "accuracy_ci95")
    return {
        tone: {key: value for key, value in of.items() if key not in left}
        for tone, of in found.items()
    }


def scores_by_tone(
    images: Sequence[Image],
    groups: Sequence[str],
    probabilities: NDArray[np.float64],
    threshold: float,
    accuracy_threshold: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Return scores on images of known malignancy as JSON, "all" first, then by tone."""
    found = discrimination_by_tone(
        np.array([bool(image.malignant) for image in images]),
        probabilities,
        groups,
        [image.tone for image in images],
        threshold,
        accuracy_threshold,
    )
    return {tone: figures.to_json() for tone, figures in found.items()}


def _store_estimates(
    workspace: Workspace,
    version: ModelVersion,
    classifier: Classifier,
    found: Mapping[int, NDArray[np.float32]],
    answers: Mapping[int, Answers],
) -> dict[int, Outcome]:
    """Store the probabilities of images with these features (F,), by image id."""
    if not found:
        return {}
    estimates = [
        NewEstimate(image_id, version.id, probability(classifier, row, answers.get(image_id)))
        for image_id, row in found.items()
    ]
    return dict(zip(found, workspace.catalogue.malignancy.add(estimates), strict=True))


def _say_imputed(classifier: Classifier, answers: Sequence[Answers]) -> None:
    """Log how many answers are missing that a classifier reads."""
    if isinstance(classifier, LinearClassifier):
        missing = classifier.encoder.imputed(answers)
        if line := imputed_in_words(missing, len(answers)):
            logger.info(line)


def _beside(
    workspace: Workspace,
    version: ModelVersion,
    images: Sequence[Image],
    groups: Groups,
    clinical: ClinicalTable | None,
    progress: Progress,
) -> dict[str, Any]:
    """Return what colour alone and the clinical answers alone reach on images; nothing of the paper's recipe."""
    with model_file(workspace, version) as path:
        classifier = load_classifier(path)
    asked = clinical_for(version.name, classifier, clinical)
    if not isinstance(classifier, LinearClassifier):
        return {}
    answers = list(answers_for(asked, images).values())
    _say_imputed(classifier, answers)
    size = Backbones(workspace).get(version.backbone, "cpu").image_size
    try:
        colours = _colours(workspace, images, size, progress)
    except UserError as error:
        return {"beside": {}, "not_beside": f"no figures of colour alone: {error}"}
    keys = groups.keys(images)
    return {
        "beside": {
            reader.value: auc_by_tone(
                images, keys, classifier.probabilities(colours, answers, reader)
            )
            for reader in classifier.models
            if reader is not Reader.ALL
        },
        "imputed": classifier.encoder.imputed(answers),
    }


def _colours(
    workspace: Workspace, images: Sequence[Image], size: int, progress: Progress
) -> NDArray[np.float32]:
    """Return the colour numbers of images, (N, 27); raises UserError where one can't be read."""

    def read(image: Image) -> NDArray[np.float32]:
        prepared = prepare(open_photograph(workspace, image), size)
        return colour_numbers(prepared[None])[0].numpy()

    found = []
    with ThreadPoolExecutor(default_workers()) as threads:
        for done, each in enumerate(threads.map(read, images), start=1):
            found.append(each)
            progress(done, len(images))
    return np.stack(found)
