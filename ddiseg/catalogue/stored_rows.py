"""What the catalogue says of each stored file, page by page: a check of files may take hours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Select, exists, func, select, union
from sqlalchemy.orm import InstrumentedAttribute

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.tables import EvaluatedImage, Image, Mask, ModelVersion

#: Files of one page.
_PAGE = 500


class MaskRow(NamedTuple):
    """A mask with its image, as far as its file says the same."""

    id: int
    content_hash: str
    image_id: int
    image_name: str
    image_width: int
    image_height: int
    width: int
    height: int
    mapping: str
    unlabelled: int
    annotator: str | None
    model_version_id: int | None

    @property
    def author(self) -> str:
        return self.annotator or f"model #{self.model_version_id}"


class TruthRow(NamedTuple):
    """A true mask that an evaluation compared, with its image."""

    event_id: int
    truth_hash: str
    image_id: int
    image_name: str
    image_width: int
    image_height: int


class ModelRow(NamedTuple):
    """The file of a model version."""

    name: str
    file_hash: str


_MASK_COLUMNS: tuple[Any, ...] = (
    *(Mask.id, Mask.content_hash, Mask.image_id, Image.name, Image.width, Image.height),
    *(Mask.width, Mask.height, Mask.mapping, Mask.unlabelled),
    *(Mask.annotator, Mask.model_version_id),
)
_TRUTH_COLUMNS: tuple[Any, ...] = (
    *(EvaluatedImage.event_id, EvaluatedImage.truth_hash, EvaluatedImage.image_id),
    *(Image.name, Image.width, Image.height),
)


class StoredRows(Repository):
    """The rows that name files of the store; each page is a transaction of its own."""

    def images(self) -> Iterator[Image]:
        """Yield all images in the order of their ids."""
        last = 0
        while page := self._all(
            select(Image).where(Image.id > last).order_by(Image.id).limit(_PAGE)
        ):
            yield from page
            last = page[-1].id

    def masks(self) -> Iterator[list[MaskRow]]:
        """Yield the masks of each file, the files in the order of their hashes."""
        query = select(*_MASK_COLUMNS).join(Image, Image.id == Mask.image_id).order_by(Mask.id)
        for rows in self._by_file(Mask.content_hash, select(Mask.content_hash), query):
            yield list(map(MaskRow._make, rows))

    def truths(self) -> Iterator[list[TruthRow]]:
        """Yield the comparisons of each file that is a true mask and no other one."""
        digest = EvaluatedImage.truth_hash
        files = select(digest).where(~exists().where(Mask.content_hash == digest))
        query = (
            select(*_TRUTH_COLUMNS)
            .join(Image, Image.id == EvaluatedImage.image_id)
            .order_by(EvaluatedImage.event_id, EvaluatedImage.image_id)
        )
        for rows in self._by_file(digest, files, query):
            yield list(map(TruthRow._make, rows))

    def models(self) -> list[ModelRow]:
        """Return the files of all model versions."""
        query = select(ModelVersion.name, ModelVersion.file_hash).order_by(ModelVersion.id)
        return list(map(ModelRow._make, self._rows(query)))

    def count_images(self) -> int:
        """Return the number of images, each of which has a file."""
        return self._first(select(func.count(Image.id))) or 0

    def count_masks(self) -> int:
        """Return the number of files of masks, true masks included."""
        files = union(select(Mask.content_hash), select(EvaluatedImage.truth_hash)).subquery()
        return self._first(select(func.count()).select_from(files)) or 0

    def known_images(self, digests: Sequence[str]) -> set[str]:
        """Return which of these hashes are those of images."""
        return self._known(digests, Image.content_hash)

    def known_masks(self, digests: Sequence[str]) -> set[str]:
        """Return which of these hashes are those of masks or true masks."""
        return self._known(digests, Mask.content_hash, EvaluatedImage.truth_hash)

    def known_models(self, digests: Sequence[str]) -> set[str]:
        """Return which of these hashes are those of files of models."""
        return self._known(digests, ModelVersion.file_hash)

    def _known(self, digests: Sequence[str], *columns: InstrumentedAttribute[str]) -> set[str]:
        found: set[str] = set()
        with self._database.read() as session:
            for start in range(0, len(digests), _PAGE):
                part = digests[start : start + _PAGE]
                for column in columns:
                    found.update(session.scalars(select(column).where(column.in_(part))))
        return found

    def _by_file(
        self, digest: InstrumentedAttribute[str], files: Select[Any], query: Select[Any]
    ) -> Iterator[list[Any]]:
        """Yield the rows of `query` by file, in the order of the hashes that `files` selects."""
        last = ""
        while True:
            with self._database.read() as session:
                page = session.scalars(
                    files.where(digest > last).distinct().order_by(digest).limit(_PAGE)
                ).all()
                if not page:
                    return
                rows = session.execute(query.where(digest.in_(page))).all()
            for _, of_file in groupby(sorted(rows, key=lambda row: row[1]), lambda row: row[1]):
                yield list(of_file)
            last = page[-1]
