"""Predictions, embeddings and malignancy features of many photographs, opened while others are computed.

Results come in the order of the sources; `fedd.batches` says how, and what is bounded.

Arrays: photographs (H, W, 3) uint8, D the channels of all blocks of the probes' settings.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedd.backbone import Backbone
from fedd.batches import EXPECTED, Results, Source, run
from fedd.cache import FeatureCache, extract_as_cached
from fedd.features import Prepared, check_finite
from fedd.probes.prediction import Prediction, embedded, predict_batch

__all__ = [
    "Extracted",
    "Predicted",
    "Source",
    "activations",
    "embeddings",
    "predictions",
    "summaries",
]

if TYPE_CHECKING:
    from fedd.segment import Probes

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


@dataclass(frozen=True)
class Predicted(Generic[K]):
    """The prediction of a source, or the error of opening it."""

    key: K
    prediction: Prediction | None
    error: Exception | None = None


@dataclass(frozen=True)
class Extracted(Generic[K]):
    """The features of a source, or the error of opening it."""

    key: K
    features: NDArray[np.float32] | None
    error: Exception | None = None


def predictions(
    probes: Probes,
    backbone: Backbone,
    sources: Iterable[Source[K]],
    *,
    expected: tuple[type[Exception], ...] = EXPECTED,
    cache: FeatureCache | None = None,
    batch: int | None = None,
    workers: int | None = None,
) -> Generator[Predicted[K], None, None]:
    """Predict a mask for each source, in their order.

    Args:
        expected: errors of opening a photograph that refuse only this one; others end everything.
        cache: keeps activations.
        batch: photographs computed together; by default what suits the device.
        workers: threads that open and resize photographs; by default what suits the machine.

    Raises:
        WeightsError: a damaged backbone, or not the one that the probes were trained on.
        DeviceError: a single photograph does not fit into the GPU's memory.
    """
    probes.check_backbone(backbone)
    done = run(
        backbone,
        sources,
        lambda part: predict_batch(probes, backbone, part, cache),
        keep=probes.needs_photographs,
        expected=expected,
        batch=batch,
        workers=workers,
    )
    return _each(Predicted, done)


def embeddings(
    probes: Probes,
    backbone: Backbone,
    sources: Iterable[Source[K]],
    *,
    expected: tuple[type[Exception], ...] = EXPECTED,
    cache: FeatureCache | None = None,
    batch: int | None = None,
    workers: int | None = None,
) -> Generator[Extracted[K], None, None]:
    """Yield `Prediction.embedding` of each source, (D,), without predicting masks.

    Arguments and errors as those of `predictions`.
    """
    probes.check_backbone(backbone)

    @torch.inference_mode()
    def compute(part: Prepared) -> Generator[None, None, list[NDArray[np.float32]]]:
        activations = extract_as_cached(backbone, part.images, probes.settings.features, cache)
        found = embedded(activations)
        yield
        return list(found.cpu().numpy())

    done = run(backbone, sources, compute, expected=expected, batch=batch, workers=workers)
    return _each(Extracted, done)


class Summary(Protocol):
    """What a malignancy classifier reads of a photograph."""

    @property
    def timestep(self) -> int: ...

    @property
    def blocks(self) -> tuple[int, ...]: ...

    def summary(self, images: Tensor, activations: Mapping[int, Tensor]) -> Tensor:
        """Return the features of images (N, 3, S, S) and their activations by block, (N, F)."""
        ...


def summaries(
    backbone: Backbone,
    sources: Iterable[Source[K]],
    wanted: Summary,
    *,
    expected: tuple[type[Exception], ...] = EXPECTED,
    batch: int | None = None,
    workers: int | None = None,
) -> Generator[Extracted[K], None, None]:
    """Yield the features of each source, (F,), that a malignancy classifier reads.

    Arguments and errors as those of `predictions`.
    """

    @torch.inference_mode()
    def compute(part: Prepared) -> Generator[None, None, list[NDArray[np.float32]]]:
        activations = backbone.activations(part.images, wanted.timestep, wanted.blocks)
        found = wanted.summary(part.images, activations)
        yield
        return list(check_finite(found.cpu()).numpy())

    done = run(backbone, sources, compute, expected=expected, batch=batch, workers=workers)
    return _each(Extracted, done)


def activations(
    backbone: Backbone, sources: Iterable[Source[K]], timestep: int, blocks: Sequence[int]
) -> Results[K, list[Tensor]]:
    """Yield the activations of each source, one (C, h, w) for each block, on the CPU."""

    @torch.inference_mode()
    def compute(part: Prepared) -> Generator[None, None, list[list[Tensor]]]:
        found = backbone.activations(part.images, timestep, blocks)
        yield
        on_cpu = [found[block].cpu() for block in blocks]
        return [[of_block[row] for of_block in on_cpu] for row in range(len(part))]

    return run(backbone, sources, compute, expected=())


def _each(
    result: Callable[[K, V | None, Exception | None], R], done: Results[K, V]
) -> Generator[R, None, None]:
    with closing(done):
        for key, value, error in done:
            yield result(key, value, error)
