"""Ingestion of annotations from a labelling server, and how they change the state of images.

The oldest annotation of its task (the primary one) decides about an image. Masks of later readers are
kept, for agreement. An edit of the mask that an acceptance is based on reopens the image; any other
annotation of an accepted image leaves its state. After a skipped image is reopened, earlier skips no
longer count: the oldest mask does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ddiseg.catalogue.annotation_versions import last_reopened, primary_annotation, unread_edits
from ddiseg.catalogue.events import close_skips, step
from ddiseg.catalogue.lifecycle import Action, State
from ddiseg.catalogue.masks import (
    ACCEPT,
    FIXED,
    REJECT,
    NewMask,
    last_review,
    people_behind,
    record_review,
    refuse_self_review,
    store_person_mask,
    submit_mask,
)
from ddiseg.catalogue.tables import (
    Acceptance,
    Annotation,
    Image,
    Mask,
    Project,
    Purpose,
    Review,
    Skip,
    Submission,
    Task,
    now,
)
from ddiseg.errors import InputError
from ddiseg.outcomes import FileOutcome, Outcome

#: The reason of a skip without one; it is listed until somebody gives a reason.
REASON_MISSING = "missing"


@dataclass(frozen=True)
class AnnotationVersion:
    """One version of an annotation: exactly one of mask, skip, verdict and problem."""

    task_id: int
    remote_id: int
    updated_at: str  #: the server's time
    people: tuple[str, ...]  #: who started it, then who changed it last
    lead_time: float | None = None  #: seconds
    mask: NewMask | None = None  #: with a verdict: the mask as the reviewer left it
    skip: tuple[str, str | None] | None = None  #: reason, note
    verdict: tuple[str, str | None] | None = None  #: verdict, comment
    problem: str | None = None
    conflicts: int | None = None
    holes: int | None = None
    changed: int | None = None  #: pixels that differ from what was shown
    link: str | None = None  #: URL of the task

    @property
    def author(self) -> str:
        return self.people[-1]


@dataclass(frozen=True)
class AnnotationPage:
    """A page of the server: annotations, and which of each task's still exist."""

    received: Sequence[AnnotationVersion]
    existing: Mapping[int, set[int]]  #: the server's annotation numbers by task id
    watermark: str | None = None
    #: When each task had changed last when the page was read, the server's time by task id.
    changed: Mapping[int, str] = field(default_factory=dict)


def ingest_page(session: Session, purpose: Purpose, page: AnnotationPage) -> list[FileOutcome]:
    """Store a page in the caller's transaction; stored versions are unchanged."""
    stored: dict[int, list[Annotation]] = {task_id: [] for task_id in page.existing}
    query = select(Annotation).where(Annotation.task_id.in_(stored)).order_by(Annotation.id)
    for row in session.scalars(query):
        stored[row.task_id].append(row)
    tasks = {t.id: t for t in session.scalars(select(Task).where(Task.id.in_(stored)))}
    wanted = Image.id.in_({t.image_id for t in tasks.values()})
    images = {i.id: i for i in session.scalars(select(Image).where(wanted))}
    reopened = last_reopened(session, images)
    arrived: dict[int, list[AnnotationVersion]] = {}
    for new in page.received:
        arrived.setdefault(new.task_id, []).append(new)
    outcomes = []
    for task_id, rows in stored.items():
        task, image = tasks[task_id], images[tasks[task_id].image_id]
        before = primary_annotation(rows, reopened.get(image.id, ""))
        deleted = _mark_deleted(rows, page.existing[task_id], page.changed.get(task_id))
        outcomes_of = [
            (new, _store_version(session, purpose, task, image, rows, new))
            for new in sorted(arrived.get(task_id, []), key=lambda n: (n.updated_at, n.remote_id))
        ]
        newest = primary_annotation(rows, reopened.get(image.id, ""))
        # Another reader's annotation must not resubmit what a reviewer has sent back.
        if purpose is Purpose.ANNOTATION and newest is not before:
            _apply_primary(session, task, image, rows, newest)
        outcomes += [_note_skipped(image, new, outcome) for new, outcome in outcomes_of]
        outcomes += [
            FileOutcome(
                image.name,
                Outcome.REPAIRED,
                f"annotation {number} was deleted on the server; its content is kept here",
            )
            for number in deleted
        ]
    return outcomes


