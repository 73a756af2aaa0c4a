"""Pooled features of many blocks from one pass of each photograph, cached on disk.

The paper reads another block for each fraction; the activations of the finest take 33 MB per photograph,
pooled they take 2 kB.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from fedd.backbone import Backbone, precision_of, weights_key
from fedd.batches import Source, run
from fedd.cache import image_digest
from fedd.dataset import DatasetImage
from fedd.errors import WeightsError
from fedd.features import Prepared, check_finite
from fedd.malignancy.pooling import pooled
from fedd.weights.files import read_safetensors, write_safetensors

POOLED_KIND = "fedd-pooled"


class PooledFeatures:
    """Pooled activations of `blocks` at a timestep, equal to `fedd.malignancy.classifier.features_of`."""

    def __init__(
        self, backbone: Backbone, blocks: Sequence[int], timestep: int, folder: Path
    ) -> None:
        self._backbone, self._timestep, self._folder = backbone, timestep, folder
        self._blocks = tuple(sorted(set(blocks)))

    def of(self, items: Sequence[DatasetImage], block: int) -> Tensor:
        """Return (N, F) float32 of one block; only new photographs pass through the backbone.

        Raises WeightsError if the activations are not numbers.
        """
        sources = [Source(item, item.photograph) for item in items]
        with closing(run(self._backbone, sources, self._compute, expected=())) as done:
            return torch.stack([found[str(block)] for _, found, _ in done if found is not None])

    def _compute(self, batch: Prepared) -> Generator[None, None, list[dict[str, Tensor]]]:
        paths = [self._path(image) for image in batch.images]
        known = [_read(path) for path in paths]
        new = [i for i, features in enumerate(known) if features is None]
        if new:
            computed = self._activations(batch.images[new])
            yield
            for row, i in enumerate(new):
                known[i] = {key: features[row].clone() for key, features in computed.items()}
                self._write(paths[i], known[i] or {})
        return [features for features in known if features is not None]

    @torch.inference_mode()
    def _activations(self, images: Tensor) -> dict[str, Tensor]:
        activations = self._backbone.activations(images, self._timestep, self._blocks)
        return {str(block): check_finite(pooled(a).cpu()) for block, a in activations.items()}

    def _path(self, image: Tensor) -> Path:
        made_from = {
            "image": image_digest(image),
            "backbone": weights_key(self._backbone),
            "precision": precision_of(self._backbone),
            "blocks": self._blocks,
            "timestep": self._timestep,
        }
        name = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{name}.safetensors"

    def _write(self, path: Path, features: dict[str, Tensor]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, features, {"kind": POOLED_KIND}, durable=False)


def _read(path: Path) -> dict[str, Tensor] | None:
    """Return features by block; None if the file is missing or unreadable."""
    try:
        return read_safetensors(path, POOLED_KIND)[0]
    except WeightsError:
        return None
