"""The version in use beside a candidate: whether it can paint, and what both make of held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, scoring
from ddiseg.catalogue.models import Image, Mask, ModelVersion
from ddiseg.errors import InputError
from ddiseg.loop import gate
from ddiseg.loop.lineage import Lineage
from ddiseg.loop.model_files import LostModelError, load_version, stored_probes
from ddiseg.outcomes import Progress, counted, silent
from ddiseg.workspace import Workspace
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.segment import Probes


@dataclass(frozen=True)
class Incumbent:
    """The version in use, ready to paint."""

    version: ModelVersion
    probes: Probes
    net: Backbone


def load_incumbent(
    workspace: Workspace, version: ModelVersion | None, net: Backbone
) -> tuple[Incumbent | None, str | None]:
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
            return Incumbent(version, stored_probes(workspace, version), net), None
        return Incumbent(version, *load_version(workspace, version)), None
    except (LostModelError, InputError) as error:
        return None, f"{version.name}: {error}"


def judge_beside(
    workspace: Workspace,
    probes: Probes,
    net: Backbone,
    incumbent: Incumbent | None,
    held_out: Sequence[tuple[Image, Mask]],
    tolerance: float,
    *,
    cache: FeatureCache | None,
    unusable: str | None,
    progress: Progress = silent,
) -> gate.Verdict:
    """What the gate says of new probes on held-out images and their accepted masks.

    `unusable` says why a version in use can't paint, see `load_incumbent`.
    """
    lineage = Lineage(workspace.catalogue.masks.all())
    judged = []
    for image, mask in counted(held_out, progress):
        photograph = workspace.photograph(image)
        truth = workspace.mask_over(image, mask)
        current, painting = None, gate.Painting.NONE
        if incumbent is not None:
            current = _confusion(truth, incumbent.probes, incumbent.net, photograph, cache)
            painting = _painting(lineage, mask, incumbent.version)
        judged.append(
            gate.Judged(
                patient=image.patient or image.content_hash,
                tone=image.tone,
                valid=mask.classes,
                candidate=_confusion(truth, probes, net, photograph, cache),
                current=current,
                painting=painting,
            )
        )
    name = incumbent.version.name if incumbent else None
    return gate.judge(judged, name, tolerance, unusable=unusable)


def _painting(lineage: Lineage, mask: Mask, version: ModelVersion) -> gate.Painting:
    painted = lineage.painting_under(mask, version.id)
    if painted is None:
        return gate.Painting.NONE
    same = painted.content_hash == mask.content_hash
    return gate.Painting.UNCHANGED if same else gate.Painting.CORRECTED


def _confusion(
    truth: NDArray[np.uint8],
    probes: Probes,
    net: Backbone,
    photograph: NDArray[np.uint8],
    cache: FeatureCache | None,
) -> NDArray[np.int64]:
    prediction = probes.predict(net, [photograph], cache)[0].mask
    return scoring.confusion(truth, prediction, len(probes.classes))
