"""Near-duplicates: thumbnails of images, the pairs of images that were made from one picture, their groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import aliased

from ddiseg.catalogue.database import Repository, in_parts, scalars_in
from ddiseg.catalogue.grouping import connect
from ddiseg.catalogue.tables import Image, NearDuplicate, Thumbnail


@dataclass(frozen=True)
class ConfirmedPair:
    """Two images of one picture, by id; the first is the older."""

    first_id: int
    second_id: int
    correlation: float
    change: str  #: a `ddiseg.near_duplicates.Change`


@dataclass(frozen=True)
class NamedPair(ConfirmedPair):
    """A pair with what people know its images by."""

    names: tuple[str, str]
    patients: tuple[str | None, str | None]
    datasets: tuple[int, int]


class NearDuplicates(Repository):
    """The near-duplicates of a catalogue."""

    def without_thumbnail(self) -> Sequence[Image]:
        """Return the images that no thumbnail was made of yet: an older program imported them."""
        described = select(Thumbnail.image_id)
        return self._all(select(Image).where(Image.id.not_in(described)).order_by(Image.id))

    def describe(self, thumbnails: Mapping[int, tuple[bytes, bytes]]) -> None:
        """Store the (signature, pixels) of images without a thumbnail, by image id."""
        rows = [
            {"image_id": image_id, "signature": signature, "pixels": pixels}
            for image_id, (signature, pixels) in thumbnails.items()
        ]
        if rows:
            with self._database.write() as session:
                session.execute(insert(Thumbnail), rows)

    def not_compared(self) -> list[int]:
        """Return the ids of images that have a thumbnail and were not compared with the others yet."""
        query = select(Image.id).join(Thumbnail, Thumbnail.image_id == Image.id)
        return list(self._all(query.where(Image.near_group.is_(None)).order_by(Image.id)))

    def signatures(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the ids (N,) of images with a thumbnail, ascending, and their signatures (N, 72)."""
        query = select(Thumbnail.image_id, Thumbnail.signature).order_by(Thumbnail.image_id)
        rows = self._rows(query)
        joined = np.frombuffer(b"".join(signature for _, signature in rows), np.uint8)
        return np.array([image_id for image_id, _ in rows], np.int64), joined.reshape(len(rows), -1)

    def thumbnails(self, image_ids: Iterable[int]) -> dict[int, bytes]:
        """Return the pixels of thumbnails, by image id."""
        with self._database.read() as session:
            rows = scalars_in(session, select(Thumbnail), Thumbnail.image_id, list(image_ids))
            return {row.image_id: row.pixels for row in rows}

    def add(self, compared: Sequence[int], pairs: Sequence[ConfirmedPair]) -> None:
        """Store the pairs of images that were compared with all others, and their groups.

        Args:
            compared: ids of images without a group so far.
            pairs: each has one of these; the other has a group already or is one of these.
        """
        rows = [
            {"first_id": p.first_id, "second_id": p.second_id, "correlation": p.correlation, "change": p.change}
            for p in pairs
        ]  # fmt: skip
        with self._database.write() as session:
            for part in in_parts(compared):
                own = update(Image).where(Image.id.in_(part)).values(near_group=Image.id)
                session.execute(own.execution_options(synchronize_session=False))
            if not rows:
                return
            session.execute(insert(NearDuplicate), rows)
            ids = {i for pair in pairs for i in (pair.first_id, pair.second_id)}
            query = select(Image.id, func.coalesce(Image.near_group, Image.id))
            groups: dict[int, int] = {}
            for part in in_parts(ids):
                found = session.execute(query.where(Image.id.in_(part)))
                groups.update({image_id: group for image_id, group in found})
            for joined in _joined([(groups[p.first_id], groups[p.second_id]) for p in pairs]):
                one = update(Image).where(Image.near_group.in_(joined)).values(near_group=joined[0])
                session.execute(one.execution_options(synchronize_session=False))

    def pairs(self) -> list[NamedPair]:
        """Return all pairs, in the order of their images."""
        a, b = aliased(Image), aliased(Image)
        query = (
            select(NearDuplicate, a.name, b.name, a.patient, b.patient, a.dataset_id, b.dataset_id)
            .join(a, a.id == NearDuplicate.first_id)
            .join(b, b.id == NearDuplicate.second_id)
            .order_by(NearDuplicate.first_id, NearDuplicate.second_id)
        )
        return [
            NamedPair(
                *(row.first_id, row.second_id, row.correlation, row.change),
                names=(name_a, name_b),
                patients=(patient_a, patient_b),
                datasets=(dataset_a, dataset_b),
            )
            for row, name_a, name_b, patient_a, patient_b, dataset_a, dataset_b in self._rows(query)
        ]


def _joined(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the groups that pairs join, each ascending."""
    labels = sorted({group for pair in pairs for group in pair})
    place = {group: n for n, group in enumerate(labels)}
    numbers = connect(len(labels), [(place[a], place[b]) for a, b in pairs])
    found: dict[int, list[int]] = {}
    for group, number in zip(labels, numbers.tolist(), strict=True):
        found.setdefault(number, []).append(group)
    return [groups for groups in found.values() if len(groups) > 1]
