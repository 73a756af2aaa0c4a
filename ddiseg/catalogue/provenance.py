"""Provenance: the images that a model learned from, and the prediction that a mask was drawn over."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Select, exists, insert, select
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.selectable import Subquery

from ddiseg.catalogue.database import Repository, in_parts, scalars_in
from ddiseg.catalogue.tables import (
    Image,
    ImageGroup,
    Mask,
    ModelKind,
    ModelVersion,
    TrainingImage,
    TrainingMask,
)


@dataclass(frozen=True, slots=True)
class PredictionUnder:
    """The prediction that a mask was drawn over."""

    mask_id: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class UnleakedPrediction:
    """The newest prediction of an image by a model that learned from no image of its group."""

    mask_id: int
    model_version_id: int


class Provenance(Repository):
    """What the model versions of a catalogue learned from, and what its masks were drawn over.

    A version learned from an image where a person ever drew a mask of it with the pixels of one of
    its training masks. A hash is of the pixels, so of two images with the same mask both count.
    """

    def images_learned(
        self,
        model_version_ids: Iterable[int] | None = None,
        *,
        among: Iterable[int] | None = None,
    ) -> set[int]:
        """Return the ids of images that segmentation versions learned from.

        Args:
            model_version_ids: of any version unless given.
            among: images to look at; all unless given.
        """
        query = _images_learned()
        if model_version_ids is not None:
            query = query.where(TrainingMask.model_version_id.in_([*model_version_ids]))
        with self._database.read() as session:
            if among is None:
                return set(session.scalars(query))
            return set(scalars_in(session, query, Mask.image_id, among))

    def images_fitted(self, version: ModelVersion) -> set[int]:
        """Return the ids of images that a version was fitted to, without its validation split."""
        return set(self._all(select(images_fitted(version).c.image_id)))

    def images_validated(self, version: ModelVersion) -> set[int]:
        """Return the ids of the validation split of a version; none where it was not recorded."""
        return set(self._all(select(images_validated(version.id).c.image_id)))

    def predictions_under(
        self, mask_ids: Iterable[int], model_version_id: int | None = None
    ) -> dict[int, PredictionUnder]:
        """Return the predictions that masks, or ancestors of them, were drawn over.

        Args:
            model_version_id: of this version alone; of any unless given.

        Returns:
            The prediction by mask id; masks that were drawn over none are left out.
        """
        found: dict[int, PredictionUnder] = {}
        with self._database.read() as session:
            for part in in_parts(mask_ids):
                rows = session.execute(_predictions_under(part, model_version_id))
                found.update((i, PredictionUnder(prediction, d)) for i, prediction, d in rows)
        return found

    def unleaked_predictions(
        self, image_ids: Collection[int] | None = None
    ) -> dict[int, UnleakedPrediction | None]:
        """Return the newest prediction of each image by a model that did not learn from its group.

        Args:
            image_ids: images to look at; all unless given.

        Returns:
            By image id; None where a model learned from the image's group and no other predicted it.
            Images without predictions, of which nothing was learned, are left out.
        """
        found: dict[int, UnleakedPrediction | None] = {}
        with self._database.read() as session:
            for part in [None] if image_ids is None else in_parts(image_ids):
                learned = {(version, group) for version, group in session.execute(_learned(part))}
                of_any = {group for _, group in learned}
                for image_id, group in session.execute(_groups(part)):
                    if group in of_any:
                        found[image_id] = None
                rows = session.execute(_predictions(part).execution_options(yield_per=_ROWS))
                for mask_id, image_id, version, group in rows:
                    if version is not None and (version, group) not in learned:
                        found[image_id] = UnleakedPrediction(mask_id, version)
        return found


#: Rows in memory at a time.
_ROWS = 10_000


def store_training(session: Session, version: ModelVersion) -> None:
    """Store what a new version learned from as rows, in the caller's transaction."""
    masks = [
        {"model_version_id": version.id, "content_hash": digest}
        for digest in dict.fromkeys(version.training_masks)
    ]
    images = {
        digest: bool(facts.get("validation")) for digest, facts in version.training_images.items()
    }
    if version.kind == ModelKind.SEGMENTATION and (validation := version.training.validation):
        images = dict.fromkeys(validation.members, True)
    if masks:
        session.execute(insert(TrainingMask), masks)
    if images:
        rows = [
            {"model_version_id": version.id, "content_hash": digest, "validation": flag}
            for digest, flag in images.items()
        ]
        session.execute(insert(TrainingImage), rows)


