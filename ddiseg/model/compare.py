"""Comparison of a new version with the current model on the hold-out set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from ddiseg.catalogue.provenance import PredictionUnder
from ddiseg.catalogue.tables import Image, Mask, ModelVersion
from ddiseg.evaluation import gate
from ddiseg.evaluation.partial_masks import PartialMasks
from ddiseg.model.backbones import Backbones, load_version_on, say_precision
from ddiseg.model.cluster_backbone import ClusterBackbone, Net
from ddiseg.model.passes import predicted_masks
from ddiseg.model.storage import LostModelError, stored_probes
from ddiseg.outcomes import Progress, halves, silent, track
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.errors import FeddError, UnreadableError
from fedd.segment import Probes


@dataclass(frozen=True)
class CurrentModel:
    """The current model in memory, ready to predict."""

    version: ModelVersion
    probes: Probes
    net: Backbone


def load_current_model(
    workspace: Workspace,
    version: ModelVersion | None,
    net: Net,
    device: str = "cpu",
    backbones: Backbones | None = None,
) -> tuple[CurrentModel | None, str | None]:
    """Return the current model, or the reason why it can't predict; it shares `net` if that fits.

    One with another backbone predicts in the precision of `net` too: the gate compares versions, not
    precisions. A version that is lost, or of another protocol, can't be compared with, and must not keep a new
    one from being promoted.

    Raises:
        WorkspaceError: its file can't be read just now, which is no such reason.
    """
    if version is None:
        return None, None
    protocol = load_protocol()
    if not protocol.has_classes_of(version.protocol_version):
        return None, (
            f"{version.name} learned the classes of protocol {version.protocol_version}, and this "
            f"is protocol {protocol.version}"
        )
    try:
        if version.backbone_hash == net.hash:
            return CurrentModel(version, stored_probes(workspace, version), net), None
        if isinstance(net, ClusterBackbone):
            other = net.other(version.backbone, backbones or Backbones(workspace))
            probes = stored_probes(workspace, version)
            probes.check_backbone(other)
            return CurrentModel(version, probes, other), None
        found = load_version_on(workspace, version, device, net.precision, backbones)
        return CurrentModel(version, *found), None
    except UnreadableError:
        raise
    except (LostModelError, FeddError) as error:
        return None, f"{version.name}: {error}"


def compare_on_holdout(
    workspace: Workspace,
    probes: Probes,
    net: Backbone,
    current: CurrentModel | None,
    holdout: Sequence[tuple[Image, Mask]],
    max_drop: float,
    *,
    groups: Groups,
    learned: Collection[int],
    cache: FeatureCache | None,
    unusable: str | None,
    progress: Progress = silent,
) -> gate.GateDecision:
    """Return the gate's decision on new probes, by hold-out images and their accepted masks.

    A hold-out image is left out where either model learned from another image of its group, which
    ids that were corrected later may have joined, or where one class alone of its mask is labelled.

    Args:
        learned: ids of the images that the new probes learned from.
        unusable: the reason why the current model can't predict, see `load_current_model`.
    """
    provenance = workspace.catalogue.provenance
    known = set(learned)
    if current is not None:
        known |= provenance.images_learned([current.version.id])
    ids = {image.id for image, _ in holdout}
    leaked = groups.sharing(ids, known - ids)
    compared = [(image, mask) for image, mask in holdout if image.id not in leaked]
    partial_masks, measurable = PartialMasks(), []
    for image, mask in compared:
        truth = workspace.mask_over(image, mask)
        partial_masks.count(truth)
        if partial_masks.defines_overlaps(image.id, truth):
            measurable.append((image, mask))
    keys = groups.keys([image for image, _ in measurable])
    first, second = halves(progress) if current is not None else (progress, progress)
    candidate = confusions(workspace, probes, net, measurable, cache, first)
    former: list[NDArray[np.int64] | None] = [None] * len(measurable)
    if current is not None:
        if measurable:
            trained_in = current.probes.record.precision
            say_precision(current.version.name, trained_in, current.net)
        former[:] = confusions(workspace, current.probes, current.net, measurable, cache, second)
    under: dict[int, PredictionUnder] = {}
    if current is not None:
        under = provenance.predictions_under([m.id for _, m in measurable], current.version.id)
    images = [
        gate.HoldoutImage(
            group=group,
            tone=image.tone,
            valid=mask.classes,
            candidate=of_candidate,
            current=of_current,
            drawn_over=_drawn_over(mask, under.get(mask.id)),
            content_hash=image.content_hash,
        )
        for (image, mask), group, of_candidate, of_current in zip(
            measurable, keys, candidate, former, strict=True
        )
    ]
    name = current.version.name if current else None
    notes = partial_masks.notes()
    return gate.decide(images, name, max_drop, leaked=len(leaked), notes=notes, unusable=unusable)


def _drawn_over(mask: Mask, prediction: PredictionUnder | None) -> gate.CurrentPrediction:
    if prediction is None:
        return gate.CurrentPrediction.NONE
    same = prediction.content_hash == mask.content_hash
    return gate.CurrentPrediction.UNCHANGED if same else gate.CurrentPrediction.CORRECTED


def confusions(
    workspace: Workspace,
    probes: Probes,
    net: Backbone,
    pairs: Sequence[tuple[Image, Mask]],
    cache: FeatureCache | None,
    progress: Progress,
) -> list[NDArray[np.int64]]:
    """Return the confusion matrix of each accepted mask with the prediction of its image, (C, C)."""
    images = [image for image, _ in pairs]
    matrices = []
    with closing(predicted_masks(workspace, probes, net, images, cache)) as found:
        for (image, mask), predicted in zip(track(pairs, progress), found, strict=True):
            truth = workspace.mask_over(image, mask)
            matrices.append(metrics.confusion(truth, predicted, len(probes.classes)))
    return matrices
