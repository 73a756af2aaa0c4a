"""A backbone on the workers of a cluster, in the place of one on this machine.

What a refresh and malignancy ask of a backbone for many photographs goes to the workers; the training
of the probes on what comes back stays on this machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddiseg.catalogue.tables import Image
from ddiseg.compute.job import Job, Refused
from ddiseg.compute.ray_cluster import Cluster, Shared
from ddiseg.errors import InputError
from ddiseg.masks.mask import Mask
from ddiseg.model.backbones import Backbones, tones_in_turn
from ddiseg.model.cluster_jobs import (
    Embedded,
    EmbeddingJob,
    ExampleRow,
    FeatureJob,
    PrecisionJob,
    PredictionJob,
    SampleJob,
    SharedBackbone,
    StoredPhotograph,
)
from ddiseg.model.storage import LostModelError, model_file
from ddiseg.workspace.stored_files import decode_mask
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Backbone, LocalBackbone, Placed, Replicas
from fedd.cache import FeatureCache
from fedd.errors import TrainingDataError
from fedd.features import FeatureSpec
from fedd.network.architecture import Architecture
from fedd.pipeline import Summary
from fedd.precision import AUTO, MOST
from fedd.probes.pixels import Pixels, PreparedExample, Sampling
from fedd.segment import Probes

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterBackbone:
    """A backbone whose passes run on workers, each photograph on one; a `fedd.backbone.Backbone` itself."""

    cluster: Cluster
    workspace: Workspace
    shared: SharedBackbone
    local: LocalBackbone  #: the same network on this machine's CPU, in float32
    rounded: bool = False  #: predict from activations as a cache rounds them

    @property
    def name(self) -> str:
        return self.local.name

    @property
    def hash(self) -> str:
        return self.local.hash

    @property
    def verified(self) -> bool:
        return self.local.verified

    @property
    def config(self) -> Architecture:
        return self.local.config

    @property
    def image_size(self) -> int:
        return self.local.image_size

    @property
    def blocks(self) -> tuple[int, ...]:
        return self.local.blocks

    @property
    def device(self) -> torch.device:
        """Device of what comes back."""
        return self.local.device

    @property
    def precision(self) -> str:
        """Precision on the workers."""
        return self.shared.precision

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return activations as `DiffusionUNet.activations` does, on this machine."""
        return self.local.activations(images, timestep, blocks, noise)

    def other(self, backbone: str, backbones: Backbones) -> ClusterBackbone:
        """Return another backbone on the same workers, in the same precision."""
        local = backbones.get(backbone, "cpu")
        assert not isinstance(local, Replicas)
        shared = SharedBackbone.share(self.cluster, backbone, self.shared.resources.device)
        return replace(self, local=local, shared=replace(shared, precision=self.precision))

    def predicted_masks(
        self, probes: Probes, images: Sequence[Image]
    ) -> Generator[Mask, None, None]:
        """Yield the predicted mask (H, W) of each image; raises InputError where one can't be read."""
        store = self.workspace.store.url
        job = PredictionJob(self.shared, self._share(probes), store, self.rounded)
        for each in self._photographs(job, images):
            yield decode_mask(each.mask, each.digest)

    def embedded(self, probes: Probes, images: Sequence[Image]) -> Generator[Embedded, None, None]:
        """Yield the embedding of each image; raises InputError where one can't be read."""
        job = EmbeddingJob(self.shared, self._share(probes), self.workspace.store.url)
        yield from self._photographs(job, images)

    def summaries(
        self, images: Sequence[Image], wanted: Summary
    ) -> Generator[tuple[Image, NDArray[np.float32] | Refused], None, None]:
        """Yield each image with what a malignancy classifier reads (F,), or why it can't be read, in any order."""
        job = FeatureJob(self.shared, wanted, self.workspace.store.url)
        rows = [StoredPhotograph.of(image) for image in images]
        with closing(self.cluster.map(job, rows, self.shared.resources)) as done:
            for number, found in done:
                yield images[number], found

    def sample(
        self,
        examples: Sequence[PreparedExample],
        _backbone: Backbone,
        spec: FeatureSpec,
        sampling: Sampling,
        _cache: FeatureCache | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Pixels:
        """Sample pixels of all images on the workers, as `fedd.probes.pixels.sample` does."""
        rows = [ExampleRow.of(example) for example in examples]
        job = SampleJob(self.shared, spec, sampling)
        found = self._in_order(job, rows, lambda number: f"image {number + 1}", progress)
        known = [(number, each) for number, each in enumerate(found) if len(each.labels)]
        if not known:
            raise TrainingDataError("there are no masks to learn from")
        labels = [torch.from_numpy(each.labels.copy()) for _, each in known]
        return Pixels(
            torch.cat([torch.from_numpy(each.activations.copy()) for _, each in known]),
            torch.cat(labels),
            torch.cat(
                [torch.full_like(of, number) for (number, _), of in zip(known, labels, strict=True)]
            ),
            torch.cat([torch.from_numpy(each.corrected.copy()) for _, each in known]),
            known[0][1].channels,
        )

    def _photographs(
        self, job: Job[StoredPhotograph, T], images: Sequence[Image]
    ) -> Generator[T, None, None]:
        rows = [StoredPhotograph.of(image) for image in images]
        yield from self._in_order(job, rows, lambda number: images[number].name)

    def _in_order(
        self,
        job: Job[Any, T],
        rows: Sequence[Any],
        name: Callable[[int], str],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Generator[T, None, None]:
        """Yield the results in the order of the rows; raises InputError where one is refused."""
        with closing(self.cluster.in_order(job, rows, self.shared.resources)) as done:
            for number, found in enumerate(done):
                if isinstance(found, Refused):
                    raise InputError(f"{name(number)}: {found.reason}")
                progress(number + 1)
                yield found

    def _share(self, probes: Probes) -> Shared:
        with tempfile.TemporaryDirectory(prefix="ddiseg-") as folder:
            path = Path(folder) / "probes.safetensors"
            probes.save(path)
            return self.cluster.share(path.read_bytes())


#: A backbone on this machine, or on a cluster.
Net: TypeAlias = Placed | ClusterBackbone


def backbone_for(
    workspace: Workspace,
    backbone: str,
    device: str,
    precision: str,
    backbones: Backbones,
    cluster: Cluster | None = None,
    cache_limit: int = 0,
) -> Net:
    """Return a backbone by name or path, on this machine or, where one is given, on a cluster.

    Args:
        precision: as `Backbones.get` takes it.
        cache_limit: bytes of activations that this machine would keep; above 0, a cluster rounds as
            the cache does.

    Raises:
        WeightsError, DeviceError: as `Backbones.get`.
        WorkspaceError: a node of the cluster can't do the work.
    """
    if cluster is None:
        return backbones.get(backbone, device, precision)
    cluster.check(workspace.store)
    local = backbones.get(backbone, "cpu")
    assert not isinstance(local, Replicas)
    shared = SharedBackbone.share(cluster, backbone, device)
    shared = in_precision(cluster, workspace, shared, precision)
    return ClusterBackbone(cluster, workspace, shared, local, bool(cache_limit))


def in_precision(
    cluster: Cluster, workspace: Workspace, shared: SharedBackbone, precision: str
) -> SharedBackbone:
    """Return a backbone in a precision; "auto" is tested once, on one worker's GPU, and holds for all."""
    version = workspace.catalogue.models.current_or_none()
    if precision != AUTO:
        return replace(shared, precision=precision)
    if version is None or not shared.resources.gpus:
        return replace(shared, precision="float32")
    try:
        with model_file(workspace, version) as path:
            probes = cluster.share(path.read_bytes())
    except LostModelError:  # whoever needs the model says so
        return replace(shared, precision="float32")
    some = [StoredPhotograph.of(each) for each in islice(tones_in_turn(workspace), MOST)]
    job = PrecisionJob(shared, probes, workspace.store.url)
    with closing(cluster.map(job, [some], replace(shared.resources, workers=1))) as done:
        ((_, found),) = done
    return replace(shared, precision="float32" if isinstance(found, Refused) else found)


def originals_of(images: Sequence[Image]) -> list[str]:
    """Return the file of the first image that was imported in place, for nodes to look for."""
    return [image.in_place for image in images if image.in_place is not None][:1]
