"""Photographs in batches through a computation: opening, computing and the caller's work at the same time.

Threads open, decode and resize the next photographs. On a GPU the caller's thread computes them in
batches, two begun ahead of the one that is handed over; on a CPU one photograph passes on each of
several threads (`fedd.network.lanes`). What waits is bounded, in photographs and in pixels.

Results come in the order of the sources. A photograph that can't be opened is a result with an error,
and the others go on. Closing a generator, or leaving it by an exception, ends its threads.

Arrays: photographs (H, W, 3) uint8, images (N, 3, S, S) float32 in [-1, 1], S the backbone's image size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from annotation_protocol.errors import UserError
from fedd.backbone import Backbone, expect
from fedd.features import Prepared, prepare
from fedd.network.halving import Halving, Running
from fedd.network.lanes import lanes
from fedd.prefetch import MOST_THREADS, PIXELS, default_workers, prefetch

K = TypeVar("K")
V = TypeVar("V")

#: Opens one photograph, (H, W, 3) uint8, such as `DatasetImage.photograph`; may raise.
Open: TypeAlias = Callable[[], NDArray[np.uint8]]

#: What opening a photograph may raise without ending the others: not readable, or too large.
EXPECTED: tuple[type[Exception], ...] = (UserError, OSError, MemoryError)

#: Photographs of a batch on a GPU.
GPU_BATCH = 64

#: Batches that a GPU has begun before one is waited for: it computes one while another is on its way.
STEPS_AHEAD = 2


@dataclass(frozen=True)
class Source(Generic[K]):
    """A photograph that is opened when its turn comes nearer; `key` is the caller's name for it."""

    key: K
    open: Open


#: Key and value, or error, of each source.
Results: TypeAlias = Generator[tuple[K, V | None, Exception | None], None, None]

#: Computes a batch in steps: yields where a GPU has been given work, and returns a value for each
#: photograph.
Compute: TypeAlias = Callable[[Prepared], Generator[None, None, Sequence[V]]]


