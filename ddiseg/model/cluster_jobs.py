"""What workers of a cluster do with photographs: predict masks, extract embeddings and features.

A worker has the backbone and the probes in memory, and opens photographs from the store. It knows
neither the catalogue nor names of images; nothing that it sends back holds its clock's time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol import UserError, load_protocol
from ddiseg import masks
from ddiseg.catalogue.tables import Image
from ddiseg.compute.job import Refused, Resources
from ddiseg.compute.ray_cluster import Cluster, Shared
from ddiseg.errors import StoreError
from ddiseg.images import Photograph
from ddiseg.model.prediction_writer import EncodedPrediction
from ddiseg.outcomes import one_file
from ddiseg.workspace.store import Store
from ddiseg.workspace.stored_files import read_original, read_photograph
from fedd.backbone import LocalBackbone, Placed, place
from fedd.cache import NothingKept, image_digest
from fedd.errors import TrainingDataError
from fedd.features import FeatureSpec, prepare
from fedd.pipeline import Source, Summary, embeddings, predictions, summaries
from fedd.precision import AUTO, Trial, place_in
from fedd.probes.pixels import PreparedExample, Sampling, sample
from fedd.segment import Prediction, Probes, load_probes
from fedd.weights.files import WeightsFile, backbone_files, load_files

Key = TypeVar("Key")


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


def refusal(error: Exception | None) -> Refused:
    """Return the refusal of a photograph that can't be opened.

    Raises:
        StoreError: it is no fault of this photograph.
    """
    if isinstance(error, StoreError):
        raise error
    return Refused(str(error))


@dataclass(frozen=True)
class SharedBackbone:
    """A backbone whose weights each node gets once, so that no worker needs its file."""

    weights: Shared  #: the bytes of each of its files, one after the other
    files: tuple[tuple[str, str, int], ...]  #: of each part: its name, its file's name, and bytes
    resources: Resources
    precision: str = "float32"

    @classmethod
    def share(cls, cluster: Cluster, backbone: str, device: str) -> SharedBackbone:
        """Share a backbone, given by name or path, for a device ("auto": the GPUs, if there are any).

        Raises:
            WeightsError: there is no such backbone on this machine.
            InputError: there is no such device in the cluster.
        """
        files = backbone_files(backbone)
        data = [file.path.read_bytes() for file in files]
        named = [(f.part, f.path.name, len(d)) for f, d in zip(files, data, strict=True)]
        resources = cluster.resources(device, sum(map(len, data)))
        return cls(cluster.share(b"".join(data)), tuple(named), resources)

    def load(self) -> Placed:
        """Return the backbone on this worker's device; raises WeightsError, DeviceError."""
        return place(self.load_exact(), self.resources.device, self.precision)

    def load_exact(self) -> LocalBackbone:
        """Return the backbone in float32 on the CPU."""
        torch.set_num_threads(self.resources.cpus)
        data, start = memoryview(self.weights.get()), 0
        with ExitStack() as stack:
            files = []
            for part, name, size in self.files:
                path = stack.enter_context(_file(data[start : start + size], name))
                files.append(WeightsFile(part, path))
                start += size
            return load_files(files)


@dataclass(frozen=True)
class PredictionJob:
    """Predict masks, and encode them as files of the store."""

    backbone: SharedBackbone
    probes: Shared
    store: str  #: URL
    rounded: bool = False  #: activations, as a cache rounds them

    def open(self) -> Callable[[Sequence[StoredPhotograph]], Iterator[EncodedPrediction | Refused]]:
        probes, net = shared_probes(self.probes), self.backbone.load()
        probes.check_backbone(net)
        sources = _Sources(self.store, self.backbone.resources.cpus)
        palette = load_protocol().palette()
        cache = NothingKept() if self.rounded else None

        def work(rows: Sequence[StoredPhotograph]) -> Iterator[EncodedPrediction | Refused]:
            photographs = sources.of(rows)
            for each in predictions(probes, net, photographs, cache=cache, workers=sources.threads):
                if each.prediction is None:
                    yield refusal(each.error)
                else:
                    yield _encoded(each.prediction, palette)

        return work


class Embedded(NamedTuple):
    """The embedding of an image, and the digest by which the record of a training names it."""

    embedding: NDArray[np.float32]  #: (D,)
    digest: str


