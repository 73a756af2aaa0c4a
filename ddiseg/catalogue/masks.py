"""Masks by people and models, their submission and their reviews."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import exists, func, insert, select
from sqlalchemy.orm import Session, aliased

from ddiseg.catalogue.annotation_versions import unread_edits
from ddiseg.catalogue.database import Repository, in_parts, number_columns, scalars_in
from ddiseg.catalogue.embeddings import store_embeddings
from ddiseg.catalogue.events import step
from ddiseg.catalogue.lifecycle import SETTLED, Action, State
from ddiseg.catalogue.model_versions import current_version
from ddiseg.catalogue.tables import (
    Acceptance,
    Annotation,
    Event,
    Image,
    ImageSplit,
    Mask,
    ModelKind,
    ModelVersion,
    Review,
    Split,
    Submission,
    TrainingMask,
)
from ddiseg.errors import InputError
from ddiseg.outcomes import FileOutcome, Outcome

ACCEPT, FIXED, REJECT = "accept", "fixed", "reject"

#: States in which an image takes no mask, as messages name them.
_CLOSED = {State.ACCEPTED: "has another accepted mask", State.SKIPPED: "is skipped"}

#: What people do with an image, as notes name it.
_BY_PEOPLE = {
    Action.START: "the image was given to annotators",
    Action.SUBMIT: "another mask waits for review",
    Action.ACCEPT: "another mask was accepted",
    Action.REJECT: "the image was sent back",
    Action.SKIP: "the image was skipped",
    Action.WITHDRAW: "the mask or skip was taken back",
    Action.REOPEN: "the image was reopened",
}


@dataclass(frozen=True)
class NewMask:
    """A stored mask to be catalogued: by a person (`annotator`) or a model version."""

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
    expected_iou: dict[str, float] | None = None  #: by class name
    quality: float | None = None  #: 0 to 1, the lowest of them that counts
    origin: str | None = None
    unlabelled: int = 0  #: pixels without a class
    independent: bool = False

    @property
    def author(self) -> str:
        return self.annotator or f"model #{self.model_version_id}"


class Doubts(NamedTuple):
    """What predictions of N images tell of themselves; NaN where they do not."""

    ids: NDArray[np.int64]  #: (N,), of images, ascending
    uncertainties: NDArray[np.float64]  #: (N,), nats a pixel
    quality: NDArray[np.float64]  #: (N,), expected IoU


class Masks(Repository):
    """The masks of a catalogue."""

    def submit(self, batch: Sequence[NewMask], reviewer: str | None = None) -> list[FileOutcome]:
        """Submit masks drawn by people, all or none; with a reviewer they are accepted.

        Another mask for an accepted image is refused. A mask that is stored already never undoes
        what people did since: it is unchanged, and with a reviewer refused. It is submitted again
        if its image was reopened, unless a reviewer sent it back.

        Raises:
            InputError: reviewer and annotator are the same person.
        """
        for new in batch:
            if new.annotator is None:
                raise InputError("a submitted mask needs the person who drew it: give --annotator")
            refuse_self_review(new.annotator, reviewer)
        with self._database.write([new.image_id for new in batch]) as session:
            return [_submit_one(session, new, reviewer) for new in batch]

    def add_readings(self, batch: Sequence[tuple[str, NewMask]]) -> list[FileOutcome]:
        """Store further people's masks of images that have one, for agreement; they decide nothing.

        Args:
            batch: each mask after the content hash of the first person's, which is marked as drawn
                independently, too.
        """
        with self._database.write([new.image_id for _, new in batch]) as session:
            return [_add_reading(session, first, new) for first, new in batch]

    def review(
        self,
        mask_id: int,
        reviewer: str,
        verdict: str,
        comment: str | None = None,
        fix: NewMask | None = None,
    ) -> None:
        """Store a second person's verdict on the mask that waits for review.

        Args:
            verdict: "accept" accepts the mask, "fixed" accepts `fix`, which the reviewer drew over
                it, "reject" sends it back for rework.

        Raises:
            InputError: the mask does not wait for review, its annotator has changed it since in a
                way that can't be read, or the reviewer worked on it.
        """
        image_of = select(Mask.image_id).where(Mask.id == mask_id)
        with self._database.write(image_of) as session:
            mask = session.get_one(Mask, mask_id)
            image = session.get_one(Image, mask.image_id)
            submission = session.get(Submission, image.id)
            if submission is None or submission.mask_id != mask_id:
                raise InputError(
                    f"{image.name} has no such mask in review: 'ddiseg review list' shows what waits"
                )
            if unread := unread_edits(session, [mask_id]):
                raise InputError(f"{image.name}: {unread[mask_id]}")
            record_review(session, mask, reviewer, verdict, comment, fix)

    def in_review(self) -> dict[int, Mask]:
        """Return the masks that wait for review, by image id."""
        rows = self._all(
            select(Mask).join(Submission, Submission.mask_id == Mask.id).order_by(Mask.image_id)
        )
        return {m.image_id: m for m in rows}

    def count_in_review(self) -> int:
        """Return the number of masks that wait for review."""
        return self._first(select(func.count(Submission.image_id))) or 0

    def people_behind(self, mask_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return who worked on each mask, by mask id: they may not review it."""
        with self._database.read() as session:
            return {i: people_behind(session, session.get_one(Mask, i)) for i in mask_ids}

    def newest_by_people(self, image_ids: Sequence[int]) -> dict[int, Mask]:
        """Return the newest mask by a person, by image id."""
        newest = (
            select(func.max(Mask.id))
            .where(Mask.annotator.is_not(None), Mask.image_id.in_(image_ids))
            .group_by(Mask.image_id)
        )
        return {m.image_id: m for m in self._all(select(Mask).where(Mask.id.in_(newest)))}

    def add_predictions(
        self,
        batch: Sequence[NewMask],
        embeddings: tuple[str, Mapping[int, NDArray[np.float32]]] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> list[Outcome]:
        """Store predictions, one an image and model version, all or none; stored ones are kept.

        Args:
            embeddings: a space and vectors (D,) by image id, stored as `Embeddings.add` does, in the
                same transaction: an image with a prediction is never predicted again.
            detail: of the events, such as the precision.
        """
        outcomes, rows = [], []
        ids = [new.image_id for new in batch]
        detail = dict(detail or {})
        vectors = embeddings[1] if embeddings is not None else {}
        with self._database.write([*ids, *vectors]) as session:
            stored = _predicted(session, batch)
            images = {i.id: i for i in scalars_in(session, select(Image), Image.id, ids)}
            for new in batch:
                key = (new.image_id, new.model_version_id)
                if key in stored:
                    outcomes.append(Outcome.UNCHANGED)
                    continue
                stored.add(key)
                image = images[new.image_id]
                about = {"mask": new.content_hash, **detail}
                step(session, image, Action.PRELABEL, new.author, about)
                rows.append(vars(new))
                outcomes.append(Outcome.ADDED)
            if rows:
                session.execute(insert(Mask), rows)
            if embeddings is not None:
                store_embeddings(session, *embeddings)
        return outcomes

    def predicted_by(self, model_version_id: int) -> set[int]:
        """Return the ids of images with a prediction by a model version."""
        query = select(Mask.image_id).where(Mask.model_version_id == model_version_id)
        return set(self._all(query))

    def count_predicted_unsettled(self, model_version_id: int) -> int:
        """Count the images with a prediction by a version that are neither accepted nor skipped.

        The others are few: they are looked at, and all predictions of the version only counted.
        """
        by_version = Mask.model_version_id == model_version_id
        prediction = exists().where(Mask.image_id == Image.id, by_version)
        of_settled = select(func.count(Image.id)).where(Image.state.in_(SETTLED), prediction)
        with self._database.read() as session:
            every = session.scalar(select(func.count(Mask.id)).where(by_version)) or 0
            return every - (session.scalar(of_settled) or 0)

    def count_accepted(self) -> int:
        """Return the number of accepted masks."""
        return self._first(select(func.count(Acceptance.image_id))) or 0

    def predictions_by(self, model_version_id: int, image_ids: Collection[int]) -> dict[int, Mask]:
        """Return the predictions of images by a model version, by image id."""
        query = select(Mask).where(Mask.model_version_id == model_version_id)
        return {mask.image_id: mask for mask in self._all_in(query, Mask.image_id, image_ids)}

    def doubts(self, model_version_id: int) -> Doubts:
        """Return what a version's predictions tell of themselves, ordered by image id."""
        # Every prediction has both numbers or the older one alone; NULL is no number.
        known = Mask.uncertainty.is_not(None) | Mask.quality.is_not(None)
        query = select(
            Mask.image_id, func.coalesce(Mask.uncertainty, -1.0), func.coalesce(Mask.quality, -1.0)
        ).where(Mask.model_version_id == model_version_id, known)
        with self._database.read() as session:
            ids, uncertainties, quality = number_columns(session, query)
        order = np.argsort(ids)
        uncertainties[uncertainties < 0] = np.nan
        quality[quality < 0] = np.nan
        return Doubts(ids[order].astype(np.int64), uncertainties[order], quality[order])

    def newest_predictions(self, image_ids: Sequence[int] | None = None) -> dict[int, Mask]:
        """Return the prediction to show of each image, by image id; of all images unless given.

        That is the current model's; the newest one where that has none.
        """
        predicted = select(func.max(Mask.id)).where(Mask.model_version_id.is_not(None))
        parts = [predicted]
        if image_ids is not None:
            parts = [predicted.where(Mask.image_id.in_(part)) for part in in_parts(image_ids)]
        found: dict[int, Mask] = {}
        with self._database.read() as session:
            version = session.scalars(current_version(ModelKind.SEGMENTATION)).first()
            for part in parts:
                queries = [part]
                if version is not None:
                    queries.append(part.where(Mask.model_version_id == version.id))
                for query in queries:
                    newest = select(Mask).where(Mask.id.in_(query.group_by(Mask.image_id)))
                    found.update({mask.image_id: mask for mask in session.scalars(newest)})
        return found

    def accepted(self, image_ids: Iterable[int] | None = None) -> dict[int, Mask]:
        """Return the accepted masks, of these images or of all, by image id."""
        query = select(Mask).join(Acceptance, Acceptance.mask_id == Mask.id).order_by(Mask.image_id)
        if image_ids is None:
            rows = self._all(query)
        else:
            rows = self._all_in(query, Acceptance.image_id, image_ids)
        return {m.image_id: m for m in rows}

    def accepted_images(self) -> set[int]:
        """Return the ids of the accepted images."""
        return set(self._all(select(Acceptance.image_id)))

    def count_predicted(self) -> int:
        """Count the images with a prediction by any version."""
        query = select(func.count(Mask.image_id.distinct()))
        return self._first(query.where(Mask.model_version_id.is_not(None))) or 0

    def most_doubtful(self, count: int) -> list[int]:
        """Return the ids of open images whose prediction to show is expected to be the worst, that one first.

        The current model's come first, by expected IoU; then other predictions by expected IoU; then
        those without one, the most uncertain first.
        """
        newer = aliased(Mask)
        of_image = newer.image_id == Mask.image_id, newer.model_version_id.is_not(None)
        found: list[int] = []
        with self._database.read() as session:
            current = session.scalar(
                current_version(ModelKind.SEGMENTATION).with_only_columns(ModelVersion.id)
            )
            by_current = Mask.model_version_id == current
            newest = ~exists().where(*of_image, newer.id > Mask.id)
            of_current = exists().where(*of_image, newer.model_version_id == current)
            to_show = Mask.model_version_id.is_not(None) & newest & ~of_current
            rated = Mask.quality.is_not(None)
            unrated = Mask.quality.is_(None) & Mask.uncertainty.is_not(None)
            by_quality = Mask.quality, Mask.image_id
            by_uncertainty = Mask.uncertainty.desc(), Mask.image_id
            for condition, order in (
                (by_current & rated, by_quality),  # as `ix_masks_by_quality` has them
                (to_show & rated, by_quality),
                ((by_current | to_show) & unrated, by_uncertainty),
            ):
                if missing := count - len(found):
                    query = (
                        select(Mask.image_id)
                        .join(Image, Image.id == Mask.image_id)
                        .where(condition, Image.state.not_in(SETTLED))
                        .order_by(*order)
                        .limit(missing)
                    )
                    found += session.scalars(query)
        return found

    def accepted_of(self, image_id: int) -> Mask | None:
        """Return the accepted mask of an image; None where it has none."""
        query = select(Mask).join(Acceptance, Acceptance.mask_id == Mask.id)
        return self._first(query.where(Acceptance.image_id == image_id))

    def in_review_of(self, image_id: int) -> Mask | None:
        """Return the mask of an image that waits for review; None where it has none."""
        query = select(Mask).join(Submission, Submission.mask_id == Mask.id)
        return self._first(query.where(Submission.image_id == image_id))

    def count_to_learn(self, model_version_id: int | None) -> int:
        """Count the accepted masks that can be learned from and whose pixels a version did not learn.

        Masks of the hold-out set can't be; a mask whose image has no split yet can.
        """
        learned = exists().where(
            TrainingMask.content_hash == Mask.content_hash,
            TrainingMask.model_version_id == model_version_id,
        )
        elsewhere = exists().where(
            ImageSplit.image_id == Acceptance.image_id, ImageSplit.split != Split.TRAINING.value
        )
        query = (
            select(func.count(Acceptance.image_id))
            .join(Mask, Mask.id == Acceptance.mask_id)
            .where(~elsewhere)
        )
        return self._first(query if model_version_id is None else query.where(~learned)) or 0

    def of_image(self, image_id: int) -> Sequence[Mask]:
        return self._all(select(Mask).where(Mask.image_id == image_id).order_by(Mask.id))

    def get(self, mask_ids: Sequence[int]) -> dict[int, Mask]:
        """Return masks, by id."""
        return {mask.id: mask for mask in self._all_in(select(Mask), Mask.id, mask_ids)}

    def classes(self, mask_ids: Iterable[int]) -> dict[int, list[int]]:
        """Return the classes that each of some masks labels, by mask id."""
        query = select(Mask.id, Mask.classes)
        with self._database.read() as session:
            return {
                mask_id: classes
                for part in in_parts(mask_ids)
                for mask_id, classes in session.execute(query.where(Mask.id.in_(part)))
            }

    def count(self) -> int:
        """Return the number of all masks ever made."""
        return self._first(select(func.count(Mask.id))) or 0

    def all(self) -> Sequence[Mask]:
        return self._all(select(Mask).order_by(Mask.id))

    def last_reviews(self, image_ids: Iterable[int]) -> dict[int, Review]:
        """Return the newest review of each image that has one, by image id."""
        query = select(Mask.image_id, Review).join(Review, Review.mask_id == Mask.id)
        found: dict[int, Review] = {}
        with self._database.read() as session:
            for part in in_parts(image_ids):
                rows = session.execute(query.where(Mask.image_id.in_(part)).order_by(Review.id))
                found.update({image_id: review for image_id, review in rows})
        return found

    def reviews(self, mask_ids: Sequence[int]) -> Sequence[Review]:
        """Return the reviews of masks, oldest first."""
        found = self._all_in(select(Review), Review.mask_id, mask_ids)
        return sorted(found, key=lambda review: review.id)


def _predicted(session: Session, batch: Sequence[NewMask]) -> set[tuple[int, int | None]]:
    """Return the image and model version of predictions that are stored already."""
    found: set[tuple[int, int | None]] = set()
    for version in {new.model_version_id for new in batch}:
        query = select(Mask.image_id).where(Mask.model_version_id == version)
        ids = [new.image_id for new in batch if new.model_version_id == version]
        found |= {(i, version) for i in scalars_in(session, query, Mask.image_id, ids)}
    return found


def refuse_self_review(annotator: str, reviewer: str | None) -> None:
    """Raise InputError if both are one person, however the name is written, or one has no name."""
    for role, name in (("annotator", annotator), ("reviewer", reviewer)):
        if name is not None and not _normalised(name):
            raise InputError(f"the {role} has no name: give one")
    if reviewer is not None and _normalised(annotator) == _normalised(reviewer):
        raise InputError(
            f"annotator and reviewer are both '{annotator}': a mask needs a second person"
        )


def _normalised(name: str) -> str:
    """Return a name without case, spaces and composed accents, in which spellings differ."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def people_behind(session: Session, mask: Mask) -> list[str]:
    """Return who drew a mask and its ancestors, and who changed them on the labelling server."""
    ancestry = [mask]
    while (parent := ancestry[-1].parent_id) is not None:
        ancestry.append(session.get_one(Mask, parent))
    people = {m.annotator for m in ancestry if m.annotator is not None}
    ids = [m.id for m in ancestry if m.annotator is not None]
    for others in session.scalars(select(Annotation.people).where(Annotation.mask_id.in_(ids))):
        people.update(others)
    return sorted(people)


def last_review(session: Session, image_id: int) -> Review | None:
    """Return the newest review of a mask of an image; for an accepted image, the accepting one."""
    query = select(Review).join(Mask, Mask.id == Review.mask_id).where(Mask.image_id == image_id)
    return session.scalars(query.order_by(Review.id.desc()).limit(1)).first()


def store_person_mask(session: Session, new: NewMask) -> tuple[Mask, bool]:
    """Store a person's mask, the same pixels once; returns its row, and whether it is new."""
    mask = _find_person_mask(session, new)
    if mask is not None:
        return mask, False
    mask = Mask(**asdict(new))
    session.add(mask)
    session.flush()
    return mask, True


def _find_person_mask(session: Session, new: NewMask) -> Mask | None:
    return session.scalars(
        select(Mask).where(
            Mask.image_id == new.image_id,
            Mask.annotator == new.annotator,
            Mask.content_hash == new.content_hash,
        )
    ).first()


def submit_mask(session: Session, mask: Mask, actor: str, detail: dict[str, Any]) -> None:
    """Submit a person's mask for review, in place of one that waits already."""
    image = session.get_one(Image, mask.image_id)
    step(session, image, Action.SUBMIT, actor, {"mask": mask.content_hash, **detail})
    submission = session.get(Submission, mask.image_id)
    if submission is None:
        session.add(Submission(image_id=mask.image_id, mask_id=mask.id))
    else:
        submission.mask_id = mask.id


def record_review(
    session: Session,
    mask: Mask,
    reviewer: str,
    verdict: str,
    comment: str | None,
    fix: NewMask | None = None,
) -> Review:
    """Store a verdict as `Masks.review` does, in the caller's transaction."""
    for person in people_behind(session, mask):
        refuse_self_review(person, reviewer)
    image = session.get_one(Image, mask.image_id)
    detail = {"mask": mask.content_hash, "comment": comment}
    if verdict == REJECT:
        step(session, image, Action.REJECT, reviewer, detail)
    elif verdict in (ACCEPT, FIXED):
        if (verdict == FIXED) != (fix is not None):
            raise InputError(f"'{FIXED}' comes with a corrected mask, '{ACCEPT}' without one")
        accepted = mask
        if fix is not None:
            accepted, _ = store_person_mask(session, fix)
            detail["fix"] = accepted.content_hash
        step(session, image, Action.ACCEPT, reviewer, detail)
        session.add(Acceptance(image_id=mask.image_id, mask_id=accepted.id))
    else:
        raise InputError(f"'{verdict}' is no verdict: {ACCEPT}, {FIXED} or {REJECT}")
    review = Review(mask_id=mask.id, reviewer=reviewer, verdict=verdict, comment=comment)
    session.add(review)
    session.flush()
    return review


def _submit_one(session: Session, new: NewMask, reviewer: str | None) -> FileOutcome:
    assert new.annotator is not None
    image = session.get_one(Image, new.image_id)
    name = new.origin or image.name
    stored = _find_person_mask(session, new)
    waits = False
    later = None
    if stored is not None:
        submission = session.get(Submission, image.id)
        waits = submission is not None and submission.mask_id == stored.id
        if (waits and reviewer is None) or _is_accepted(session, stored):
            return FileOutcome(name, Outcome.UNCHANGED)
        later = None if waits else _later_work(session, image, stored)
        if later is not None and reviewer is None:
            return FileOutcome(name, Outcome.UNCHANGED, later)
    if image.state in _CLOSED:
        why = f"its image {_CLOSED[State(image.state)]}: 'ddiseg reopen IMAGE' first"
        return FileOutcome(name, Outcome.REFUSED, why)
    if later is not None:
        why = f"{later}; it can't be accepted over that: import a corrected mask, or review what waits"
        return FileOutcome(name, Outcome.REFUSED, why)
    mask, is_new = store_person_mask(session, new)
    if not waits:
        submit_mask(session, mask, new.annotator, {"origin": new.origin})
    if reviewer is not None:
        record_review(session, mask, reviewer, ACCEPT, None)
    return FileOutcome(name, Outcome.ADDED if is_new else Outcome.REPAIRED)


def _add_reading(session: Session, first: str, new: NewMask) -> FileOutcome:
    for mask in session.scalars(
        select(Mask).where(
            Mask.image_id == new.image_id,
            Mask.content_hash == first,
            Mask.annotator.is_not(None),
            Mask.annotator != new.annotator,
            Mask.independent.is_(False),
        )
    ):
        mask.independent = True
    mask, is_new = store_person_mask(session, replace(new, independent=True))
    marked, mask.independent = mask.independent, True
    name = new.origin or session.get_one(Image, new.image_id).name
    if not is_new:
        return FileOutcome(name, Outcome.UNCHANGED if marked else Outcome.REPAIRED)
    detail = {"mask": new.content_hash, "origin": new.origin}
    session.add(Event(kind="reading", actor=new.author, image_id=new.image_id, detail=detail))
    note = f"kept as an independent reading by {new.annotator}: 'ddiseg agreement' compares them"
    return FileOutcome(name, Outcome.ADDED, note)


def _is_accepted(session: Session, mask: Mask) -> bool:
    acceptance = session.get(Acceptance, mask.image_id)
    return acceptance is not None and acceptance.mask_id == mask.id


def _later_work(session: Session, image: Image, mask: Mask) -> str | None:
    """Return what people did with an image since `mask` was stored, which submitting it would undo.

    None if the image was reopened last: then a stored mask may be submitted again, unless a reviewer
    sent it back.
    """
    verdicts = select(Review).where(Review.mask_id == mask.id).order_by(Review.id.desc()).limit(1)
    review = session.scalars(verdicts).first()
    if review is not None and review.verdict == REJECT:
        return f"there is newer work: {review.reviewer} sent this mask back"
    done = select(Event).where(Event.image_id == image.id, Event.kind.in_(_BY_PEOPLE))
    last = session.scalars(done.order_by(Event.id.desc()).limit(1)).first()
    if last is None or last.kind == Action.REOPEN:
        return None
    return f"there is newer work: {_BY_PEOPLE[Action(last.kind)]}, by {last.actor}"
