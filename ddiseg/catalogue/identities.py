"""Names, ids and moments that may identify a person, read as a stream: there may be millions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Select, select, union

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.tables import Dataset, Image, Mask, Review, Skip, Source, Subset

#: Rows that are read at once.
_PAGE = 1000


class ImageIdentity(NamedTuple):
    """What identifies an image and who is on it."""

    dataset_id: int
    content_hash: str
    name: str
    patient: str | None
    lesion: str | None
    created_at: str


class Identities(Repository):
    """The identities of a catalogue."""

    def people(self) -> set[str]:
        """Return everybody who drew, reviewed or skipped."""
        people = union(
            select(Mask.annotator).where(Mask.annotator.is_not(None)),
            select(Review.reviewer),
            select(Skip.annotator).where(Skip.reopened_at.is_(None)),
        ).subquery()
        return {name for name in self._all(select(people.c[0])) if name is not None}

    def images(self) -> Iterator[ImageIdentity]:
        """Yield the identities of all images, in the order of their ids."""
        columns: list[Any] = [getattr(Image, name) for name in ImageIdentity._fields]
        yield from map(ImageIdentity._make, self._stream(select(*columns).order_by(Image.id)))

    def paths(self) -> Iterator[str]:
        """Yield the paths of all files that images were read from."""
        yield from (path for (path,) in self._stream(select(Source.path).order_by(Source.id)))

    def moments(self) -> Iterator[str]:
        """Yield when masks were drawn and reviewed."""
        for column in (Mask.created_at, Review.created_at):
            yield from (at for (at,) in self._stream(select(column)))

    def diagnoses(self) -> list[str]:
        """Return the diagnoses of all images, each once."""
        return [text for text in self._all(select(Image.diagnosis).distinct()) if text]

    def free_texts(self) -> set[str]:
        """Return the texts of a release that a person wrote, each once.

        Diagnoses, sources of tones, and names of datasets and subsets.
        """
        columns: list[Any] = [Image.diagnosis, Image.tone_source, Dataset.name, Subset.name]
        found: set[str] = set()
        for column in columns:
            found.update(text for text in self._all(select(column).distinct()) if text)
        return found

    def _stream(self, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
        with self._database.read() as session:
            yield from map(tuple, session.execute(query.execution_options(yield_per=_PAGE)))
