"""People at work on a labelling server, and what the catalogue holds when it has heard of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import select

from ddiseg.catalogue import (
    REASON_MISSING,
    AnnotationPage,
    AnnotationVersion,
    Arm,
    Catalogue,
    NewImage,
    NewMask,
    NewTask,
    Purpose,
)
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import Base, Mask
from ddiseg.outcomes import FileOutcome

ANNOTATOR, SECOND, REVIEWER = "annotator-1", "annotator-2", "reviewer-1"
URL = "http://labels.example"
WIDTH, HEIGHT = 8, 6


@dataclass(frozen=True)
class Standing:
    """All that a catalogue holds of one image.

    A mask is written "annotator-1 a", where a names its pixels, and "annotator-2 b < annotator-1 a"
    where it was drawn over another person's.
    """

    state: str
    events: list[str] = field(default_factory=list)  #: since the task was sent
    masks: list[str] = field(default_factory=list)
    in_review: str | None = None
    accepted: str | None = None
    reviews: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)  #: those that stand


#: Two that tests begin with: annotator-1's mask waits for review, and is accepted.
IN_REVIEW = Standing(
    "submitted", ["submit annotator-1"], ["annotator-1 a"], in_review="annotator-1 a"
)
ACCEPTED = Standing(
    "accepted",
    ["submit annotator-1", "accept reviewer-1"],
    ["annotator-1 a"],
    accepted="annotator-1 a",
    reviews=["reviewer-1 accept annotator-1 a"],
)


class Desk:
    """A catalogue whose images #1, #2 ... are annotation tasks on a server, and that server's side.

    What people do happens on the server, which keeps the newest version of an annotation only;
    `pull` and `pull_reviews` tell the catalogue.
    """

    def __init__(self, database: Database, images: int = 1) -> None:
        self.database = database
        self.catalogue = Catalogue(database)
        self.page = AnnotationPage([], {})  #: as it was last received
        self.project_id = self.catalogue.tasks.project(URL, Purpose.ANNOTATION).id
        self.review_project_id = self.catalogue.tasks.project(URL, Purpose.REVIEW).id
        self._newest: dict[int, AnnotationVersion] = {}  # by the server's annotation number
        self._ticks = self._numbers = 0
        dataset = self.catalogue.images.dataset("clinic")
        self.catalogue.images.add(dataset.id, [_image(n + 1) for n in range(images)], "manager")
        batch = [NewTask(f"image {n + 1}", n + 1, None, Arm.BARE, 8, 6) for n in range(images)]
        self._tasks = self._send(self.project_id, batch, start=True)
        self._review_tasks: dict[int, int] = {}

    @classmethod
    def in_memory(cls, images: int = 1) -> Desk:
        database = Database("sqlite://")
        Base.metadata.create_all(database.engine)
        return cls(database, images)

    def task(self, image: int = 1) -> int:
        return self._tasks[image]

    def review_task(self, image: int = 1) -> int | None:
        """The task of the mask that was sent to review last."""
        return self._review_tasks.get(image)

    def numbers(self, task_id: int | None = None) -> list[int]:
        """Annotations that are on the server, of one task or of all."""
        return [n for n, r in self._newest.items() if task_id in (None, r.task_id)]

    # What people do on the server; each returns the annotation's number there.

    def submit(
        self, person: str, pixels: str, *, edit: int | None = None, image: int = 1, **more: Any
    ) -> int:
        """A mask of the pixels "a", "b" ..., new or in place of what an annotation held."""
        drawn = drawn_by(person, pixels, image)
        return self._save(self._tasks[image], person, edit, mask=drawn, **more)

    def skip(
        self,
        person: str,
        reason: str = REASON_MISSING,
        note: str | None = None,
        *,
        edit: int | None = None,
        image: int = 1,
    ) -> int:
        return self._save(self._tasks[image], person, edit, skip=(reason, note))

    def spoil(self, person: str, *, edit: int | None = None) -> int:
        """An annotation that nobody can read."""
        return self._save(self._tasks[1], person, edit, problem="the run lengths end early")

    def verdict(
        self,
        person: str,
        verdict: str,
        comment: str | None = None,
        *,
        pixels: str | None = None,
        edit: int | None = None,
        image: int = 1,
    ) -> int:
        """A verdict on the mask that was sent last; with `pixels` the reviewer painted over it."""
        task_id = self._review_tasks[image]
        [task] = [t for t in self.catalogue.tasks.tasks(self.review_project_id) if t.id == task_id]
        [sent] = [m for m in self.catalogue.masks.of_image(image) if m.id == task.mask_id]
        left = pixels or sent.content_hash[0]
        return self._save(
            task_id,
            person,
            edit,
            verdict=(verdict, comment),
            mask=replace(drawn_by(person, left, image), parent_id=sent.id),
            changed=0 if left == sent.content_hash[0] else 7,
        )

    def save_again(self, number: int) -> None:
        """The same person presses Update without a change."""
        self._newest[number] = replace(self._newest[number], updated_at=self._time())

    def delete(self, number: int) -> None:
        del self._newest[number]
        self._time()

    # What ddiseg does.

    def pull(self) -> list[FileOutcome]:
        return self.receive(self.project_id, self.page_of(self._tasks.values()))

    def send_to_review(self, image: int = 1) -> None:
        mask = self.catalogue.masks.in_review()[image]
        new = NewTask(f"mask {mask.id}", image, mask.id, Arm.PREDICTED, WIDTH, HEIGHT)
        self._review_tasks |= self._send(self.review_project_id, [new], start=False)

    def pull_reviews(self) -> list[FileOutcome]:
        return self.receive(
            self.review_project_id, self.page_of([t.id for t in self._sent(self.review_project_id)])
        )

    def review(
        self, person: str, verdict: str, comment: str | None = None, *, pixels: str | None = None
    ) -> FileOutcome:
        """Image #1's mask in review gets a verdict on the server, and the catalogue hears of it."""
        self.send_to_review()
        self.verdict(person, verdict, comment, pixels=pixels)
        return self.pull_reviews()[-1]

    def receive(self, project_id: int, page: AnnotationPage) -> list[FileOutcome]:
        self.page, self._page_of = page, project_id
        return self.catalogue.tasks.receive(project_id, page)

    def receive_again(self) -> list[FileOutcome]:
        return self.catalogue.tasks.receive(self._page_of, self.page)

    def page_of(self, task_ids: Any) -> AnnotationPage:
        """What the server says of tasks now."""
        standing: dict[int, set[int]] = {task_id: set() for task_id in task_ids}
        received = [r for r in self._newest.values() if r.task_id in standing]
        for new in received:
            standing[new.task_id].add(new.remote_id)
        now = _stamp(self._ticks)
        return AnnotationPage(
            received, standing, watermark=now, changed=dict.fromkeys(standing, now)
        )

    # What the catalogue holds.

    def stands(self, image: int = 1) -> Standing:
        """All about an image, after a look for contradictions."""
        catalogue = self.catalogue
        assert catalogue.events.contradictions() == []
        masks = {m.id: m for m in catalogue.masks.of_image(image)}
        named = {i: _name(m, masks) for i, m in masks.items()}
        in_review, accepted = catalogue.masks.in_review(), catalogue.masks.accepted()
        state = catalogue.images.find(f"#{image}").state
        skips = catalogue.images.skips(image)
        assert (state == "skipped") == bool(skips)
        assert len(skips) < 2
        return Standing(
            state,
            [f"{e.kind} {e.actor}" for e in catalogue.events.of_image(image)][2:],
            list(named.values()),
            named[in_review[image].id] if image in in_review else None,
            named[accepted[image].id] if image in accepted else None,
            [
                _said(f"{r.reviewer} {r.verdict} {named[r.mask_id]}", r.comment)
                for r in catalogue.masks.reviews(list(masks))
            ],
            [_said(f"{s.annotator} {s.reason}", s.note) for s in skips],
        )

    def rows(self) -> dict[str, list[Any]]:
        """Every row of every table: equal where nothing has changed at all."""
        with self.database.read() as session:
            return {
                name: list(session.execute(select(table).order_by(*table.primary_key)))
                for name, table in Base.metadata.tables.items()
            }

    def _save(self, task_id: int, person: str, edit: int | None, **content: Any) -> int:
        if edit is None:
            self._numbers += 1
            number, began = self._numbers, person
        else:
            number, began = edit, self._newest[edit].people[0]
        self._newest[number] = AnnotationVersion(
            task_id, number, self._time(), (began, person), **content
        )
        return number

    def _time(self) -> str:
        self._ticks += 1
        return _stamp(self._ticks)

    def _send(self, project_id: int, batch: list[NewTask], *, start: bool) -> dict[int, int]:
        """Our task numbers by image."""
        self.catalogue.tasks.plan(project_id, batch, "manager", {})
        unsent = [t for t in self._sent(project_id) if t.remote_id is None]
        self.catalogue.tasks.sent({t.id: 100 + t.id for t in unsent}, "manager", start=start)
        keys = {new.key for new in batch}
        return {t.image_id: t.id for t in self._sent(project_id) if t.key in keys}

    def _sent(self, project_id: int) -> Any:
        return self.catalogue.tasks.tasks(project_id)


#: new_desk(3): images #1 to #3 in the hands of annotators.
NewDesk: TypeAlias = Callable[[int], Desk]


def drawn_by(person: str, pixels: str, image: int = 1) -> NewMask:
    return NewMask(
        image, pixels * 64, WIDTH, HEIGHT, "same", [0, 1, 2, 3, 4], "1.0", annotator=person
    )


def _image(number: int) -> NewImage:
    return NewImage(
        f"{number}.png", f"file {number}", 1, number, f"pixels {number}", "0" * 16, WIDTH, HEIGHT
    )


def _stamp(ticks: int) -> str:
    return f"{datetime(2026, 1, 1) + timedelta(seconds=ticks):%Y-%m-%dT%H:%M:%S.000000Z}"


def _name(mask: Mask, masks: dict[int, Mask]) -> str:
    name = f"{mask.annotator} {mask.content_hash[0]}"
    return name if mask.parent_id is None else f"{name} < {_name(masks[mask.parent_id], masks)}"


def _said(what: str, words: str | None) -> str:
    return what if words is None else f"{what}: {words}"