def run(
    backbone: Backbone,
    sources: Iterable[Source[K]],
    compute: Compute[V],
    *,
    keep: bool = False,
    expected: tuple[type[Exception], ...] = EXPECTED,
    batch: int | None = None,
    workers: int | None = None,
) -> Results[K, V]:
    """Yield key and value, or error, of each source, in their order.

    Args:
        compute: runs on a batch; where a GPU's memory runs out, on both halves of it.
        keep: `compute` needs the photographs themselves, too.
    """
    on_gpu = backbone.device.type != "cpu"
    if isinstance(sources, Sized):
        expect(backbone, len(sources))
    side_by_side = 1 if on_gpu else _lanes(backbone, sources)
    size = batch or (GPU_BATCH if on_gpu else 1)
    halving: Halving[V] = Halving(compute, size)
    ahead = 2 * max(size, side_by_side, MOST_THREADS // 2)
    opened = _opened(sources, backbone, keep, expected, workers, ahead)
    groups = _groups(opened, lambda: halving.most)
    if side_by_side > 1:
        yield from _on_lanes(groups, backbone, halving, side_by_side)
    else:
        yield from _in_steps(groups, backbone, halving, STEPS_AHEAD if on_gpu else 0)


def image_batches(
    photographs: Iterable[Open], backbone: Backbone, batch: int, workers: int | None = None
) -> Iterator[Tensor]:
    """Yield images (N, 3, S, S) in batches, opened and resized on threads while the caller computes.

    An error in opening a photograph is raised in its turn.
    """
    sources = (Source(None, opened) for opened in photographs)
    opened = _opened(sources, backbone, False, (), workers, 2 * batch)
    for part in _groups(opened, lambda: batch):
        yield _prepared(part, backbone).images


@dataclass(frozen=True)
class _Opened(Generic[K]):
    """A source that was opened: its image (3, S, S), or the error."""

    key: K
    image: Tensor | None
    shape: tuple[int, int] = (0, 0)
    photograph: NDArray[np.uint8] | None = None
    error: Exception | None = None

    @property
    def opened_pixels(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def held_pixels(self) -> int:
        return self.opened_pixels if self.photograph is not None else 0


Groups: TypeAlias = Generator[list[_Opened[K]], None, None]


def _opened(
    sources: Iterable[Source[K]],
    backbone: Backbone,
    keep: bool,
    expected: tuple[type[Exception], ...],
    workers: int | None,
    ahead: int,
) -> Generator[_Opened[K], None, None]:
    """Yield the sources opened and resized, in order."""
    size = backbone.image_size

    def opened(source: Source[K]) -> _Opened[K]:
        try:
            photograph = source.open()
            shape = (photograph.shape[0], photograph.shape[1])
            image = prepare(photograph, size)
        except expected as error:
            return _Opened(source.key, None, error=error)
        return _Opened(source.key, image, shape, photograph if keep else None)

    jobs = (partial(opened, source) for source in sources)
    workers = workers or default_workers()
    return prefetch(jobs, workers, max(ahead, workers))


def _groups(opened: Generator[_Opened[K], None, None], size: Callable[[], int]) -> Groups[K]:
    """Yield what is computed together: `size()` photographs of together at most PIXELS, or one.

    Those that could not be opened are in between; a group of only these is yielded at once.
    """
    group: list[_Opened[K]] = []
    good = pixels = 0
    with closing(opened):
        for each in opened:
            if good and pixels + each.opened_pixels > PIXELS:
                yield group
                group, good, pixels = [], 0, 0
            group.append(each)
            good += each.error is None
            pixels += each.opened_pixels
            if good >= size() or not good:
                yield group
                group, good, pixels = [], 0, 0
    if group:
        yield group


def _prepared(group: Sequence[_Opened[K]], backbone: Backbone) -> Prepared:
    """Return the photographs of a group that were opened."""
    good = [each for each in group if each.image is not None]
    images = [each.image for each in good if each.image is not None]
    pinned = backbone.device.type == "cuda"
    stacked = torch.empty(len(images), *images[0].shape, pin_memory=pinned)
    torch.stack(images, out=stacked)
    photographs = tuple(each.photograph for each in good if each.photograph is not None)
    keys = tuple(each.key for each in good)
    return Prepared(stacked, tuple(each.shape for each in good), photographs, keys)


def _results(group: Sequence[_Opened[K]], values: Sequence[V]) -> Results[K, V]:
    """Yield the results of a group in the order of the sources."""
    computed = iter(values)
    for each in group:
        yield each.key, next(computed) if each.error is None else None, each.error


def _in_steps(
    groups: Groups[K], backbone: Backbone, halving: Halving[V], ahead: int
) -> Results[K, V]:
    """Compute in the caller's thread; up to `ahead` groups are begun before one is waited for."""
    begun: deque[tuple[list[_Opened[K]], Running[V] | None]] = deque()

    def finish() -> Results[K, V]:
        group, running = begun.popleft()
        return _results(group, running.finish() if running else ())

    with closing(groups):
        for group in groups:
            good = any(each.error is None for each in group)
            begun.append((group, halving.begin(_prepared(group, backbone)) if good else None))
            for _, running in list(begun)[:-1]:
                if running:
                    running.step()
            while len(begun) > ahead:
                yield from finish()
        while begun:
            yield from finish()


def _on_lanes(
    groups: Groups[K], backbone: Backbone, halving: Halving[V], count: int
) -> Results[K, V]:
    """Compute on `count` threads of a CPU, each group on one."""
    begun: deque[tuple[list[_Opened[K]], Future[Sequence[V]]]] = deque()

    def compute(group: list[_Opened[K]]) -> Sequence[V]:
        if all(each.error is not None for each in group):
            return ()
        return halving.begin(_prepared(group, backbone)).finish()

    def full() -> bool:
        pixels = sum(each.opened_pixels for group, _ in begun for each in group)
        return len(begun) > 1 and (len(begun) > 2 * count or pixels > PIXELS)

    pool = lanes(count)
    try:
        with closing(groups):
            for group in groups:
                begun.append((group, pool.submit(compute, group)))
                while full():
                    first, values = begun.popleft()
                    yield from _results(first, values.result())
            while begun:
                first, values = begun.popleft()
                yield from _results(first, values.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _lanes(backbone: Backbone, sources: Iterable[Source[K]]) -> int:
    """Return how many photographs to compute side by side on a CPU."""
    most = min(torch.get_num_threads(), getattr(backbone, "side_by_side", 1))
    return max(1, min(most, len(sources)) if isinstance(sources, Sized) else most)
