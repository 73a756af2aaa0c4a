"""What links images: the same patient, the same lesion, or one picture; and the groups that links make."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.catalogue.tables import Dataset


@dataclass(frozen=True)
class IdScope:
    """What the ids of a dataset are unique within."""

    patients: str  #: datasets of one scope share their patients; by default the dataset's own name
    lesions_per_patient: bool = False  #: lesions are numbered anew for each patient


class LinkedImages:
    """Images with their patients, lesions and near-duplicates, and the groups that these make.

    About 60 bytes an image are kept, however long the ids.
    """

    def __init__(self, scopes: Mapping[int, IdScope] | None = None) -> None:
        """Begin without images.

        Args:
            scopes: what ids are unique within, by dataset id; a dataset without one has its own.
        """
        self._scopes = scopes or {}
        self._ids = array("q")
        self._keys, self._linked = array("q"), array("q")  # keys, and positions of their images
        self._near, self._compared = array("q"), array("q")  # near-groups, and positions
        self._pending: list[
            tuple[int, str, str | None]
        ] = []  # not compared: position, hash, patient

    def add(
        self,
        image_id: int,
        dataset_id: int,
        perceptual_hash: str,
        near_group: int | None,
        patient: str | None,
        lesion: str | None,
    ) -> None:
        """Add an image, whose id is larger than those before it."""
        position = len(self._ids)
        self._ids.append(image_id)
        for key in link_keys(self._scopes.get(dataset_id), dataset_id, patient, lesion):
            self._keys.append(key)
            self._linked.append(position)
        if near_group is None:
            self._pending.append((position, perceptual_hash, patient))
        else:
            self._near.append(near_group)
            self._compared.append(position)

    def links(self) -> Iterator[tuple[int, int]]:
        """Yield the keys of all images, each with the id of its image."""
        for key, position in zip(self._keys, self._linked, strict=True):
            yield key, self._ids[position]

    def groups(self) -> Iterator[tuple[int, int]]:
        """Yield the id of each image, and of the oldest image of its group."""
        ids = np.array(self._ids, np.int64)
        pairs = [
            _with_one_key(self._keys, self._linked),
            _with_one_key(self._near, self._compared),
            np.array(look_alike(self._pending), np.intp).reshape(-1, 2),
        ]
        numbers = connect(len(ids), np.concatenate(pairs))
        # The first of a group is its oldest image: they come in the order of their ids.
        _, first = np.unique(numbers, return_index=True)
        yield from zip(ids.tolist(), ids[first[numbers]].tolist(), strict=True)


def link_keys(
    scope: IdScope | None, dataset_id: int, patient: str | None, lesion: str | None
) -> list[int]:
    """Return what stands for the patient and the lesion of an image, as far as they are known.

    64 bits of a hash: that two of a million ids have the same one, which would keep two groups
    together, happens in one of ten million catalogues.
    """
    patient, lesion = normalise_id(patient), normalise_id(lesion)
    if patient is None and lesion is None:
        return []
    scope = scope or IdScope(f"#{dataset_id}")
    found = []
    if patient is not None:
        found.append(_key("patient", scope.patients, patient))
    if lesion is not None:
        owner = (patient or "",) if scope.lesions_per_patient else ()
        found.append(_key("lesion", scope.patients, *owner, lesion))
    return found


def _key(*parts: str) -> int:
    text = "\0".join([str(len(parts)), *parts]).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


def look_alike(images: Sequence[tuple[int, str, str | None]]) -> list[tuple[int, int]]:
    """Return pairs of images that were not compared yet, and may be near-duplicates.

    An import compares thumbnails. Until then, those with perceptual hashes that are near count, unless
    they are of two known patients.

    Args:
        images: what names each, its perceptual hash, and its patient.
    """
    if len(images) < 2:
        return []
    from ddiseg.images import near_duplicates  # not at the start of every command

    pairs = []
    for i, j, _ in near_duplicates([perceptual_hash for _, perceptual_hash, _ in images]):
        patients = {normalise_id(images[position][2]) for position in (i, j)}
        if None in patients or len(patients) == 1:
            pairs.append((images[i][0], images[j][0]))
    return pairs


def _with_one_key(keys: array[int], positions: array[int]) -> NDArray[np.intp]:
    """Return pairs (n, 2) of positions that have the same key: each with the next one that has it."""
    values, places = np.array(keys, np.int64), np.array(positions, np.intp)
    order = np.argsort(values, kind="stable")
    values, places = values[order], places[order]
    same = values[1:] == values[:-1]
    return np.stack([places[:-1][same], places[1:][same]], axis=1)


def id_scopes(session: Session) -> dict[int, IdScope]:
    """Return what the ids of each dataset are unique within, by dataset id."""
    return {
        row.id: IdScope(row.patient_scope or row.name, row.lesions_per_patient)
        for row in session.scalars(select(Dataset).order_by(Dataset.id))
    }


def connect(count: int, links: Sequence[tuple[int, int]] | NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the number of each image's group, (count,), by the links between positions."""
    from scipy.sparse import coo_array  # not at the start of every command
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.empty(0, np.intp)
    rows, columns = np.array(links, np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(count, count))
    numbers: NDArray[np.intp] = connected_components(graph, directed=False)[1]
    return numbers