@dataclass(frozen=True)
class EmbeddingJob:
    """Extract the embeddings of photographs that must be readable."""

    backbone: SharedBackbone
    probes: Shared
    store: str  #: URL

    def open(self) -> Callable[[Sequence[StoredPhotograph]], Iterator[Embedded | Refused]]:
        probes, net = shared_probes(self.probes), self.backbone.load()
        sources = _Sources(self.store, self.backbone.resources.cpus)

        def work(rows: Sequence[StoredPhotograph]) -> Iterator[Embedded | Refused]:
            digests: dict[StoredPhotograph, str] = {}
            photographs = [
                replace(each, open=partial(noting_digest, each, digests, net.image_size))
                for each in sources.of(rows)
            ]
            for each in embeddings(probes, net, photographs, workers=sources.threads):
                if each.features is None:
                    yield refusal(each.error)
                else:
                    yield Embedded(each.features, digests[each.key])

        return work


def noting_digest(source: Source[Key], digests: dict[Key, str], size: int) -> NDArray[np.uint8]:
    """Open a photograph, and note the digest of what the backbone gets."""
    photograph = source.open()
    digests[source.key] = image_digest(prepare(photograph, size))
    return photograph


@dataclass(frozen=True)
class FeatureJob:
    """Extract what a malignancy classifier reads."""

    backbone: SharedBackbone
    wanted: Summary
    store: str  #: URL

    def open(
        self,
    ) -> Callable[[Sequence[StoredPhotograph]], Iterator[NDArray[np.float32] | Refused]]:
        net = self.backbone.load()
        sources = _Sources(self.store, self.backbone.resources.cpus)

        def work(rows: Sequence[StoredPhotograph]) -> Iterator[NDArray[np.float32] | Refused]:
            found = summaries(net, sources.of(rows), self.wanted, workers=sources.threads)
            for each in found:
                yield refusal(each.error) if each.features is None else each.features

        return work


class ExampleRow(NamedTuple):
    """An example at the backbone's size as workers get it: they learn neither patient nor tone."""

    pixels: NDArray[np.uint8]  #: (S, S, 3)
    mask: NDArray[np.uint8]  #: (S, S)
    digest: str
    corrected: NDArray[np.bool_] | None  #: (S, S)

    @classmethod
    def of(cls, example: PreparedExample) -> ExampleRow:
        pixels = ((example.image + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous()
        corrected = None if example.corrected is None else example.corrected.numpy()
        return cls(pixels.numpy(), example.mask.numpy(), example.digest, corrected)

    def example(self) -> PreparedExample:
        image = torch.from_numpy(self.pixels).permute(2, 0, 1).float() / 127.5 - 1
        corrected = None if self.corrected is None else torch.from_numpy(self.corrected)
        return PreparedExample(image, torch.from_numpy(self.mask), "", "", self.digest, corrected)


class SampledPixels(NamedTuple):
    """Pixels of one example, as `fedd.probes.pixels.Pixels` has them; P may be 0."""

    activations: NDArray[np.float16]
    labels: NDArray[np.int64]
    corrected: NDArray[np.bool_]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class SampleJob:
    """Sample training pixels of examples and of their augmented views."""

    backbone: SharedBackbone
    spec: FeatureSpec
    sampling: Sampling

    def open(self) -> Callable[[Sequence[ExampleRow]], Iterator[SampledPixels]]:
        net = self.backbone.load()

        def work(rows: Sequence[ExampleRow]) -> Iterator[SampledPixels]:
            for row in rows:
                try:
                    found = sample([row.example()], net, self.spec, self.sampling)
                except TrainingDataError:  # nothing known in it
                    nothing = np.empty((0, 0), np.float16), np.empty(0, np.int64)
                    yield SampledPixels(*nothing, np.empty(0, np.bool_), ())
                else:
                    yield SampledPixels(
                        *(found.activations.numpy(), found.labels.numpy()),
                        *(found.corrected.numpy(), found.channels),
                    )

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
                if probes.backbone_hash != exact.hash:
                    yield "float32"  # there is nothing to test with
                    continue
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
        masks.rate(prediction.expected_iou, prediction.mask),
    )


@contextmanager
def _file(data: bytes | memoryview, name: str) -> Iterator[Path]:
    """Yield a file with these bytes, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="ddiseg-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path
