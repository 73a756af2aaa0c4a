"""What the server remembers, and how one change moves the rest: counters, times, who did it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from tests.fake_label_studio.rows import (
    PROJECT_DEFAULTS,
    Annotation,
    Backend,
    Draft,
    Prediction,
    Project,
    Storage,
    Tab,
    Task,
    Upload,
    User,
    Webhook,
)
from tests.fake_label_studio.tokens import Tokens

Row = TypeVar("Row")

#: A task that somebody opened in the label stream is kept for them so long.
LOCK_SECONDS = 86_400


class Database:
    """All rows by number, each table a dict. `lock` is held for the whole of a request."""

    def __init__(self, document_root: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.release = "1.23.2"
        self.tokens = Tokens()
        self.document_root = document_root  #: None: every folder will do for a storage
        self.clock = Clock()
        self.users: dict[int, User] = {}
        self.projects: dict[int, Project] = {}
        self.tasks: dict[int, Task] = {}
        self.annotations: dict[int, Annotation] = {}
        self.predictions: dict[int, Prediction] = {}
        self.drafts: dict[int, Draft] = {}
        self.tabs: dict[int, Tab] = {}
        self.storages: dict[int, Storage] = {}
        self.uploads: dict[int, Upload] = {}
        self.backends: dict[int, Backend] = {}
        self.webhooks: dict[int, Webhook] = {}
        self._numbers: dict[str, Iterator[int]] = {}

    def number(self, table: str) -> int:
        """A number that no row of the table has had."""
        return next(self._numbers.setdefault(table, count(1)))

    def insert(self, table: str, kind: Callable[..., Row], *columns: Any, **more: Any) -> Row:
        """Add a row under a number of its own."""
        number = self.number(table)
        row = getattr(self, table)[number] = kind(number, *columns, **more)
        return row

    def add_user(self, email: str, token: str) -> User:
        return self.insert("users", User, email, token, self.clock.tick())

    def add_project(self, user: User, settings: dict[str, Any]) -> Project:
        now = self.clock.tick()
        return self.insert("projects", Project, user, now, PROJECT_DEFAULTS | settings)

    def change_project(self, project: Project, settings: dict[str, Any]) -> None:
        """Another number of readers goes to all tasks that are read more than once (or to all,
        where there are none, or it is 1); no task's time moves."""
        before = dict(project.settings)
        project.settings |= settings
        tasks = self.tasks_of(project)
        wanted = project.settings["maximum_annotations"]
        if wanted != before["maximum_annotations"]:
            shared = [t for t in tasks if t.overlap > 1] if wanted > 1 else []
            for task in shared or tasks:
                task.overlap = wanted
                task.count_again(in_bulk=True)
        elif project.settings["skip_queue"] != before["skip_queue"]:
            for task in tasks:
                if task.annotations:
                    task.count_again(in_bulk=True)

    def delete_project(self, project: Project) -> None:
        for task in self.tasks_of(project):
            self.delete_task(task)
        for name in ("tabs", "storages", "uploads", "backends", "webhooks"):
            table = getattr(self, name)
            for number in [n for n, row in table.items() if row.project is project]:
                del table[number]
        del self.projects[project.id]

    def tasks_of(self, project: Project) -> list[Task]:
        """A project's tasks, by number."""
        return [task for task in self.tasks.values() if task.project is project]

    def add_task(self, project: Project, data: dict[str, Any], meta: dict[str, Any]) -> Task:
        inner_id = self.number(f"tasks of project {project.id}")
        overlap = project.settings["maximum_annotations"]
        return self.insert("tasks", Task, project, inner_id, data, meta, overlap, *self.clock.two())

    def delete_task(self, task: Task) -> None:
        for annotation in task.annotations:
            del self.annotations[annotation.id]
        for prediction in task.predictions:
            del self.predictions[prediction.id]
        for draft in task.drafts:
            del self.drafts[draft.id]
        del self.tasks[task.id]

    def touch(self, task: Task, user: int | None = None) -> None:
        """Move the time of a task's last change; `user` is who did it, where the server notes it."""
        task.updated_at = self.clock.tick()
        if user is not None:
            task.updated_by = user

    def add_annotation(self, task: Task, *, by: int | None, **columns: Any) -> Annotation:
        """`by` is who sent it; None for an annotation that came with an import."""
        created_at, updated_at = self.clock.two()
        times = {"created_at": created_at, "updated_at": updated_at}
        annotation = self.insert(
            "annotations", Annotation, task=task, updated_by=by, **times, **columns
        )
        task.annotations.append(annotation)
        task.count_again()
        if by is not None:
            task.locks.pop(by, None)
            self._drop_draft(task, annotation.completed_by)
            self.touch(task, by)
        return annotation

    def change_annotation(self, annotation: Annotation, *, by: int, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(annotation, name, value)
        annotation.updated_by = by
        annotation.updated_at = self.clock.tick()
        annotation.task.count_again()
        self.touch(annotation.task, by)

    def delete_annotation(self, annotation: Annotation, *, by: int) -> None:
        task = annotation.task
        del self.annotations[annotation.id]
        task.annotations.remove(annotation)
        for child in self.annotations.values():
            if child.parent_annotation == annotation.id:
                child.parent_annotation = None
        task.count_again()
        self.touch(task, by)

    def add_draft(self, task: Task, user: User, result: list[dict[str, Any]]) -> Draft:
        self._drop_draft(task, user.id)
        draft = self.insert("drafts", Draft, task, user, result, *self.clock.two())
        task.drafts.append(draft)
        return draft

    def add_prediction(
        self,
        task: Task,
        *,
        by: int | None,
        result: list[dict[str, Any]],
        model_version: str,
        score: float | None,
    ) -> Prediction:
        """`by` is who sent it; None for a prediction that came with an import."""
        if by is not None:
            self.touch(task, by)
        columns = task, result, model_version, score, *self.clock.two()
        prediction = self.insert("predictions", Prediction, *columns)
        task.predictions.append(prediction)
        return prediction

    def delete_prediction(self, prediction: Prediction, *, by: int) -> None:
        """The annotations made from it forget it, and no annotation's time moves."""
        del self.predictions[prediction.id]
        prediction.task.predictions.remove(prediction)
        for child in prediction.task.annotations:
            if child.parent_prediction == prediction.id:
                child.parent_prediction = None
        self.touch(prediction.task, by)

    def next_task(
        self, user: User, project: Project, tasks: list[Task], *, filtered: bool
    ) -> tuple[Task, str] | None:
        """The task that the label stream gives to `user` next, and from which queue.

        Nobody is given a task that they have answered or skipped. A stream that came with filters
        looks at no locks: two people in it are given the same task.
        """
        free = [
            task
            for task in tasks
            if not task.is_labeled and all(a.completed_by != user.id for a in task.annotations)
        ]
        found = self._first(free, "Data manager queue") if filtered else self._queue(user, free)
        if found is not None and found[1] != "Task lock":
            found[0].locks[user.id] = self.clock.read()
        return found

    def _queue(self, user: User, free: list[Task]) -> tuple[Task, str] | None:
        mine = [task for task in free if user.id in self._locks(task)]
        if mine:
            return mine[0], "Task lock"
        unlocked = [task for task in free if not self._is_taken(task, user)]
        most = max((len(task.annotations) for task in free), default=0)
        shared = [
            task
            for task in unlocked
            if task.project.settings["maximum_annotations"] > 1
            and len(task.annotations) == most > 0
        ]
        return self._first(shared, "Breadth first queue") or self._first(unlocked, "Sequence queue")

    @staticmethod
    def _first(tasks: list[Task], queue: str) -> tuple[Task, str] | None:
        return (tasks[0], queue) if tasks else None

    def _is_taken(self, task: Task, user: User) -> bool:
        others = self._locks(task) - {user.id}
        answers = [a for a in task.submitted if not a.ground_truth]
        return len(others) + len(answers) >= task.overlap

    def _locks(self, task: Task) -> set[int]:
        since = self.clock.read() - timedelta(seconds=LOCK_SECONDS)
        return {user for user, locked in task.locks.items() if locked > since}

    def _drop_draft(self, task: Task, user: int) -> None:
        """A person has one draft of a task at most."""
        for draft in [draft for draft in task.drafts if draft.user.id == user]:
            task.drafts.remove(draft)
            del self.drafts[draft.id]


class Clock:
    """The server's clock: it runs with the machine's, and by itself no time comes twice."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._last = datetime.min.replace(tzinfo=UTC)
        self._next: datetime | None = None

    def read(self) -> datetime:
        """The time, for looking at."""
        return self._next or max(datetime.now(UTC) + self._ahead, self._last)

    def tick(self) -> datetime:
        """The time, for a row; later than that of every row before."""
        now = self._next or self._last + timedelta(microseconds=1)
        self._last, self._next = max(self.read(), now), None
        return self._last

    def two(self) -> tuple[datetime, datetime]:
        """When a row is made, and when it is changed last: one after the other."""
        return self.tick(), self.tick()

    def set(self, when: datetime) -> None:
        """Make `when` the next tick exactly, be it earlier or later than the last."""
        self._ahead = when - datetime.now(UTC)
        self._next = when
