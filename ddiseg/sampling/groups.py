"""Groups of images that must stay together: of one patient, of one lesion, or near-duplicates.

Splits, subsets, batches and training all keep whole groups together, or apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
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
    return _smallest_hashes(images, group_numbers(images))


def near_duplicate_keys(images: Sequence[Groupable]) -> dict[int, str]:
    """Return the key of each image's group of near-duplicates alone, as `group_keys` does."""
    return _smallest_hashes(images, _connect(_near(images), np.arange(len(images))))


def group_numbers(images: Sequence[Groupable]) -> NDArray[np.intp]:
    """Return the number of each image's group, (N,): cheaper than the keys where N is large."""
    first: dict[Hashable, int] = {}
    same = [
        index if (identity := _identity(image)) is None else first.setdefault(identity, index)
        for index, image in enumerate(images)
    ]
    return _connect(_near(images), np.array(same, np.intp))


def _identity(image: Groupable) -> Hashable | None:
    """Return the patient; without one, the lesion, which is unique within a dataset only."""
    if image.patient is not None:
        return image.patient
    return None if image.lesion is None else (image.dataset_id, image.lesion)


def _near(images: Sequence[Groupable]) -> list[tuple[int, int]]:
    return [(i, j) for i, j, _ in near_duplicates([image.perceptual_hash for image in images])]


def _connect(pairs: Sequence[tuple[int, int]], same: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the number of each image's group, (N,).

    Args:
        pairs: positions of two images of a group.
        same: the position of an image of the same group, which may be the image itself, (N,).
    """
    if not len(same):
        return same
    rows, columns = np.array(pairs, np.intp).reshape(-1, 2).T
    rows, columns = np.append(rows, np.arange(len(same))), np.append(columns, same)
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(len(same),) * 2)
    numbers: NDArray[np.intp] = connected_components(graph, directed=False)[1]
    return numbers


def _smallest_hashes(images: Sequence[Groupable], numbers: NDArray[np.intp]) -> dict[int, str]:
    """Return the smallest content hash in each image's group, by image id."""
    keys: dict[int, str] = {}
    groups = numbers.tolist()
    for image, group in zip(images, groups, strict=True):
        keys[group] = min(image.content_hash, keys.get(group, image.content_hash))
    return {image.id: keys[group] for image, group in zip(images, groups, strict=True)}