def resubmit(session: Session, image: Image, actor: str) -> None:
    """Submit the oldest mask on the server, if there is one, of a reopened image.

    Not one that a reviewer sent back: its author has to see it first.
    """
    query = (
        select(Annotation)
        .join(Task, Task.id == Annotation.task_id)
        .join(Project, Project.id == Task.project_id)
        .where(Task.image_id == image.id, Project.purpose == Purpose.ANNOTATION.value)
        .order_by(Annotation.id)
    )
    by_task: dict[int, list[Annotation]] = {}
    for row in session.scalars(query):
        by_task.setdefault(row.task_id, []).append(row)
    primary = (primary_annotation(rows, now()) for rows in by_task.values())
    found = next((row for row in primary if row is not None), None)
    if found is None or found.mask_id is None:
        return
    verdicts = select(Review.verdict).where(Review.mask_id == found.mask_id)
    if session.scalars(verdicts.order_by(Review.id.desc()).limit(1)).first() != REJECT:
        detail = {"task": session.get_one(Task, found.task_id).remote_id, "reopened": True}
        submit_mask(session, session.get_one(Mask, found.mask_id), actor, detail)


def is_basis_of(session: Session, image: Image, versions: Sequence[Annotation]) -> bool:
    """Return whether a settled image is based on one of these versions of an annotation."""
    if image.state == State.SKIPPED:
        return not _open_skips(session, image).isdisjoint(v.skip_id for v in versions)
    if image.state != State.ACCEPTED:
        return False
    review = last_review(session, image.id)
    assert review is not None
    accepted = {session.get_one(Acceptance, image.id).mask_id, review.mask_id}
    return any(v.mask_id in accepted or v.review_id == review.id for v in versions)


def _mark_deleted(rows: Sequence[Annotation], existing: set[int], changed: str | None) -> list[int]:
    """Mark annotations that the server no longer has; returns their numbers.

    An annotation that another pull stored after the page was read is newer, and not deleted.
    """
    for row in rows:
        if row.remote_id in existing:
            row.deleted_at = None  # it was marked wrongly: no number is given twice
    newer = {r.remote_id for r in rows if changed is not None and r.updated_at > changed}
    deleted = [r for r in rows if r.deleted_at is None and r.remote_id not in existing | newer]
    for row in deleted:
        row.deleted_at = now()
    return sorted({row.remote_id for row in deleted})


def _store_version(
    session: Session,
    purpose: Purpose,
    task: Task,
    image: Image,
    rows: list[Annotation],
    new: AnnotationVersion,
) -> FileOutcome:
    """Store a version of an annotation; one that was refused before may be readable now."""
    version = (new.remote_id, new.updated_at)
    stored = next((r for r in rows if (r.remote_id, r.updated_at) == version), None)
    if stored is not None and (stored.outcome != "refused" or new.problem is not None):
        return FileOutcome(image.name, Outcome.UNCHANGED)
    problem = new.problem
    result: dict[str, Any] = {"outcome": "refused"}
    if problem is None:
        try:
            result = _store_content(session, purpose, task, image, rows, new)
        except InputError as error:
            problem = str(error) if new.link is None else f"{error}; see {new.link}"
    row = stored or Annotation(
        task_id=task.id, remote_id=new.remote_id, updated_at=new.updated_at, created_at=now()
    )
    row.people = list(dict.fromkeys(new.people))
    row.lead_time = new.lead_time
    row.conflicts, row.holes, row.changed = new.conflicts, new.holes, new.changed
    row.problem = problem
    for column, value in result.items():
        setattr(row, column, value)
    if stored is None:
        session.add(row)
        rows.append(row)
    if problem is not None:
        return FileOutcome(image.name, Outcome.REFUSED, problem)
    note = None
    if new.skip is not None and new.skip[0] == REASON_MISSING:
        note = f"skipped without a reason: ask {new.author}"
    elif new.holes and new.changed is not None and row.mask_id is not None:
        note = (
            f"{new.holes} pixels of the mask that was shown were erased or unlabelled: they became "
            "background"
        )
    return FileOutcome(image.name, Outcome.ADDED, note)


