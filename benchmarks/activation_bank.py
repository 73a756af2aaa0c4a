"""Activations of photographs on disk, so that another seed of the same probes takes seconds.

Kept are the dense activations of the photographs that were named, and of their mirror images, and the
sampled training pixels of each example, view and seed. What a refinement pass looks at depends on the
probes: it is computed on demand, and kept in memory for other readings of the same probes.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedd.backbone import Backbone
from fedd.cache import (
    FeatureCache,
    entry_name,
    extract_as_cached,
    image_digest,
)
from fedd.errors import TrainingDataError
from fedd.features import FeatureSpec, prepare
from fedd.probes.pixels import Example, Pixels, PreparedExample, Sampling, sample
from fedd.weights.files import read_safetensors, write_safetensors

PIXELS_KIND = "benchmark-pixels"

#: Bytes of dense activations on disk by default, and images whose activations stay in memory.
LIMIT, IN_MEMORY = 16 * 10**9, 1024


class ActivationBank(FeatureCache):
    """A folder of activations for `train_probes(cache=..., sampler=...)` and `Probes.predict`."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        super().__init__(folder, limit)
        self._lasting: set[str] = set()
        self._recent: OrderedDict[str, Tensor] = OrderedDict()

    def keep(self, examples: Iterable[Example], size: int) -> None:
        """Keep activations of these photographs and their mirror images at a backbone's size on disk."""
        for example in examples:
            image = prepare(example.photograph, size)
            self._lasting |= {image_digest(image), image_digest(image.flip(-1))}

    def extract(self, backbone: Backbone, images: Tensor, spec: FeatureSpec) -> list[Tensor]:
        """Return `fedd.features.extract`, rounded to float16, from memory, disk or the backbone."""
        digests = [image_digest(image) for image in images]
        names = [[entry_name(backbone, d, block, spec) for block in spec.blocks] for d in digests]
        missing = [i for i, of in enumerate(names) if not all(n in self._recent for n in of)]
        for lasting in (True, False):
            rows = [i for i in missing if (digests[i] in self._lasting) is lasting]
            if rows:
                found = (
                    super().extract(backbone, images[rows], spec)
                    if lasting
                    else extract_as_cached(backbone, images[rows], spec, None)
                )
                for row, i in enumerate(rows):
                    for name, block in zip(names[i], found, strict=True):
                        self._recent[name] = block[row].half()
        for name in (n for of in names for n in of):
            self._recent.move_to_end(name)
        columns = zip(*([self._recent[name] for name in of] for of in names), strict=True)
        activations = [torch.stack(column).float() for column in columns]
        while len(self._recent) > IN_MEMORY * len(spec.blocks):
            self._recent.popitem(last=False)
        return activations

    def sampler(
        self,
        examples: Sequence[PreparedExample],
        backbone: Backbone,
        spec: FeatureSpec,
        sampling: Sampling,
        cache: FeatureCache | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Pixels:
        """Sample pixels as `fedd.probes.pixels.sample` does; those of each example are kept on disk."""
        parts: list[Pixels] = []
        for number, example in enumerate(examples):
            name = _pixels_name(example, backbone, spec, sampling)
            path = self.folder.parent / "pixels" / name[:2] / f"{name}.safetensors"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_pixels(path, sample([example], backbone, spec, sampling))
            found = read_pixels(path)
            parts.append(replace(found, image=torch.full_like(found.labels, number)))
            progress(number + 1)
        if not parts:
            raise TrainingDataError("there are no masks to learn from")
        return joined(parts)


def write_pixels(path: Path, pixels: Pixels) -> None:
    """Write sampled pixels, whole or not at all: each field is a tensor of its name."""
    tensors = {f.name: torch.as_tensor(getattr(pixels, f.name)) for f in fields(Pixels)}
    write_safetensors(path, tensors, {"kind": PIXELS_KIND}, durable=False)


def read_pixels(path: Path) -> Pixels:
    """Return what `write_pixels` wrote."""
    tensors, _ = read_safetensors(path, PIXELS_KIND)
    return Pixels(**{name: _field(name, tensor) for name, tensor in tensors.items()})


def _field(name: str, tensor: Tensor) -> Any:
    """Return a field's value: `channels` are a tuple of numbers, all others are tensors."""
    return tuple(tensor.tolist()) if name == "channels" else tensor


def joined(parts: Sequence[Pixels]) -> Pixels:
    """Return the pixels of several images as one."""
    values = {
        f.name: [getattr(part, f.name) for part in parts]
        for f in fields(Pixels)
        if isinstance(getattr(parts[0], f.name), Tensor)
    }
    return replace(parts[0], **{name: torch.cat(of) for name, of in values.items()})


def _pixels_name(
    example: PreparedExample, backbone: Backbone, spec: FeatureSpec, sampling: Sampling
) -> str:
    mask = hashlib.sha256(example.mask.numpy().tobytes()).hexdigest()
    layout = [f.name for f in fields(Pixels)]
    made_from = [example.digest, mask, backbone.hash, asdict(spec), asdict(sampling), layout]
    return hashlib.sha256(f"pixels {json.dumps(made_from)}".encode()).hexdigest()
