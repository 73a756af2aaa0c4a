"""How accepted masks came about on a labelling server, as plain rows: there may be many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from ddiseg.catalogue.database import Repository, in_parts
from ddiseg.catalogue.lifecycle import Action
from ddiseg.catalogue.tables import (
    Acceptance,
    Annotation,
    ComparisonKind,
    Event,
    Image,
    ImageGroup,
    Mask,
    MaskComparison,
    Project,
    Purpose,
    Task,
)


class AcceptedWork(NamedTuple):
    """An accepted mask, what its annotator was shown, and how far both agree."""

    image_id: int
    tone: str
    arm: str  #: an `Arm`
    mask_id: int  #: of the accepted mask
    prediction_id: int | None  #: shown, or withheld where the arm is control
    model_version_id: int | None  #: that made the prediction
    seconds: float | None  #: the annotator's, as the server counted them
    compared: int | None  #: None: the comparison was not made yet
    lesion_dice: float | None  #: this and the next are those of `MaskComparison`
    mean_dice: float | None
    changed: float | None
    annotation_id: int
    group: int  #: of the image
    drawn_id: int  #: the annotator's mask; the accepted one, or the one that a reviewer fixed


class LastAcceptance(NamedTuple):
    """The event of an acceptance."""

    event_id: int
    at: str  #: UTC, by the clock of the machine


class WorkRows(Repository):
    """The accepted masks of a catalogue that were drawn on a labelling server."""

    def accepted(self) -> list[AcceptedWork]:
        """Return how each accepted mask came about, in the order of images.

        Of several annotations with the pixels of one mask, the last one counts.
        """
        with self._database.read() as session:
            rows = session.connection().execute(_ACCEPTED).all()
        last = {row[0]: row for row in rows}
        return [AcceptedWork._make(last[image_id]) for image_id in sorted(last)]

    def last_acceptances(self) -> dict[int, LastAcceptance]:
        """Return the event of the last acceptance of each image, by image id."""
        query = select(Event.image_id, Event.id, Event.at).where(Event.kind == Action.ACCEPT.value)
        with self._database.read() as session:
            rows = session.connection().execute(query.order_by(Event.id)).all()
        return {
            image_id: LastAcceptance(number, at)
            for image_id, number, at in rows
            if image_id is not None
        }

    def reading_comparisons(self, image_ids: Iterable[int]) -> dict[tuple[int, int], float | None]:
        """Return the lesion Dice of the readings of images that were compared, by their mask ids."""
        columns = MaskComparison.mask_id, MaskComparison.other_id, MaskComparison.lesion_dice
        query = (
            select(*columns)
            .join(Mask, Mask.id == MaskComparison.mask_id)
            .where(MaskComparison.kind == ComparisonKind.READING.value)
        )
        with self._database.read() as session:
            return {
                (mask_id, other_id): dice
                for part in in_parts(image_ids)
                for mask_id, other_id, dice in session.execute(query.where(Mask.image_id.in_(part)))
            }


_PREDICTION = aliased(Mask)

#: Its rows are looked up in this order: first what most annotations are left out by. The accepted mask itself is
#: only read where it has other pixels than the annotation.
_ACCEPTED = (
    select(
        Image.id,
        Image.tone,
        Task.arm,
        Acceptance.mask_id,
        _PREDICTION.id,
        _PREDICTION.model_version_id,
        Annotation.lead_time,
        MaskComparison.mask_id,
        MaskComparison.lesion_dice,
        MaskComparison.mean_dice,
        MaskComparison.changed,
        Annotation.id,
        func.coalesce(ImageGroup.group_id, Image.id),
        Annotation.mask_id,
    )
    .select_from(Annotation)
    .join(Task, Task.id == Annotation.task_id)
    .join(Project, Project.id == Task.project_id)
    .join(Acceptance, Acceptance.image_id == Task.image_id)
    .join(Image, Image.id == Acceptance.image_id)
    .join(ImageGroup, ImageGroup.image_id == Acceptance.image_id, isouter=True)
    .join(
        _PREDICTION,
        and_(_PREDICTION.id == Task.mask_id, _PREDICTION.annotator.is_(None)),
        isouter=True,
    )
    .join(
        MaskComparison,
        and_(
            MaskComparison.mask_id == Acceptance.mask_id,
            MaskComparison.other_id == _PREDICTION.id,
            MaskComparison.kind == ComparisonKind.PREDICTION.value,
        ),
        isouter=True,
    )
    .where(
        Project.purpose == Purpose.ANNOTATION.value,
        or_(
            Annotation.mask_id == Acceptance.mask_id,
            Annotation.mask_id
            == select(Mask.parent_id).where(Mask.id == Acceptance.mask_id).scalar_subquery(),
        ),
    )
    .order_by(Annotation.id)
)


def images_read_twice(session: Session) -> set[int]:
    """Return the ids of images that may have two independent masks; of all others there is one reading."""
    twice = (
        select(Annotation.task_id)
        .group_by(Annotation.task_id)
        .having(func.count(Annotation.remote_id.distinct()) > 1)
    )
    several_tasks = (
        select(Task.image_id)
        .join(Project, Project.id == Task.project_id)
        .where(Project.purpose == Purpose.ANNOTATION.value)
        .group_by(Task.image_id)
        .having(func.count() > 1)
    )
    from_files = select(Mask.image_id).where(Mask.independent.is_(True))
    found = set(session.scalars(select(Task.image_id).where(Task.id.in_(twice))))
    return found.union(session.scalars(several_tasks), session.scalars(from_files))
