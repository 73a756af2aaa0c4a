"""Images and masks by the hashes of their pixels, which models know them by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import select

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.tables import Image, Mask

#: Hashes that one query names, and images of one page.
_HASHES_IN_A_QUERY, _PAGE = 500, 20


class Hashes(Repository):
    """What the catalogue has by content hash."""

    def tones_of_images(self, digests: Iterable[str]) -> dict[str, str]:
        """Return the tone of each image, by its hash."""
        return dict(self._pairs(digests, of_masks=False))

    def tones_of_masks(self, digests: Iterable[str]) -> dict[str, str]:
        """Return the tone of each mask's image, by hash; unknown where images of several tones have it."""
        tones: dict[str, str] = {}
        for digest, tone in self._pairs(digests, of_masks=True):
            if tones.setdefault(digest, tone) != tone:
                tones[digest] = "unknown"
        return tones

    def image_ids(self, digests: Iterable[str]) -> set[int]:
        """Return the ids of the images with these hashes."""
        with self._database.read() as session:
            return {
                image_id
                for part in _parts(digests)
                for image_id in session.scalars(
                    select(Image.id).where(Image.content_hash.in_(part))
                )
            }

    def images_of_tone(self, tone: str) -> Iterator[Image]:
        """Yield the images of a tone in the order of their hashes; few are read ahead."""
        last = ""
        query = select(Image).where(Image.tone == tone).order_by(Image.content_hash).limit(_PAGE)
        while page := self._all(query.where(Image.content_hash > last)):
            yield from page
            last = page[-1].content_hash

    def _pairs(self, digests: Iterable[str], *, of_masks: bool) -> Iterator[tuple[str, str]]:
        query = select(Image.content_hash, Image.tone)
        column = Image.content_hash
        if of_masks:
            query = select(Mask.content_hash, Image.tone).distinct()
            query = query.join(Image, Image.id == Mask.image_id)
            column = Mask.content_hash
        with self._database.read() as session:
            for part in _parts(digests):
                rows = session.execute(query.where(column.in_(part)))
                yield from ((digest, tone) for digest, tone in rows)


def _parts(digests: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(set(digests))
    for start in range(0, len(ordered), _HASHES_IN_A_QUERY):
        yield ordered[start : start + _HASHES_IN_A_QUERY]
