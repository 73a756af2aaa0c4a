"""Comparison of stored masks, pixel by pixel, on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UserError, load_protocol, metrics
from ddiseg import masks
from ddiseg.compute.job import Refused
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.errors import StoreError, WorkspaceError
from ddiseg.outcomes import Progress
from ddiseg.workspace.store import Store
from ddiseg.workspace.stored_files import read_mask


class ComparedMasks(NamedTuple):
    """Two masks of the store by their hashes, and the size (H, W) at which they are compared."""

    image: str  #: name, for messages
    truth: str
    prediction: str
    size: tuple[int, int]


@dataclass(frozen=True)
class ComparisonJob:
    """Count the pixels of two masks by their classes."""

    store: str  #: URL

    def open(self) -> Callable[[Sequence[ComparedMasks]], Iterator[NDArray[np.int64] | Refused]]:
        store, classes = Store(self.store), len(load_protocol().classes)

        def work(rows: Sequence[ComparedMasks]) -> Iterator[NDArray[np.int64] | Refused]:
            for row in rows:
                try:
                    truth, predicted = (
                        masks.stretch(read_mask(store, digest), row.size)
                        for digest in (row.truth, row.prediction)
                    )
                except StoreError:
                    raise  # no fault of these masks
                except UserError as error:
                    yield Refused(str(error))
                else:
                    yield metrics.confusion(truth, predicted, classes)

        return work


def compare_on(
    cluster: Cluster, store: Store, rows: Sequence[ComparedMasks], progress: Progress
) -> list[NDArray[np.int64]]:
    """Return the confusion matrix (C, C) of each pair of masks, in their order.

    Raises:
        WorkspaceError: a mask can't be read.
    """
    cluster.check(store)
    found: list[NDArray[np.int64]] = []
    with closing(
        cluster.in_order(ComparisonJob(store.url), rows, cluster.resources("cpu"))
    ) as all_:
        for row, each in zip(rows, all_, strict=True):
            if isinstance(each, Refused):
                raise WorkspaceError(f"a mask of {row.image}: {each.reason}")
            found.append(each)
            progress(len(found), len(rows))
    return found
