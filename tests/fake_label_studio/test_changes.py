"""What moves when people and programs work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from http.client import HTTPConnection
from typing import Self

import pytest

from tests.fake_label_studio import FakeLabelStudio, database
from tests.fake_label_studio.conftest import changed_since, push
from tests.fake_label_studio.conversation import region
from tests.fake_label_studio.talk import Talk


def test_times__every_change_has_its_own(
    label_studio: FakeLabelStudio,
    talk: Talk,
    annotator: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stopped(datetime):
        """The machine's clock, too coarse to tell one change from the next."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2030, 1, 1, tzinfo=tz)

    monkeypatch.setattr(database, "datetime", Stopped)
    for task in push(talk, "a", "b", "c"):
        label_studio.annotate(task, annotator, [region()])
    times = [task.updated_at for task in label_studio.tasks.values()]
    times += [row.updated_at for row in label_studio.annotations.values()]
    assert len(set(times)) == 6


def test_times__of_a_task_move_with_what_people_and_programs_do(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    since = label_studio.now()
    assert changed_since(talk, since) == []
    label_studio.draft(task, annotator, [region()])
    assert changed_since(talk, since) == []
    for change in (
        lambda: label_studio.annotate(task, annotator, [region()]),
        lambda: label_studio.edit(1, result=[region("skin")]),
        lambda: label_studio.delete_annotation(1),
        lambda: label_studio.annotate(task, annotator, [], was_cancelled=True),
        lambda: talk.ask("PATCH", f"/api/tasks/{task}/", {"overlap": 2}),
        lambda: talk.ask("DELETE", f"/api/predictions/{task}/"),
        lambda: talk.ask("PATCH", "/api/annotations/2/", {"lead_time": "refused"}),
    ):
        change()
        assert changed_since(talk, since) == [task]
        since = label_studio.now()


def test_times__of_a_task_stay_where_the_project_changes_it(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    label_studio.annotate(task, annotator, [region()])
    since = label_studio.now()
    talk.ask("PATCH", "/api/projects/1/", {"maximum_annotations": 2})
    assert (label_studio.tasks[task].overlap, label_studio.tasks[task].is_labeled) == (2, False)
    assert changed_since(talk, since) == []


def test_edit__keeps_who_made_it(label_studio: FakeLabelStudio, talk: Talk, annotator: int) -> None:
    (task,) = push(talk, "a")
    annotation = label_studio.annotate(task, annotator, [region()], lead_time=4.0)
    before = talk.ask("GET", f"/api/annotations/{annotation}/")
    label_studio.edit(annotation, result=[region("skin")], user=label_studio.admin)
    after = talk.ask("GET", f"/api/annotations/{annotation}/")
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"result", "updated_at", "updated_by"}
    assert after["updated_by"] == label_studio.admin
    assert label_studio.tasks[task].updated_at > label_studio.annotations[annotation].updated_at


def test_clock__set_back_hides_changes_from_who_asks_since(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    tasks = push(talk, "a", "b")
    since = label_studio.now()
    label_studio.set_clock(datetime.now(UTC) - timedelta(hours=1))
    label_studio.annotate(tasks[0], annotator, [region()])
    assert changed_since(talk, since) == []
    label_studio.set_clock(datetime.now(UTC) + timedelta(hours=1))
    label_studio.annotate(tasks[1], annotator, [region()])
    assert changed_since(talk, since) == [tasks[1]]


def test_clock__is_in_the_date_header(label_studio: FakeLabelStudio) -> None:
    label_studio.set_clock(datetime(2030, 1, 1, tzinfo=UTC))
    connection = HTTPConnection(label_studio.url.removeprefix("http://"))
    connection.request("GET", "/health")
    assert connection.getresponse().headers["Date"] == "Tue, 01 Jan 2030 00:00:00 GMT"
    connection.close()


def test_overlap__two_answers_of_one_person_are_one(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    talk.ask("PATCH", f"/api/tasks/{task}/", {"overlap": 2})
    for user, done in ((annotator, False), (annotator, False), (label_studio.admin, True)):
        label_studio.annotate(task, user, [region()])
        assert label_studio.tasks[task].is_labeled is done


def test_task__deleted_takes_everything_of_it_along(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    tasks = push(talk, "a", "b")
    for task in tasks:
        label_studio.annotate(task, annotator, [region()])
    label_studio.delete_task(tasks[0])
    assert list(label_studio.tasks) == [tasks[1]]
    assert [a.task.id for a in label_studio.annotations.values()] == [tasks[1]]
    assert [p.task.id for p in label_studio.predictions.values()] == [tasks[1]]
    assert push(talk, "a") == [tasks[1] + 1]
