"""Passes of photographs through a backbone, in order, each photograph of which must be readable.

They run on this machine, or on a cluster where the backbone is a `ClusterBackbone`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from ddiseg.catalogue.tables import Image
from ddiseg.masks.mask import Mask
from ddiseg.model.cluster_backbone import ClusterBackbone
from ddiseg.model.cluster_jobs import Embedded, noting_digest
from ddiseg.model.photographs import sources
from ddiseg.workspace.workspace import Workspace
from fedd import pipeline
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.segment import Probes


def predicted_masks(
    workspace: Workspace,
    probes: Probes,
    net: Backbone,
    images: Sequence[Image],
    cache: FeatureCache | None,
) -> Generator[Mask, None, None]:
    """Yield the predicted mask (H, W) of each image.

    Raises:
        UserError: a photograph can't be read.
    """
    if isinstance(net, ClusterBackbone):
        yield from net.predicted_masks(probes, images)
        return
    found = pipeline.predictions(probes, net, sources(workspace, images), expected=(), cache=cache)
    with closing(found):
        for each in found:
            assert each.prediction is not None
            yield each.prediction.mask


def embedded_images(
    workspace: Workspace,
    probes: Probes,
    net: Backbone,
    images: Sequence[Image],
    cache: FeatureCache | None,
) -> Generator[Embedded, None, None]:
    """Yield the embedding of each image, with the digest by which a training names it.

    Raises:
        UserError: a photograph can't be read.
    """
    if isinstance(net, ClusterBackbone):
        yield from net.embedded(probes, images)
        return
    digests: dict[Image, str] = {}
    everything = [
        replace(each, open=partial(noting_digest, each, digests, net.image_size))
        for each in sources(workspace, images)
    ]
    found = pipeline.embeddings(probes, net, everything, expected=(), cache=cache)
    with closing(found):
        for each in found:
            assert each.features is not None
            yield Embedded(each.features, digests[each.key])
