"""Near-duplicates: thumbnails of images, the pairs of images that were made from one picture, their groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from ddiseg.catalogue.database import Repository, in_parts, scalars_in
from ddiseg.catalogue.groups import join_groups, pending_pairs, regroup
from ddiseg.catalogue.linking import connect
from ddiseg.catalogue.signatures import BLOCK, store_thumbnails, unpacked
from ddiseg.catalogue.tables import Image, NearDuplicate, SignatureBlock, Thumbnail


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
        described = select(Thumbnail.image_id).where(Thumbnail.image_id == Image.id)
        # An image that was compared has one: the index of those that were not is short.
        query = select(Image).where(Image.near_group.is_(None), ~exists(described))
        return self._all(query.order_by(Image.id))

    def describe(self, thumbnails: Mapping[int, tuple[bytes, bytes]]) -> None:
        """Store the (signature, pixels) of images without a thumbnail, by image id."""
        with self._database.write() as session:
            store_thumbnails(session, thumbnails)

    def not_compared(self, content_hashes: Collection[str] | None = None) -> list[int]:
        """Return the ids of images that have a thumbnail and were not compared with the others yet.

        Args:
            content_hashes: images to look at; all unless given.
        """
        query = select(Image.id).join(Thumbnail, Thumbnail.image_id == Image.id)
        query = query.where(Image.near_group.is_(None)).order_by(Image.id)
        if content_hashes is None:
            return list(self._all(query))
        return sorted(self._all_in(query, Image.content_hash, content_hashes))

    def signatures(
        self, first_id: int = 0
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Yield the ids (n,) of images with a thumbnail, ascending, and their signatures (n, 72), by 64 blocks.

        Args:
            first_id: blocks that end before this image are left out.
        """
        columns = SignatureBlock.__table__.c
        query = select(columns.id, columns.places, columns.signatures)
        query = query.where(columns.id >= first_id // BLOCK).order_by(columns.id)
        with self._database.read() as session:
            found = session.connection().execute(query.execution_options(yield_per=64))
            for blocks in found.partitions():
                ids, signatures = zip(*(unpacked(*block) for block in blocks), strict=True)
                yield np.concatenate(ids), np.concatenate(signatures)

    def signatures_of(self, image_ids: Sequence[int]) -> dict[int, bytes]:
        """Return the signatures of images with a thumbnail, by image id, ascending."""
        query = select(Thumbnail.image_id, Thumbnail.signature).order_by(Thumbnail.image_id)
        with self._database.read() as session:
            parts = (query.where(Thumbnail.image_id.in_(part)) for part in in_parts(image_ids))
            return {i: signature for part in parts for i, signature in session.execute(part)}

    def thumbnails(self, image_ids: Iterable[int]) -> dict[int, bytes]:
        """Return the pixels of thumbnails, by image id."""
        with self._database.read() as session:
            rows = scalars_in(session, select(Thumbnail), Thumbnail.image_id, list(image_ids))
            return {row.image_id: row.pixels for row in rows}

    def add(self, compared: Sequence[int], pairs: Sequence[ConfirmedPair]) -> None:
        """Store the pairs of images that were compared with all others, and their groups.

        Two processes may compare the same images at once: for the second one they are unchanged.

        Args:
            compared: ids of images without a group so far.
            pairs: each has one of these; the other has a group already or is one of these.
        """
        with self._database.write() as session:
            looked_alike = {i for pair in pending_pairs(session, compared) for i in pair}
            for part in in_parts(compared):
                own = update(Image).where(Image.id.in_(part), Image.near_group.is_(None))
                session.execute(
                    own.values(near_group=Image.id).execution_options(synchronize_session=False)
                )
            if new := _not_stored(session, pairs):
                session.execute(insert(NearDuplicate), list(map(vars, new)))
                _join_near_groups(session, new)
                join_groups(session, [(p.first_id, p.second_id) for p in new])
            regroup(session, looked_alike)

    def pairs(self, image_ids: Collection[int] | None = None) -> list[NamedPair]:
        """Return the pairs with one of these images, or all, in the order of their images."""
        a, b = aliased(Image), aliased(Image)
        query = (
            select(NearDuplicate, a.name, b.name, a.patient, b.patient, a.dataset_id, b.dataset_id)
            .join(a, a.id == NearDuplicate.first_id)
            .join(b, b.id == NearDuplicate.second_id)
        )
        queries = [query]
        if image_ids is not None:
            columns = NearDuplicate.first_id, NearDuplicate.second_id
            queries = [query.where(c.in_(p)) for p in in_parts(image_ids) for c in columns]
        found: dict[tuple[int, int], NamedPair] = {}
        with self._database.read() as session:
            for each in queries:
                for row, *names, first, second, of_first, of_second in session.execute(each):
                    found[row.first_id, row.second_id] = NamedPair(
                        *(row.first_id, row.second_id, row.correlation, row.change),
                        names=(names[0], names[1]),
                        patients=(first, second),
                        datasets=(of_first, of_second),
                    )
        return [found[ids] for ids in sorted(found)]


def _not_stored(session: Session, pairs: Sequence[ConfirmedPair]) -> list[ConfirmedPair]:
    columns = NearDuplicate.__table__.c
    query = select(columns.first_id, columns.second_id)
    stored: set[tuple[int, int]] = set()
    for part in in_parts({pair.second_id for pair in pairs}):
        found = session.execute(query.where(columns.second_id.in_(part)))
        stored.update((first, second) for first, second in found)
    return [pair for pair in pairs if (pair.first_id, pair.second_id) not in stored]


def _join_near_groups(session: Session, pairs: Sequence[ConfirmedPair]) -> None:
    """Give images of one picture the number of the oldest one."""
    ids = {i for pair in pairs for i in (pair.first_id, pair.second_id)}
    query = select(Image.id, func.coalesce(Image.near_group, Image.id))
    groups: dict[int, int] = {}
    for part in in_parts(ids):
        found = session.execute(query.where(Image.id.in_(part)))
        groups.update({image_id: group for image_id, group in found})
    for joined in _joined([(groups[p.first_id], groups[p.second_id]) for p in pairs]):
        one = update(Image).where(Image.near_group.in_(joined)).values(near_group=joined[0])
        session.execute(one.execution_options(synchronize_session=False))


def _joined(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the groups that pairs join, each ascending."""
    labels = sorted({group for pair in pairs for group in pair})
    place = {group: n for n, group in enumerate(labels)}
    numbers = connect(len(labels), [(place[a], place[b]) for a, b in pairs])
    found: dict[int, list[int]] = {}
    for group, number in zip(labels, numbers.tolist(), strict=True):
        found.setdefault(number, []).append(group)
    return [groups for groups in found.values() if len(groups) > 1]