def _note_skipped(image: Image, new: AnnotationVersion, outcome: FileOutcome) -> FileOutcome:
    """Add to the outcome of a new mask of a skipped image how to submit it."""
    has_mask = new.mask is not None and new.verdict is None
    if image.state != State.SKIPPED or outcome.outcome is not Outcome.ADDED or not has_mask:
        return outcome
    note = f"the image stays skipped: 'ddiseg reopen {image.name}' submits the mask"
    return replace(outcome, note="; ".join(filter(None, (outcome.note, note))))


def _store_content(
    session: Session,
    purpose: Purpose,
    task: Task,
    image: Image,
    rows: Sequence[Annotation],
    new: AnnotationVersion,
) -> dict[str, Any]:
    """Store the mask, skip or verdict of a version; returns the columns of its row that refer to it."""
    with session.begin_nested():  # a refusal leaves nothing of itself behind
        if purpose is Purpose.REVIEW:
            return {"outcome": "verdict", **_verdict(session, task, image, rows, new)}
        if new.skip is not None:
            return {"outcome": "skip", "skip_id": _skip(session, image, new)}
        return {"outcome": "mask", "mask_id": _mask(session, rows, new)}


def _mask(session: Session, rows: Sequence[Annotation], new: AnnotationVersion) -> int:
    assert new.mask is not None
    before = [r for r in rows if r.remote_id == new.remote_id and r.mask_id is not None]
    mask = new.mask
    people = set(new.people).union(*(r.people for r in before))
    if before and len(people) > 1:  # changed by somebody else: it descends from the last version
        mask = replace(mask, parent_id=before[-1].mask_id)
    return store_person_mask(session, mask)[0].id


def _skip(session: Session, image: Image, new: AnnotationVersion) -> int:
    """Store a skip, closed until `_apply_primary` opens it."""
    assert new.skip is not None
    reason, note = new.skip
    row = Skip(image_id=image.id, reason=reason, note=note, annotator=new.author, reopened_at=now())
    session.add(row)
    session.flush()
    return row.id


def _apply_primary(
    session: Session,
    task: Task,
    image: Image,
    rows: Sequence[Annotation],
    newest: Annotation | None,
) -> None:
    """Bring an image to the state that its primary annotation, in its `newest` version, asks for."""
    detail: dict[str, Any] = {"task": task.remote_id}
    if newest is None:
        _withdraw(session, image, rows, detail)
        return
    if not _changes_state(session, image, newest, rows):
        return
    person = newest.people[-1]
    if image.state == State.ACCEPTED:
        step(session, image, Action.REOPEN, person, {**detail, "edited": True})
    if newest.skip_id is not None:
        skip = session.get_one(Skip, newest.skip_id)
        detail = {"reason": skip.reason, "note": skip.note, **detail}
        step(session, image, Action.SKIP, person, detail)
        close_skips(session, image.id)
        skip.reopened_at = None
        return
    if image.state == State.SKIPPED:
        close_skips(session, image.id)
        step(session, image, Action.WITHDRAW, person, detail)
    assert newest.mask_id is not None
    submit_mask(session, session.get_one(Mask, newest.mask_id), person, detail)


def _changes_state(
    session: Session, image: Image, newest: Annotation, rows: Sequence[Annotation]
) -> bool:
    """Return whether the newest version of the primary annotation changes the state of its image."""
    if image.state == State.ACCEPTED:
        versions = [r for r in rows if r.remote_id == newest.remote_id]
        return is_basis_of(session, image, versions) and not is_basis_of(session, image, [newest])
    if image.state == State.SKIPPED:
        skips = _open_skips(session, image)
        return newest.skip_id not in skips and skips <= {r.skip_id for r in rows}
    if image.state == State.SUBMITTED:
        return session.get_one(Submission, image.id).mask_id != newest.mask_id
    return True


