"""What workers of a cluster do with photographs: predict masks, extract embeddings and features.

A worker has the backbone and the probes in memory, and opens photographs from the store. It knows
neither the catalogue nor names of images; nothing that it sends back holds its clock's time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from annotation_protocol import UserError, load_protocol
from ddiseg import masks
from ddiseg.catalogue.tables import Image
from ddiseg.compute.job import Refused, Resources
from ddiseg.compute.ray_cluster import Cluster, Shared
from ddiseg.images import Photograph
from ddiseg.model.prediction_writer import EncodedPrediction
from ddiseg.outcomes import one_file
from ddiseg.workspace.store import Store
from ddiseg.workspace.stored_files import read_original, read_photograph
from fedd.backbone import DiffusionUNet, Replicas, place
from fedd.pipeline import Source, predictions
from fedd.precision import AUTO, Trial, place_in
from fedd.segment import Prediction, Probes, load_probes
from fedd.weights.files import backbone_path, load_backbone


class StoredPhotograph(NamedTuple):
    """What a worker is told of an image."""

    content_hash: str
    in_place: str | None

    @classmethod
    def of(cls, image: Image) -> StoredPhotograph:
        return cls(image.content_hash, image.in_place)

    def open(self, store: Store) -> Photograph:
        """Return the pixels, (H, W, 3) uint8; raises UserError where it can't be read."""
        with one_file():
            if self.in_place is not None:
                return read_original(Path(self.in_place), self.content_hash)
            return read_photograph(store, self.content_hash)


@dataclass(frozen=True)
class SharedBackbone:
    """A backbone whose weights each node gets once, so that no worker needs its file."""

    weights: Shared
    file: str  #: name of the file, without its folder
    resources: Resources
    precision: str = "float32"

    @classmethod
    def share(cls, cluster: Cluster, backbone: str, device: str) -> SharedBackbone:
        """Share a backbone, given by name or path, for a device ("auto": the GPUs, if there are any).

        Raises:
            WeightsError: there is no such backbone on this machine.
            InputError: there is no such device in the cluster.
        """
        path = backbone_path(backbone)
        resources = cluster.resources(device, path.stat().st_size)
        return cls(cluster.share(path.read_bytes()), path.name, resources)

    def load(self) -> DiffusionUNet | Replicas:
        """Return the backbone on this worker's device; raises WeightsError, DeviceError."""
        return place(self.load_exact(), self.resources.device, self.precision)

    def load_exact(self) -> DiffusionUNet:
        """Return the backbone in float32 on the CPU."""
        torch.set_num_threads(self.resources.cpus)
        with _file(self.weights.get(), self.file) as path:
            return load_backbone(str(path))


@dataclass(frozen=True)
class PredictionJob:
    """Predict masks, and encode them as files of the store."""

    backbone: SharedBackbone
    probes: Shared
    store: str  #: URL

    def open(self) -> Callable[[Sequence[StoredPhotograph]], Iterator[EncodedPrediction | Refused]]:
        probes, net = shared_probes(self.probes), self.backbone.load()
        probes.check_backbone(net)
        sources = _Sources(self.store, self.backbone.resources.cpus)
        palette = load_protocol().palette()

        def work(rows: Sequence[StoredPhotograph]) -> Iterator[EncodedPrediction | Refused]:
            for each in predictions(probes, net, sources.of(rows), workers=sources.threads):
                if each.prediction is None:
                    yield Refused(str(each.error))
                else:
                    yield _encoded(each.prediction, palette)

        return work


@dataclass(frozen=True)
class PrecisionJob:
    """Test on a worker's GPU in which precision masks stay the same (`fedd.precision`)."""

    backbone: SharedBackbone
    probes: Shared
    store: str  #: URL

    def open(self) -> Callable[[Sequence[Sequence[StoredPhotograph]]], Iterator[str]]:
        probes, exact = shared_probes(self.probes), self.backbone.load_exact()
        store = Store(self.store)

        def work(rows: Sequence[Sequence[StoredPhotograph]]) -> Iterator[str]:
            for photographs in rows:
                trial = Trial(probes, [each for row in photographs for each in opened(row)])
                device = self.backbone.resources.device
                yield place_in(exact, device, AUTO, lambda _exact, trial=trial: trial).precision  # type: ignore[misc]

        def opened(row: StoredPhotograph) -> Iterator[Photograph]:
            with suppress(UserError):  # 'ddiseg verify' reports it
                yield row.open(store)

        return work


def shared_probes(probes: Shared) -> Probes:
    """Return probes that `Probes.save` wrote, on a worker."""
    with _file(probes.get(), "probes.safetensors") as path:
        return load_probes(path)


class _Sources:
    """Opens photographs from a store, on as many threads as a worker has processors."""

    def __init__(self, store: str, threads: int) -> None:
        self._store, self.threads = Store(store), threads

    def of(self, rows: Sequence[StoredPhotograph]) -> list[Source[StoredPhotograph]]:
        return [Source(row, partial(row.open, self._store)) for row in rows]


def _encoded(prediction: Prediction, palette: Sequence[tuple[int, int, int]]) -> EncodedPrediction:
    return EncodedPrediction(
        masks.encode_png(prediction.mask, palette),
        masks.mask_hash(prediction.mask),
        prediction.uncertainty,
        prediction.embedding.astype(np.float32).tobytes(),
    )


@contextmanager
def _file(data: bytes, name: str) -> Iterator[Path]:
    """Yield a file with these bytes, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="ddiseg-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path
