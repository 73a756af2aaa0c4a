"""From JPEG files to stored masks as `ddiseg prelabel` does it, without a catalogue."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count, cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol import load_protocol
from annotation_protocol.files import atomic_write
from ddiseg.masks.files import decode_png, encode_png
from ddiseg.masks.mask import Mask, mask_hash
from ddiseg.workspace.mask_writer import MaskWriter
from ddiseg.workspace.store import Kind, Store
from fedd.backbone import Backbone
from fedd.features import prepare
from fedd.pipeline import Source, predictions
from fedd.segment import Probes

#: Masks whose names are flushed together, as in `ddiseg.model.prediction_writer`.
TRANSACTION = 64


def open_photograph(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def decoding_rate(paths: Sequence[Path], size: int, threads: int, seconds: float) -> float:
    """Return the photographs a second that so many threads decode and resize to size x size."""
    start = time.perf_counter()

    def work(first: int) -> int:
        done = 0
        for path in cycle([*paths[first:], *paths[:first]]):
            prepare(open_photograph(path), size)
            done += 1
            if time.perf_counter() - start >= seconds:
                break
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    return done / (time.perf_counter() - start)


def flushed_write_seconds(folder: Path) -> float:
    """Return the median seconds of writing a small file that is on the disk afterwards."""
    seconds = []
    for number in range(20):
        start = time.perf_counter()
        atomic_write(folder / f"flushed {number}", bytes(4096), sync_folder=False)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class MaskFolder:
    """A store in a folder, into which threads write masks while others are predicted."""

    def __init__(self, folder: Path) -> None:
        self._store, self._palette = Store(str(folder)), load_protocol().palette()
        self._numbers = count()

    def write(self, masks: Iterator[Mask]) -> list[str]:
        """Write all masks, and return their names once these are on the disk too."""
        writer = MaskWriter(self._put)
        waiting: list[Future[str]] = []
        flushes: list[Future[list[str]]] = []
        with ThreadPoolExecutor(1) as flusher:
            try:
                for mask in masks:
                    waiting.append(writer.add(mask))
                    if len(waiting) == TRANSACTION:
                        flushes.append(flusher.submit(self._flush, waiting))
                        waiting = []
                flushes.append(flusher.submit(self._flush, waiting))
            finally:
                writer.end()
                writer.join()
        return [name for each in flushes for name in each.result()]

    def read(self, name: str) -> Mask:
        return decode_png(self._store.get(Kind.MASK, name))

    def _put(self, mask: Mask) -> str:
        # Equal photographs have equal masks; here each gets a file of its own.
        name = hashlib.sha256(f"{mask_hash(mask)} {next(self._numbers)}".encode()).hexdigest()
        self._store.put(Kind.MASK, name, encode_png(mask, self._palette))
        return name

    def _flush(self, stored: list[Future[str]]) -> list[str]:
        names = [each.result() for each in stored]
        self._store.flush_names(Kind.MASK, names)
        return names


def store_masks(
    probes: Probes, net: Backbone, paths: Sequence[Path], folder: MaskFolder, batch: int
) -> float:
    """Predict and store a mask of each photograph; returns the photographs a second.

    Raises RuntimeError if a photograph has no mask, or its file holds another.
    """
    sources = [Source(path, partial(open_photograph, path)) for path in paths]
    last: Mask = np.empty((0, 0), np.uint8)

    def masks() -> Iterator[Mask]:
        nonlocal last
        for each in predictions(probes, net, sources, batch=batch):
            if each.prediction is None:
                raise RuntimeError(f"{each.key.name} was not predicted") from each.error
            last = each.prediction.mask
            yield last

    start = time.perf_counter()
    names = folder.write(masks())
    seconds = time.perf_counter() - start
    if len(set(names)) != len(paths) or not np.array_equal(folder.read(names[-1]), last):
        raise RuntimeError("the stored masks are not the predicted ones")
    return len(paths) / seconds
