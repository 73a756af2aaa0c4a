"""Comparison of a new version with the current model on the hold-out set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from ddiseg.catalogue.provenance import Provenance
from ddiseg.catalogue.tables import Image, Mask, ModelVersion
from ddiseg.evaluation import gate
from ddiseg.evaluation.partial_masks import PartialMasks
from ddiseg.model.storage import LostModelError, load_version, stored_probes
from ddiseg.outcomes import Progress, silent, track
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
    workspace: Workspace, version: ModelVersion | None, net: Backbone
) -> tuple[CurrentModel | None, str | None]:
    """Return the current model, or the reason why it can't predict; it shares `net` if that fits.

    A version that is lost, or of another protocol, can't be compared with, and must not keep a new
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
        return CurrentModel(version, *load_version(workspace, version)), None
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
    provenance = Provenance(workspace.catalogue.masks.all())
    known = set(learned)
    if current is not None:
        known |= provenance.images_learned(current.version.training_masks)
    ids = {image.id for image, _ in holdout}
    leaked = groups.sharing(ids, known - ids)
    compared = [(image, mask) for image, mask in holdout if image.id not in leaked]
    keys = groups.keys([image for image, _ in compared])
    images = []
    partial_masks = PartialMasks()
    for (image, mask), group in zip(track(compared, progress), keys, strict=True):
        truth = workspace.mask_over(image, mask)
        partial_masks.count(truth)
        if not partial_masks.defines_overlaps(image.id, truth):
            continue
        photograph = workspace.photograph(image)
        confusion, prediction = None, gate.CurrentPrediction.NONE
        if current is not None:
            confusion = _confusion(truth, current.probes, current.net, photograph, cache)
            prediction = _prediction_under(provenance, mask, current.version)
        images.append(
            gate.HoldoutImage(
                group=group,
                tone=image.tone,
                valid=mask.classes,
                candidate=_confusion(truth, probes, net, photograph, cache),
                current=confusion,
                drawn_over=prediction,
                content_hash=image.content_hash,
            )
        )
    name = current.version.name if current else None
    notes = partial_masks.notes()
    return gate.decide(images, name, max_drop, leaked=len(leaked), notes=notes, unusable=unusable)


def _prediction_under(
    provenance: Provenance, mask: Mask, version: ModelVersion
) -> gate.CurrentPrediction:
    prediction = provenance.prediction_under(mask, version.id)
    if prediction is None:
        return gate.CurrentPrediction.NONE
    same = prediction.content_hash == mask.content_hash
    return gate.CurrentPrediction.UNCHANGED if same else gate.CurrentPrediction.CORRECTED


def _confusion(
    truth: NDArray[np.uint8],
    probes: Probes,
    net: Backbone,
    photograph: NDArray[np.uint8],
    cache: FeatureCache | None,
) -> NDArray[np.int64]:
    prediction = probes.predict(net, [photograph], cache)[0].mask
    return metrics.confusion(truth, prediction, len(probes.classes))
