"""Groups of images that must stay together: of one patient, of one lesion, or near-duplicates.

A group is everything that is connected by such links, through any image of the catalogue. Splits,
subsets, batches and training keep whole groups together, or apart; intervals resample whole groups;
an image is a test of a model only where the model learned from no image of its group.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.grouping import IdScope, connect
from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.images import near_duplicates


class Hashed(Protocol):
    """An image by its id and its pixels."""

    @property
    def id(self) -> int: ...
    @property
    def content_hash(self) -> str: ...


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
    def near_group(self) -> int | None: ...
    @property
    def patient(self) -> str | None: ...
    @property
    def lesion(self) -> str | None: ...


class Groups:
    """The groups of images, by image id. An image that is in none of the rows is a group of its own."""

    def __init__(
        self, images: Sequence[Groupable], scopes: Mapping[int, IdScope] | None = None
    ) -> None:
        """Group `images`; use `read` unless they are all images of the catalogue already.

        Args:
            images: all images of a catalogue, since two may be linked by a third.
            scopes: what ids are unique within, by dataset id; a dataset without one has its own.
        """
        self._images = images
        self._scopes = scopes or {}
        self._near = _near(images)
        links = [*self._near, *_links(images, self._scopes)]
        self.numbers = connect(len(images), links)  #: (N,), number of each image's group
        self._number = self._by_id(self.numbers)

    @classmethod
    def read(cls, catalogue: Catalogue) -> Groups:
        """Return the groups of all images of a catalogue."""
        return cls(catalogue.grouping.rows(), catalogue.grouping.scopes())

    def number(self, image_id: int) -> int:
        """Return the number of an image's group; an image that is not known has one of its own."""
        return self._number.get(image_id, -1 - image_id)

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
        groups = {self.number(image_id) for image_id in image_ids}
        return {i for i, number in self._number.items() if number in groups} | {*image_ids}

    def sharing(self, image_ids: Iterable[int], others: Iterable[int]) -> set[int]:
        """Return those of `image_ids` whose group has an image in `others`."""
        groups = {self.number(image_id) for image_id in others}
        return {image_id for image_id in image_ids if self.number(image_id) in groups}

    def near_duplicates(self) -> dict[int, int]:
        """Return the number of each image's group of near-duplicates alone, by image id."""
        return self._by_id(connect(len(self._images), self._near))

    def identities(self) -> dict[int, str]:
        """Return by image id what names its group, however many images come or are accepted later.

        The smallest patient of the group, with its scope; else the smallest lesion, else content hash.
        """
        names: dict[int, tuple[int, str]] = {}
        for image, number in zip(self._images, self.numbers.tolist(), strict=True):
            name = _name(image, self._scopes)
            names[number] = min(name, names.get(number, name))
        return {image_id: names[number][1] for image_id, number in self._number.items()}

    def _by_id(self, numbers: NDArray[np.intp]) -> dict[int, int]:
        return dict(zip((image.id for image in self._images), numbers.tolist(), strict=True))


def _links(images: Sequence[Groupable], scopes: Mapping[int, IdScope]) -> list[tuple[int, int]]:
    """Return pairs of positions of images that are linked; each is linked to the first of its id."""
    first: dict[Hashable, int] = {}
    links: list[tuple[int, int]] = []
    for position, image in enumerate(images):
        for key in _ids(image, scopes):
            if (other := first.setdefault(key, position)) != position:
                links.append((other, position))
    return links


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


def _near(images: Sequence[Groupable]) -> list[tuple[int, int]]:
    """Return pairs of positions of near-duplicates: those that the import confirmed.

    Images that an older program imported were not compared yet. Until the next import, those with
    perceptual hashes that are near count, unless they are of two known patients.
    """
    first: dict[int, int] = {}
    pairs, older = [], []
    for position, image in enumerate(images):
        if image.near_group is None:
            older.append(position)
        elif (other := first.setdefault(image.near_group, position)) != position:
            pairs.append((other, position))
    for i, j, _ in near_duplicates([images[position].perceptual_hash for position in older]):
        a, b = older[i], older[j]
        patients = {normalise_id(images[position].patient) for position in (a, b)}
        if None in patients or len(patients) == 1:
            pairs.append((a, b))
    return pairs
