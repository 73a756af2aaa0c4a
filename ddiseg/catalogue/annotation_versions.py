"""Versions of annotations: the one that decides about an image, and those that can't be read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session, aliased

from ddiseg.catalogue.database import in_parts
from ddiseg.catalogue.lifecycle import Action, State
from ddiseg.catalogue.tables import Annotation, Event


def primary_annotation(rows: Sequence[Annotation], reopened: str) -> Annotation | None:
    """Return the annotation that decides about an image: the oldest of its task, in its newest version.

    Args:
        rows: all versions of all annotations of one task.
        reopened: when the image was last reopened after a skip, "" for never. A skip from before
            that no longer counts, nor does a mask that its author turned into that skip.
    """
    newest: dict[int, Annotation] = {}
    for row in sorted(rows, key=lambda r: r.updated_at):
        if row.deleted_at is None and row.outcome != "refused":
            newest[row.remote_id] = row
    counting = [r for r in newest.values() if r.skip_id is None or r.created_at > reopened]
    return min(counting, key=lambda r: r.remote_id, default=None)


def last_reopened(session: Session, image_ids: Collection[int]) -> dict[int, str]:
    """Return when images were last reopened after a skip, by image id."""
    query = (
        select(Event.image_id, func.max(Event.at))
        .where(
            Event.kind == Action.REOPEN.value,
            Event.state_before == State.SKIPPED.value,
            Event.image_id.in_(image_ids),
        )
        .group_by(Event.image_id)
    )
    return {image_id: at for image_id, at in session.execute(query) if image_id is not None}


def is_newest() -> ColumnElement[bool]:
    """Return the condition that a row of `Annotation` is the newest version of its annotation."""
    newer = aliased(Annotation)
    return (
        ~select(newer.id).where(_of_one(newer), newer.updated_at > Annotation.updated_at).exists()
    )


def unread_edits(session: Session, mask_ids: Collection[int]) -> dict[int, str]:
    """Return why masks can't be reviewed, by id: their annotation was changed and can't be read now."""
    earlier = aliased(Annotation)
    query = (
        select(earlier.mask_id, Annotation.problem)
        .join(earlier, _of_one(earlier))
        .where(
            Annotation.outcome == "refused",
            Annotation.deleted_at.is_(None),
            is_newest(),
        )
    )
    return {
        mask_id: f"its annotator changed it since, and that version can't be read ({problem}): once "
        "it is corrected there, 'ddiseg label pull', then 'ddiseg review push'"
        for part in in_parts(mask_ids)
        for mask_id, problem in session.execute(query.where(earlier.mask_id.in_(part)))
        if mask_id is not None
    }


def _of_one(other: type[Annotation]) -> ColumnElement[bool]:
    """Return the condition that two rows are versions of one annotation."""
    return and_(other.task_id == Annotation.task_id, other.remote_id == Annotation.remote_id)
