"""The files that images were read from, looked up by name or read as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select

from ddiseg.catalogue.database import Repository, in_parts, named
from ddiseg.catalogue.tables import Dataset, Image, Source

#: Rows that are read at once.
_PAGE = 1000

#: Names that one query looks up.
_NAMES_IN_A_QUERY = 100


class Sources(Repository):
    """The files that the images of one dataset, or of all, were read from."""

    def check_dataset(self, dataset: str | None) -> None:
        """Raise NotFoundError where there is no such dataset."""
        with self._database.read() as session:
            if dataset is not None:
                named(session, Dataset, dataset)

    def named(self, names: Sequence[str], dataset: str | None) -> list[tuple[str, int]]:
        """Return path and image id of the files with one of these names, with an ending or without.

        A file whose name begins with one of them and a dot is among them, too.
        """
        found: set[tuple[int, str, int]] = set()
        is_sqlite = self._database.engine.dialect.name == "sqlite"
        column = Source.name if is_sqlite else Source.name.collate("C")
        with self._database.read() as session:
            for start in range(0, len(names), _NAMES_IN_A_QUERY):
                part = names[start : start + _NAMES_IN_A_QUERY]
                query = _of_dataset(select(Source.id, Source.path, Source.image_id), dataset)
                rows = session.execute(query.where(or_(*(_begins(column, each) for each in part))))
                found.update((source_id, path, image_id) for source_id, path, image_id in rows)
        return [(path, image_id) for _, path, image_id in sorted(found)]

    def stream(self, dataset: str | None) -> Iterator[tuple[str, int]]:
        """Yield path and image id of all files, in the order in which they were imported."""
        query = select(Source.path, Source.image_id).order_by(Source.id)
        yield from self._stream(_of_dataset(query, dataset))

    def stream_hashes(self, dataset: str | None) -> Iterator[tuple[str, int]]:
        """Yield content hash and id of the images that the files are of."""
        files = _of_dataset(select(Source.image_id), dataset)
        query = select(Image.content_hash, Image.id).where(Image.id.in_(files)).order_by(Image.id)
        yield from self._stream(query)

    def orientations(self, image_ids: Iterable[int]) -> dict[int, frozenset[int | None]]:
        """Return the EXIF orientations of the files of each image; None: not recorded."""
        found: dict[int, set[int | None]] = {}
        query = select(Source.image_id, Source.orientation)
        with self._database.read() as session:
            for part in in_parts(image_ids):
                for image_id, orientation in session.execute(
                    query.where(Source.image_id.in_(part))
                ):
                    found.setdefault(image_id, set()).add(orientation)
        return {image_id: frozenset(each) for image_id, each in found.items()}

    def _stream(self, query: Select[str, int]) -> Iterator[tuple[str, int]]:
        with self._database.read() as session:
            rows = session.execute(query.execution_options(yield_per=_PAGE))
            yield from ((text, image_id) for text, image_id in rows)


def _begins(column: Any, name: str) -> ColumnElement[bool]:
    """Return the condition that a file's name is `name`, or begins with it and a dot."""
    return or_(column == name, and_(column >= f"{name}.", column < f"{name}/"))  # "/" follows "."


def _of_dataset(query: Any, dataset: str | None) -> Any:
    if dataset is None:
        return query
    wanted = select(Dataset.id).where(Dataset.name == dataset).scalar_subquery()
    return query.where(Source.dataset_id == wanted)
