"""Activations on disk, so that a photograph passes through the backbone once.

An entry is named by the hash of its inputs (pixels, backbone, block, timestep, noise sample,
resolution, precision, kind of device), so it never goes stale. The other images of its batch are not
part of the name, although they decide how sums are rounded: entries may differ by rounding.

An entry holds (C, h, w) float16 as safetensors, with a checksum. It is written atomically, so several
processes may share a folder: two may write the same entry, and either may find one missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from fedd.backbone import Backbone, precision_of, weights_key
from fedd.errors import WeightsError
from fedd.features import FeatureSpec, check_finite, extract
from fedd.weights.files import read_safetensors, write_safetensors

CACHE_KIND = "fedd-features"

#: Version of the entries' layout; an entry of another version counts as missing.
VERSION = "1"

#: Default size limit in bytes.
DEFAULT_LIMIT = 4 * 10**9

#: Share of the limit kept by an eviction, so that not every later entry causes another.
KEPT_SHARE = 0.9

#: Entries written before the folder is measured again: another process may have added to it.
MEASURED_EVERY = 64

#: Seconds after which a temporary file is taken for one of a killed process.
ABANDONED = 3600

#: Threads that read and write entries of a batch.
THREADS = 8

A = TypeVar("A")
B = TypeVar("B")

#: Largest number of float16.
_LARGEST = 65504.0


class FeatureCache:
    """A folder of activations of at most about `limit` bytes; the least recently used are evicted.

    If the folder can't be written, nothing more is cached and `problem` says why.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()  # of the two last ones below
        self.problem: str | None = None
        self._size = 0
        self._until_measured = 0

    def extract(self, backbone: Backbone, images: Tensor, spec: FeatureSpec) -> list[Tensor]:
        """Return `fedd.features.extract`, rounded to float16; computes only images without an entry."""
        names = [
            [entry_name(backbone, digest, block, spec) for block in spec.blocks]
            for digest in map(image_digest, images)
        ]
        found = on_threads(self._read_all, names)
        missing = [i for i, blocks in enumerate(found) if not blocks]
        if missing:
            computed = [to_half(a).cpu() for a in extract(backbone, images[missing], spec)]
            written: list[tuple[str, Tensor]] = []
            for row, i in enumerate(missing):
                found[i] = [block[row] for block in computed]
                written += zip(names[i], found[i], strict=True)
            on_threads(lambda entry: self._write(*entry), written)
        columns = zip(*found, strict=True)
        return [torch.stack(column).to(backbone.device).float() for column in columns]

    def _read_all(self, names: Sequence[str]) -> list[Tensor]:
        """Return the entries of one image; none if one is missing."""
        found = []
        for name in names:
            activation = self._read(name)
            if activation is None:
                return []
            found.append(activation)
        return found

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, name: str) -> Tensor | None:
        """Return an entry (C, h, w) float16, or None if it is missing or damaged."""
        path = self._path(name)
        try:
            tensors, header = read_safetensors(path, CACHE_KIND)
            activation = tensors["activations"]
        except (WeightsError, KeyError):
            return None
        expected = {"version": VERSION, "entry": name, "crc32": _checksum(activation)}
        if any(header.get(key) != value for key, value in expected.items()):
            return None
        with contextlib.suppress(OSError):  # removed meanwhile, or a read-only folder
            os.utime(path)
        return activation

    def _write(self, name: str, activation: Tensor) -> None:
        size = activation.numel() * activation.element_size()
        if self.problem is not None or size > self.limit:
            return
        header = {
            "kind": CACHE_KIND,
            "version": VERSION,
            "entry": name,
            "crc32": _checksum(activation),
        }
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_safetensors(path, {"activations": activation.contiguous()}, header, durable=False)
            with self._lock:
                self._size += size
                self._until_measured -= 1
                if self._until_measured < 0 or self._size > self.limit:
                    self._evict()
        except OSError as error:
            why = f"{path.parent}: {error.strerror}" if error.strerror else str(error)
            self.problem = f"activations are not kept: {why}"

    def _evict(self) -> None:
        """Measure the folder; over the limit, remove the least recently used entries."""
        entries = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # another process evicts too
                status = path.stat()
                if path.name.startswith(".") and time.time() - status.st_mtime > ABANDONED:
                    path.unlink()
                else:
                    entries.append((status.st_mtime_ns, path, status.st_size))
        self._size = sum(size for _, _, size in entries)
        self._until_measured = MEASURED_EVERY
        if self._size <= self.limit:
            return
        for _, path, size in sorted(entries):
            if self._size <= self.limit * KEPT_SHARE:
                break
            path.unlink(missing_ok=True)
            self._size -= size


class NothingKept(FeatureCache):
    """Rounds activations as a cache does, and keeps none: where another machine computes, and has no disk for them."""

    def __init__(self) -> None:
        super().__init__(Path(), 0)

    def extract(self, backbone: Backbone, images: Tensor, spec: FeatureSpec) -> list[Tensor]:
        """Return `fedd.features.extract`, rounded to float16."""
        return extract_as_cached(backbone, images, spec, None)


def extract_as_cached(
    backbone: Backbone, images: Tensor, spec: FeatureSpec, cache: FeatureCache | None
) -> list[Tensor]:
    """Return activations rounded as a cache does, so that using a cache changes no more than rounding."""
    if cache is not None:
        return cache.extract(backbone, images, spec)
    return [to_half(a).float() for a in extract(backbone, images, spec)]


def on_threads(job: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """Return the result of a job for each item, in their order, computed on threads."""
    if len(items) <= 1:
        return [job(item) for item in items]
    with ThreadPoolExecutor(min(THREADS, len(items)), "cache") as pool:
        return list(pool.map(job, items))


def image_digest(image: Tensor) -> str:
    """Return the SHA-256 of a prepared image, (3, S, S) in [-1, 1], as 8-bit pixels."""
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()
    return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()


def entry_name(backbone: Backbone, digest: str, block: int, spec: FeatureSpec) -> str:
    """Return the hash of everything that determines one block's activations for one image."""
    made_from = {
        "image": digest,
        "backbone": weights_key(backbone),
        "precision": precision_of(backbone),
        "device": backbone.device.type,  # a GPU rounds differently from a CPU
        "resolution": backbone.image_size,
        "block": block,
        "timestep": spec.timestep,
        "noise": spec.noise,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def to_half(activations: Tensor) -> Tensor:
    """Return activations as float16; raises WeightsError if one is not a finite number."""
    return check_finite(activations).clamp(-_LARGEST, _LARGEST).half()


def _checksum(activation: Tensor) -> str:
    return f"{zlib.crc32(activation.contiguous().numpy().data):08x}"
