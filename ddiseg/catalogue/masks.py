"""Masks, predictions, reviews: what was drawn, by whom, and what a second person said."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.history import step
from ddiseg.catalogue.lifecycle import Action, State
from ddiseg.catalogue.models import Acceptance, Image, Mask, Review
from ddiseg.errors import InputError
from ddiseg.outcomes import FileOutcome, Outcome

ACCEPT, FIXED, REJECT = "accept", "fixed", "reject"


@dataclass(frozen=True)
class NewMask:
    """A stored mask, ready to be catalogued: by a person (`annotator`) or a model version."""

    image_id: int
    content_hash: str
    width: int
    height: int
    mapping: str  #: "same" size as the image, or "stretched"
    classes: list[int]
    protocol_version: str
    annotator: str | None = None
    model_version_id: int | None = None
    parent_id: int | None = None
    uncertainty: float | None = None
    origin: str | None = None

    @property
    def author(self) -> str:
        return self.annotator or f"model #{self.model_version_id}"


class Masks:
    """The masks of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, batch: Sequence[NewMask], reviewer: str | None = None) -> list[FileOutcome]:
        """Masks drawn by people; with a reviewer, who may not have drawn them, they are accepted.

        All of the batch or nothing. A mask that is there already is unchanged; another one for an
        accepted image is refused. Raises InputError where reviewer and annotator are one.
        """
        for new in batch:
            if new.annotator is None:
                raise InputError("a submitted mask needs the person who drew it: give --annotator")
            refuse_self_review(new.annotator, reviewer)
        with self._database.write() as session:
            return [_submit_one(session, new, reviewer) for new in batch]

    def review(self, mask_id: int, reviewer: str, verdict: str, comment: str | None = None) -> None:
        """A second person's verdict on a submitted mask: accept, or reject (back to rework)."""
        with self._database.write() as session:
            mask = session.get_one(Mask, mask_id)
            if mask.annotator is None:
                raise InputError(
                    "a mask painted by a model can't be reviewed: a person corrects and submits it first"
                )
            refuse_self_review(mask.annotator, reviewer)
            if verdict == ACCEPT:
                _accept(session, mask, reviewer, comment)
            elif verdict == REJECT:
                image = session.get_one(Image, mask.image_id)
                step(
                    session,
                    image,
                    Action.REJECT,
                    reviewer,
                    {"mask": mask.content_hash, "comment": comment},
                )
                session.add(
                    Review(mask_id=mask.id, reviewer=reviewer, verdict=REJECT, comment=comment)
                )
            else:
                raise InputError(f"'{verdict}' is no verdict here: {ACCEPT} or {REJECT}")

    def add_predictions(self, batch: Sequence[NewMask]) -> list[Outcome]:
        """Masks painted by a model version, one an image; a second run leaves the first."""
        outcomes = []
        with self._database.write() as session:
            for new in batch:
                there = session.scalars(
                    select(Mask.id).where(
                        Mask.image_id == new.image_id, Mask.model_version_id == new.model_version_id
                    )
                ).first()
                if there is not None:
                    outcomes.append(Outcome.UNCHANGED)
                    continue
                image = session.get_one(Image, new.image_id)
                step(session, image, Action.PRELABEL, new.author, {"mask": new.content_hash})
                session.add(Mask(**asdict(new)))
                outcomes.append(Outcome.ADDED)
        return outcomes

    def predicted_by(self, model_version_id: int) -> set[int]:
        """Images that a model version has painted."""
        with self._database.read() as session:
            return set(
                session.scalars(
                    select(Mask.image_id).where(Mask.model_version_id == model_version_id)
                )
            )

    def newest_predictions(self, model_version_id: int | None = None) -> dict[int, Mask]:
        """Newest prediction by image id, of one model version or of any."""
        query = (
            select(func.max(Mask.id))
            .where(Mask.model_version_id.is_not(None))
            .group_by(Mask.image_id)
        )
        if model_version_id is not None:
            query = query.where(Mask.model_version_id == model_version_id)
        with self._database.read() as session:
            return {m.image_id: m for m in session.scalars(select(Mask).where(Mask.id.in_(query)))}

    def accepted(self) -> dict[int, Mask]:
        """Accepted mask by image id."""
        with self._database.read() as session:
            rows = session.scalars(
                select(Mask).join(Acceptance, Acceptance.mask_id == Mask.id).order_by(Mask.image_id)
            )
            return {m.image_id: m for m in rows}

    def of_image(self, image_id: int) -> Sequence[Mask]:
        with self._database.read() as session:
            return session.scalars(
                select(Mask).where(Mask.image_id == image_id).order_by(Mask.id)
            ).all()

    def all(self) -> Sequence[Mask]:
        with self._database.read() as session:
            return session.scalars(select(Mask).order_by(Mask.id)).all()

    def reviews(self, mask_ids: Sequence[int]) -> Sequence[Review]:
        wanted = set(mask_ids)
        with self._database.read() as session:
            return [
                r
                for r in session.scalars(select(Review).order_by(Review.id))
                if r.mask_id in wanted
            ]


def refuse_self_review(annotator: str, reviewer: str | None) -> None:
    """Raise InputError where the two are one person, however the name is written, or have no name."""
    for role, name in (("annotator", annotator), ("reviewer", reviewer)):
        if name is not None and not _plain(name):
            raise InputError(f"the {role} has no name: say who it was")
    if reviewer is not None and _plain(annotator) == _plain(reviewer):
        raise InputError(
            f"annotator and reviewer are both '{annotator}': a mask needs a second person"
        )


def _plain(name: str) -> str:
    """A name without what two spellings of it differ in: case, spaces, composed accents."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _submit_one(session: Session, new: NewMask, reviewer: str | None) -> FileOutcome:
    image = session.get_one(Image, new.image_id)
    name = new.origin or image.name
    mask = session.scalars(
        select(Mask).where(
            Mask.image_id == new.image_id,
            Mask.annotator == new.annotator,
            Mask.content_hash == new.content_hash,
        )
    ).first()
    acceptance = session.get(Acceptance, new.image_id)
    if acceptance is not None:
        if mask is not None and acceptance.mask_id == mask.id:
            return FileOutcome(name, Outcome.UNCHANGED)
        return FileOutcome(
            name,
            Outcome.REFUSED,
            f"{image.name} has another accepted mask: 'ddiseg reopen {image.name}' first",
        )
    if image.state == State.SKIPPED:
        return FileOutcome(
            name, Outcome.REFUSED, f"{image.name} is skipped: 'ddiseg reopen {image.name}' first"
        )
    if mask is not None and reviewer is None and image.state == State.SUBMITTED:
        return FileOutcome(name, Outcome.UNCHANGED)
    outcome = Outcome.REPAIRED if mask is not None else Outcome.ADDED
    if mask is None:
        mask = Mask(**asdict(new))
        session.add(mask)
        session.flush()
    assert new.annotator is not None
    step(
        session,
        image,
        Action.SUBMIT,
        new.annotator,
        {"mask": mask.content_hash, "origin": new.origin},
    )
    if reviewer is not None:
        _accept(session, mask, reviewer, None)
    return FileOutcome(name, outcome)


def _accept(session: Session, mask: Mask, reviewer: str, comment: str | None) -> None:
    image = session.get_one(Image, mask.image_id)
    step(session, image, Action.ACCEPT, reviewer, {"mask": mask.content_hash, "comment": comment})
    session.add(Review(mask_id=mask.id, reviewer=reviewer, verdict=ACCEPT, comment=comment))
    session.add(Acceptance(image_id=mask.image_id, mask_id=mask.id))