def _withdraw(
    session: Session, image: Image, rows: Sequence[Annotation], detail: dict[str, Any]
) -> None:
    """Withdraw what came from a task whose annotations were all deleted."""
    submission = session.get(Submission, image.id)
    skips = _open_skips(session, image)
    submitted = submission is not None and submission.mask_id in {r.mask_id for r in rows}
    if submitted or (skips and skips <= {r.skip_id for r in rows}):
        close_skips(session, image.id)
        step(session, image, Action.WITHDRAW, rows[-1].people[-1], detail)


def _open_skips(session: Session, image: Image) -> set[int | None]:
    query = select(Skip.id).where(Skip.image_id == image.id, Skip.reopened_at.is_(None))
    return set(session.scalars(query))


def _verdict(
    session: Session, task: Task, image: Image, rows: Sequence[Annotation], new: AnnotationVersion
) -> dict[str, int | None]:
    """Store the verdict of a review task; returns the ids of the review and of the fix.

    Raises:
        InputError: the verdict can't be given.
    """
    assert new.verdict is not None
    assert task.mask_id is not None
    verdict, comment = new.verdict
    mask = session.get_one(Mask, task.mask_id)
    _refuse_self_review(session, mask, new.people)
    if verdict == ACCEPT and new.changed:
        raise InputError(
            f"{image.name}: the verdict is '{ACCEPT}', but {new.changed} pixels were changed: choose "
            f"'{FIXED}' to keep the changes, or undo them"
        )
    given = [r for r in rows if r.outcome == "verdict" and r.deleted_at is None]
    if any(r.remote_id != new.remote_id for r in given):
        raise _other_verdict(image)
    fix = new.mask if verdict == FIXED and new.changed else None
    if fix is None and verdict == FIXED:
        verdict = ACCEPT  # nothing was changed
    before = None
    if given:
        last = given[-1]
        before = session.get_one(Review, last.review_id)
        fixed = session.get_one(Mask, last.mask_id).content_hash if last.mask_id else None
        if (before.verdict, before.comment, fixed) == (verdict, comment, fix and fix.content_hash):
            return {"review_id": last.review_id, "mask_id": last.mask_id}
    if unread := unread_edits(session, [mask.id]):
        raise InputError(f"{image.name}: {unread[mask.id]}")
    _resubmit_for_change(session, image, mask, before, new.author)
    review = record_review(session, mask, new.author, verdict, comment, fix)
    fix_id = session.get_one(Acceptance, image.id).mask_id if fix is not None else None
    return {"review_id": review.id, "mask_id": fix_id}


def _refuse_self_review(session: Session, mask: Mask, people: Sequence[str]) -> None:
    """Raise InputError if one of `people` worked on the mask."""
    try:
        for reviewer in people:
            for person in people_behind(session, mask):
                refuse_self_review(person, reviewer)
    except InputError as error:
        offer = "'ddiseg review push' offers it to one as long as it waits"
        raise InputError(f"{error}; {offer}") from error


def _other_verdict(image: Image) -> InputError:
    next_step = {
        State.ACCEPTED: (
            f"; to change it, edit that one, or run 'ddiseg reopen {image.name}', which sends the "
            "image back to its annotator first"
        ),
        State.REWORK: "; the image comes back to review once its annotator has pressed Update",
    }.get(State(image.state), "")
    return InputError(f"{image.name}: this mask has another verdict already{next_step}")


def _resubmit_for_change(
    session: Session, image: Image, mask: Mask, before: Review | None, reviewer: str
) -> None:
    """Submit `mask` again if its newest verdict is the one that changes; else it must wait for review."""
    submission = session.get(Submission, image.id)
    if submission is not None and submission.mask_id == mask.id:
        return
    last = last_review(session, image.id)
    if (
        last is not None
        and last.mask_id == mask.id
        and image.state in (State.ACCEPTED, State.REWORK)
    ):
        if last is not before:
            raise _other_verdict(image)
        if image.state == State.ACCEPTED:
            step(session, image, Action.REOPEN, reviewer, {"verdict": "changed"})
        submit_mask(session, mask, reviewer, {"verdict": "changed"})
        return
    raise InputError(
        f"{image.name} was changed after this mask went to review; 'ddiseg review push' sends the "
        "newer one"
    )