def images_learned(model_version_id: int) -> Subquery:
    """Return the query for the images that a segmentation version learned from; some repeat."""
    return _images_learned().where(TrainingMask.model_version_id == model_version_id).subquery()


def _images_learned() -> Select[int]:
    return (
        select(Mask.image_id)
        .join(TrainingMask, TrainingMask.content_hash == Mask.content_hash)
        .where(Mask.annotator.is_not(None))
    )


def images_validated(model_version_id: int) -> Subquery:
    """Return the query for the images of the validation split of a version."""
    return _training_images(model_version_id).where(TrainingImage.validation).subquery()


def images_fitted(version: ModelVersion) -> Subquery:
    """Return the query for the images that a version was fitted to; some repeat."""
    if version.kind == ModelKind.MALIGNANCY:
        fitted = _training_images(version.id).where(~TrainingImage.validation)
        return fitted.subquery()
    learned = images_learned(version.id)
    validated = images_validated(version.id)
    apart = ~exists(select(validated.c.image_id).where(validated.c.image_id == learned.c.image_id))
    return select(learned.c.image_id).where(apart).subquery()


def _training_images(model_version_id: int) -> Select[int]:
    return (
        select(Image.id.label("image_id"))
        .join(TrainingImage, TrainingImage.content_hash == Image.content_hash)
        .where(TrainingImage.model_version_id == model_version_id)
    )


def _predictions_under(
    mask_ids: Collection[int], model_version_id: int | None
) -> Select[int, int, str]:
    """Return the query for (mask, prediction, its content hash): up the parents, to the first by a version.

    By any version where `model_version_id` is None.
    """
    chain = (
        select(
            Mask.id.label("mask_id"),
            Mask.id.label("ancestor_id"),
            Mask.parent_id.label("parent_id"),
            Mask.model_version_id.label("version_id"),
            Mask.content_hash.label("content_hash"),
        )
        .where(Mask.id.in_(mask_ids))
        .cte("ancestors", recursive=True)
    )
    parent = aliased(Mask)
    chain = chain.union_all(
        select(
            chain.c.mask_id,
            parent.id,
            parent.parent_id,
            parent.model_version_id,
            parent.content_hash,
        )
        .join(parent, parent.id == chain.c.parent_id)
        .where(
            chain.c.version_id.is_(None)
            if model_version_id is None
            else chain.c.version_id.is_distinct_from(model_version_id)
        )
    )
    return select(chain.c.mask_id, chain.c.ancestor_id, chain.c.content_hash).where(
        chain.c.version_id.is_not(None)
        if model_version_id is None
        else chain.c.version_id == model_version_id
    )


def _learned(image_ids: Collection[int] | None) -> Select[int, int]:
    """Return the query for the groups that versions learned from, of these images or all: (version, group)."""
    member = aliased(ImageGroup)
    query = (
        select(TrainingMask.model_version_id, member.group_id)
        .join(Mask, Mask.content_hash == TrainingMask.content_hash)
        .join(member, member.image_id == Mask.image_id)
        .where(Mask.annotator.is_not(None))
        .distinct()
    )
    if image_ids is None:
        return query
    wanted = select(ImageGroup.group_id).where(ImageGroup.image_id.in_(image_ids))
    return query.where(member.group_id.in_(wanted))


def _groups(image_ids: Collection[int] | None) -> Select[int, int]:
    query = select(ImageGroup.image_id, ImageGroup.group_id)
    return query if image_ids is None else query.where(ImageGroup.image_id.in_(image_ids))


def _predictions(image_ids: Collection[int] | None) -> Select[int, int, int | None, int]:
    """Return the query for predictions, oldest first: (mask, image, version, group)."""
    query = (
        select(Mask.id, Mask.image_id, Mask.model_version_id, ImageGroup.group_id)
        .join(ImageGroup, ImageGroup.image_id == Mask.image_id)
        .where(Mask.model_version_id.is_not(None))
        .order_by(Mask.id)
    )
    return query if image_ids is None else query.where(Mask.image_id.in_(image_ids))
