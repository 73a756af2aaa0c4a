"""Groups of images that must stay together: of one patient, of one lesion, or near-duplicates.

A group is everything that is connected by such links, through any image of the catalogue. Splits,
subsets, batches and training keep whole groups together, or apart; intervals resample whole groups;
an image is a test of a model only where the model learned from no image of its group.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.catalogue.linking import IdScope, LinkedImages, connect, look_alike


class Hashed(Protocol):
    """An image by its id and its pixels."""

    @property
    def id(self) -> int: ...
    @property
    def content_hash(self) -> str: ...


class Groupable(Hashed, Protocol):
    """What decides to which group an image belongs: a row of the catalogue, or a part of it."""

    @property
    def dataset_id(self) -> int: ...
    @property
    def perceptual_hash(self) -> str: ...
    @property
    def near_group(self) -> int | None: ...
    @property
    def patient(self) -> str | None: ...
    @property
    def lesion(self) -> str | None: ...


class Groups:
    """The groups of images, by image id. An image that is in none of the rows is a group of its own.

    About 16 bytes an image are in memory.
    """

    def __init__(
        self, images: Sequence[Groupable], scopes: Mapping[int, IdScope] | None = None
    ) -> None:
        """Group `images` in memory; `read` gives the groups that the catalogue keeps.

        Args:
            images: all images of a catalogue, since two may be linked by a third.
            scopes: what ids are unique within, by dataset id; a dataset without one has its own.
        """
        linked = LinkedImages(scopes)
        for image in sorted(images, key=lambda image: image.id):
            linked.add(
                image.id,
                image.dataset_id,
                image.perceptual_hash,
                image.near_group,
                image.patient,
                image.lesion,
            )
        pairs = np.array(list(linked.groups()), np.int64).reshape(-1, 2)
        self._keep(pairs[:, 0], pairs[:, 1])

    @classmethod
    def read(cls, catalogue: Catalogue) -> Groups:
        """Return the groups of all images of a catalogue."""
        groups = cls.__new__(cls)
        groups._keep(*catalogue.grouping.groups())
        return groups

    def _keep(self, ids: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
        self._ids, self._groups = ids, groups  # (N,), ids ascending
        by_id = np.full(int(ids[-1]) + 1 if len(ids) else 0, -1, np.int64)
        by_id[ids] = groups
        self._by_id = array("q", by_id.tobytes())  # read one by one far faster than NumPy's

    def number(self, image_id: int) -> int:
        """Return the number of an image's group; an image that is not known has one of its own."""
        known = 0 <= image_id < len(self._by_id)
        number = self._by_id[image_id] if known else -1
        return number if number >= 0 else -1 - image_id

    def keys(self, images: Sequence[Hashed]) -> list[str]:
        """Return a key of each image's group, one an image.

        The key is the smallest content hash among these images of the group: it depends neither on
        row numbers nor on other images, such as those that came into the catalogue later. Keys of two
        calls can't be compared.
        """
        smallest: dict[int, str] = {}
        numbers = [self.number(image.id) for image in images]
        for image, number in zip(images, numbers, strict=True):
            smallest[number] = min(image.content_hash, smallest.get(number, image.content_hash))
        return [smallest[number] for number in numbers]

    def count(self, image_ids: Iterable[int]) -> int:
        """Return the number of groups of these images."""
        return len({self.number(image_id) for image_id in image_ids})

    def relatives(self, image_ids: Collection[int]) -> set[int]:
        """Return the ids of all images in the groups of these images, themselves included."""
        groups = np.array([self.number(image_id) for image_id in image_ids], np.int64)
        return set(self._ids[np.isin(self._groups, groups)].tolist()) | {*image_ids}

    def sharing(self, image_ids: Iterable[int], others: Iterable[int]) -> set[int]:
        """Return those of `image_ids` whose group has an image in `others`."""
        groups = {self.number(image_id) for image_id in others}
        return {image_id for image_id in image_ids if self.number(image_id) in groups}


def identities(
    images: Sequence[Groupable], groups: Mapping[int, int], scopes: Mapping[int, IdScope]
) -> dict[int, str]:
    """Return by image id what names its group, however many images come or are accepted later.

    The smallest patient of the group, with its scope; else the smallest lesion, else content hash.

    Args:
        images: all images of these groups.
        groups: number of the group, by image id.
    """
    names: dict[int, tuple[int, str]] = {}
    for image in images:
        name, number = _name(image, scopes), groups[image.id]
        names[number] = min(name, names.get(number, name))
    return {image.id: names[groups[image.id]][1] for image in images}


def near_duplicates(images: Sequence[Groupable]) -> dict[int, int]:
    """Return the number of each image's group of near-duplicates alone, by image id.

    Images that were not compared yet count as near-duplicates where they look alike.
    """
    pending = [(i, each) for i, each in enumerate(images) if each.near_group is None]
    pairs = look_alike([(i, each.perceptual_hash, each.patient) for i, each in pending])
    numbers = connect(len(images), pairs).tolist()
    return {
        image.id: -1 - number if image.near_group is None else image.near_group
        for image, number in zip(images, numbers, strict=True)
    }


def _ids(image: Groupable, scopes: Mapping[int, IdScope]) -> list[tuple[str, ...]]:
    """Return the patient and the lesion of an image, as far as they are known, with their scope."""
    patient, lesion = normalise_id(image.patient), normalise_id(image.lesion)
    if patient is None and lesion is None:
        return []
    scope = scopes.get(image.dataset_id) or IdScope(f"#{image.dataset_id}")
    found: list[tuple[str, ...]] = []
    if patient is not None:
        found.append(("patient", scope.patients, patient))
    if lesion is not None:
        owner = (patient or "",) if scope.lesions_per_patient else ()
        found.append(("lesion", scope.patients, *owner, lesion))
    return found


def _name(image: Groupable, scopes: Mapping[int, IdScope]) -> tuple[int, str]:
    """Return the identity of an image by itself, as `Groups.identities` prefers them."""
    ids = _ids(image, scopes)
    if not ids:
        return 2, image.content_hash
    return (0 if ids[0][0] == "patient" else 1), json.dumps(ids[0])
