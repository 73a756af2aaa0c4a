"""The rows of a release: images with one mask each and who made it, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, null, or_, select
from sqlalchemy.orm import Session, aliased

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.model_versions import current_version
from ddiseg.catalogue.subsets import named_subset
from ddiseg.catalogue.tables import (
    Acceptance,
    Image,
    Mask,
    ModelKind,
    ModelVersion,
    Review,
    Subset,
    SubsetMember,
)

#: Rows that are read at once.
_PAGE = 1000


class ChosenMask(NamedTuple):
    """An image of a release and the mask that it comes with; for what is decided over all of them."""

    id: int  #: of the image
    mask_id: int
    content_hash: str  #: of the image
    name: str
    dataset_id: int


class ReleaseRow(NamedTuple):
    """An image of a release with its mask and what is told of that."""

    image: Image
    mask: Mask
    accepted: bool  #: False: a prediction
    parent_hash: str | None  #: content hash of the mask that this one corrects
    parent_annotator: str | None
    #: Of an accepted image the newest review accepted it, whether of this mask or, for a reviewer's
    #: fix, of the mask that was fixed.
    reviewer: str | None
    subsets: tuple[str, ...]  #: by name


class ReleaseRows(Repository):
    """The images of a release, in the order of their ids, each with its accepted mask.

    With predictions also those that have no accepted mask and are not skipped, each with the current
    model's prediction; the newest one where that has none.
    """

    def chosen(self, subset: str | None, *, predictions: bool) -> list[ChosenMask]:
        """Return which mask each image of a release comes with.

        Raises:
            NotFoundError: there is no such subset.
        """
        with self._database.read() as session:
            mask_id, query = _selected(session, subset, predictions)
            columns = Image.id, mask_id, Image.content_hash, Image.name, Image.dataset_id
            rows = session.execute(query.with_only_columns(*columns).order_by(Image.id))
            return [ChosenMask._make(row) for row in rows]

    def stream(self, subset: str | None, *, predictions: bool) -> Iterator[ReleaseRow]:
        """Yield the rows of a release, as they are at one moment; memory holds a page of them.

        Raises:
            NotFoundError: there is no such subset.
        """
        parent = aliased(Mask)
        columns: list[Any] = [
            *(Image, Mask, Acceptance.mask_id.is_not(None)),
            *(parent.content_hash, parent.annotator, _last_reviewer()),
        ]
        with self._database.read() as session:
            mask_id, selected = _selected(session, subset, predictions)
            query: Select[Any] = (
                selected.join(Mask, Mask.id == mask_id)
                .outerjoin(parent, parent.id == Mask.parent_id)
                .with_only_columns(*columns)
                .order_by(Image.id)
                .execution_options(yield_per=_PAGE)
            )
            with closing(session.execute(query)) as result:
                for page in result.partitions():
                    subsets = _subsets(session, [row[0].id for row in page])
                    for image, mask, accepted, digest, annotator, reviewer in page:
                        yield ReleaseRow(
                            *(image, mask, bool(accepted), digest, annotator),
                            reviewer if accepted else None,
                            tuple(subsets.get(image.id, ())),
                        )


def _selected(
    session: Session, subset: str | None, predictions: bool
) -> tuple[ColumnElement[int], Select[Any]]:
    """Return the id of the mask of an image of a release, and the query for these images."""
    mask_id: ColumnElement[int] = Acceptance.mask_id.expression
    if not predictions:
        query = select(Image.id).join(Acceptance, Acceptance.image_id == Image.id)
    else:
        newest = _newest_predictions(session).subquery()
        mask_id = func.coalesce(Acceptance.mask_id, newest.c.mask_id)
        predicted = and_(newest.c.mask_id.is_not(None), Image.state != State.SKIPPED.value)
        query = (
            select(Image.id)
            .outerjoin(Acceptance, Acceptance.image_id == Image.id)
            .outerjoin(newest, newest.c.image_id == Image.id)
            .where(or_(Acceptance.mask_id.is_not(None), predicted))
        )
    if subset is not None:
        members = select(SubsetMember.image_id)
        members = members.where(SubsetMember.subset_id == named_subset(session, subset).id)
        query = query.where(Image.id.in_(members))
    return mask_id, query


def _newest_predictions(session: Session) -> Select[Any]:
    """Return the query for the prediction to show of each image: the current model's, or the newest."""
    current = current_version(ModelKind.SEGMENTATION).with_only_columns(ModelVersion.id)
    version = session.scalars(current).first()
    newest: ColumnElement[Any] = func.max(Mask.id)
    if version is not None:
        own = case((Mask.model_version_id == version, Mask.id), else_=null())
        newest = func.coalesce(func.max(own), newest)
    return (
        select(Mask.image_id, newest.label("mask_id"))
        .where(Mask.model_version_id.is_not(None))
        .group_by(Mask.image_id)
    )


def _last_reviewer() -> ColumnElement[str]:
    """Return who reviewed any mask of an image last."""
    reviewed = aliased(Mask)
    query = (
        select(Review.reviewer)
        .join(reviewed, reviewed.id == Review.mask_id)
        .where(reviewed.image_id == Image.id)
        .order_by(Review.id.desc())
        .limit(1)
    )
    return query.correlate(Image).scalar_subquery()


def _subsets(session: Session, image_ids: Sequence[int]) -> dict[int, list[str]]:
    """Return the names of the subsets of each image, in their order."""
    query = (
        select(SubsetMember.image_id, Subset.name)
        .join(Subset, Subset.id == SubsetMember.subset_id)
        .where(SubsetMember.image_id.in_(image_ids))
        .order_by(Subset.name)
    )
    found: dict[int, list[str]] = {}
    for image_id, name in session.execute(query):
        found.setdefault(image_id, []).append(name)
    return found
