"""Groups of images that must stay together: of one patient, of one lesion, or near-duplicates.

Splits, subsets, batches and training all keep whole groups together, or apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ddiseg.catalogue.tables import Image
from ddiseg.images import near_duplicates


class Groupable(Protocol):
    """What decides to which group an image belongs: a row of the catalogue, or a part of it."""

    @property
    def id(self) -> int: ...
    @property
    def dataset_id(self) -> int: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def perceptual_hash(self) -> str: ...
    @property
    def patient(self) -> str | None: ...
    @property
    def lesion(self) -> str | None: ...


def patient_key(image: Image) -> str:
    """Return the patient of an image, or its content hash where the patient is not known."""
    return image.patient or image.content_hash


def group_keys(images: Sequence[Groupable]) -> dict[int, str]:
    """Return the key of each image's group, by image id.

    The key is the smallest content hash in the group, so it does not depend on row numbers.
    """
    first: dict[Hashable, int] = {}
    same = [
        (first.setdefault(identity, index), index)
        for index, image in enumerate(images)
        if (identity := _identity(image)) is not None
    ]
    return _smallest_hashes(images, _near(images) + same)


def near_duplicate_keys(images: Sequence[Groupable]) -> dict[int, str]:
    """Return the key of each image's group of near-duplicates alone, as `group_keys` does."""
    return _smallest_hashes(images, _near(images))


def _identity(image: Groupable) -> Hashable | None:
    """Return the patient; without one, the lesion, which is unique within a dataset only."""
    if image.patient is not None:
        return image.patient
    return None if image.lesion is None else (image.dataset_id, image.lesion)


def _near(images: Sequence[Groupable]) -> list[tuple[int, int]]:
    return [(i, j) for i, j, _ in near_duplicates([image.perceptual_hash for image in images])]


def _smallest_hashes(
    images: Sequence[Groupable], pairs: Sequence[tuple[int, int]]
) -> dict[int, str]:
    """Return the smallest content hash among the images that `pairs` of positions connect, by id."""
    rows, columns = np.array(pairs, np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(len(images),) * 2)
    labels = connected_components(graph, directed=False)[1].tolist() if len(images) else []
    keys: dict[int, str] = {}
    for image, label in zip(images, labels, strict=True):
        keys[label] = min(image.content_hash, keys.get(label, image.content_hash))
    return {image.id: keys[label] for image, label in zip(images, labels, strict=True)}
