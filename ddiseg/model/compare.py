"""The version in use beside a candidate: whether it can paint, and what both make of held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from ddiseg.catalogue.provenance import Provenance
from ddiseg.catalogue.tables import Image, Mask, ModelVersion
from ddiseg.evaluation import gate
from ddiseg.model.storage import LostModelError, load_version, stored_probes
from ddiseg.outcomes import Progress, silent, track
from ddiseg.sampling.groups import patient_key
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.errors import FeddError, UnreadableError
from fedd.segment import Probes


@dataclass(frozen=True)
class CurrentModel:
    """The version in use, ready to paint."""

    version: ModelVersion
    probes: Probes
    net: Backbone


def load_current_model(
    workspace: Workspace, version: ModelVersion | None, net: Backbone
) -> tuple[CurrentModel | None, str | None]:
    """The version in use, with `net` as its backbone where it reads that one, or why it can't paint.

    A version that is lost, or of another protocol, has nothing that can be compared: it must not
    keep another one from use. What may pass is no such reason, and comes out as a WorkspaceError.
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
    incumbent: CurrentModel | None,
    held_out: Sequence[tuple[Image, Mask]],
    tolerance: float,
    *,
    cache: FeatureCache | None,
    unusable: str | None,
    progress: Progress = silent,
) -> gate.GateDecision:
    """What the gate says of new probes on held-out images and their accepted masks.

    `unusable` says why a version in use can't paint, see `load_current_model`.
    """
    lineage = Provenance(workspace.catalogue.masks.all())
    judged = []
    for image, mask in track(held_out, progress):
        photograph = workspace.photograph(image)
        truth = workspace.mask_over(image, mask)
        current, painting = None, gate.CurrentPrediction.NONE
        if incumbent is not None:
            current = _confusion(truth, incumbent.probes, incumbent.net, photograph, cache)
            painting = _painting(lineage, mask, incumbent.version)
        judged.append(
            gate.HoldoutImage(
                patient=patient_key(image),
                tone=image.tone,
                valid=mask.classes,
                candidate=_confusion(truth, probes, net, photograph, cache),
                current=current,
                drawn_over=painting,
            )
        )
    name = incumbent.version.name if incumbent else None
    return gate.decide(judged, name, tolerance, unusable=unusable)


def _painting(lineage: Provenance, mask: Mask, version: ModelVersion) -> gate.CurrentPrediction:
    painted = lineage.prediction_under(mask, version.id)
    if painted is None:
        return gate.CurrentPrediction.NONE
    same = painted.content_hash == mask.content_hash
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
