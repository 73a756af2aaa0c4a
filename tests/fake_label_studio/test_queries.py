"""What is read, and how it is found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fake_label_studio import FakeLabelStudio
from tests.fake_label_studio.conftest import push, where
from tests.fake_label_studio.conversation import region
from tests.fake_label_studio.talk import Talk, filters


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_pages__show_each_task_once_and_then_404(talk: Talk, size: int) -> None:
    numbers = push(talk, *"abcdefg")
    seen: list[int] = []
    for page in range(1, 9):
        answer = talk.ask("GET", "/api/tasks", project=1, page=page, page_size=size)
        if talk.status == 404:
            break
        assert answer["total"] == 7
        seen += [task["id"] for task in answer["tasks"]]
    assert seen == numbers
    assert answer["detail"] == "Invalid page."


def test_pages__first_one_of_nothing_is_empty(talk: Talk) -> None:
    assert talk.ask("GET", "/api/tasks", project=1)["tasks"] == []


def test_pages__thousands_of_tasks(label_studio: FakeLabelStudio, talk: Talk) -> None:
    keys = [str(number) for number in range(2_000)]
    push(talk, *keys)
    query = where("data.key", "in_list", "List", keys[1_000:1_200])
    answer = talk.ask("GET", "/api/tasks", project=1, page_size=500, query=query, include="data")
    assert [task["data"]["key"] for task in answer["tasks"]] == keys[1_000:1_200]
    last = talk.ask("GET", "/api/tasks", project=1, page=20, page_size=100, include="id")
    assert len(last["tasks"]) == 100


def test_list__annotations_only_with_all_fields(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    label_studio.annotate(task, annotator, [region()])
    (plain,) = talk.ask("GET", "/api/tasks", project=1)["tasks"]
    (whole,) = talk.ask("GET", "/api/tasks", project=1, fields="all")["tasks"]
    assert "annotations" not in plain
    assert "predictions" not in plain
    assert whole["annotations"][0]["completed_by"] == annotator
    one = talk.ask("GET", f"/api/tasks/{task}/")
    assert one["annotations"][0]["completed_by"]["id"] == annotator


def test_include__names_the_fields_of_tasks_and_of_annotations(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    label_studio.annotate(task, annotator, [region()])
    asked: dict[str, Any] = {"project": 1, "fields": "all"}
    bare = talk.ask("GET", "/api/tasks", **asked, include="id,annotations")["tasks"][0]
    assert bare == {"id": task, "annotations": [{"id": 1}]}
    full = talk.ask("GET", "/api/tasks", **asked, include="id,annotations,result")["tasks"][0]
    assert full == {"id": task, "annotations": [{"id": 1, "result": [region()]}]}
    less = talk.ask("GET", "/api/tasks", **asked, omit="predictions,id")["tasks"][0]
    assert not {"predictions", "id"} & (less.keys() | less["annotations"][0].keys())


def test_list__skipped_annotations_are_in_the_tasks_but_not_in_their_own_list(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    label_studio.annotate(task, annotator, [], was_cancelled=True)
    assert talk.ask("GET", f"/api/tasks/{task}/annotations/") == []
    (shown,) = talk.ask("GET", "/api/tasks", project=1, fields="all")["tasks"]
    assert shown["annotations"][0]["was_cancelled"]
    assert (shown["is_labeled"], shown["cancelled_annotations"]) == (False, 1)


def test_drafts__are_shown_to_their_author_only(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    label_studio.draft(task, annotator, [region()])
    admins = talk.ask("GET", f"/api/tasks/{task}/")
    assert (admins["drafts"], admins["draft_exists"]) == ([], True)
    own = Talk(label_studio.url, label_studio.token_of(annotator))
    assert len(own.ask("GET", f"/api/tasks/{task}/")["drafts"]) == 1
    label_studio.annotate(task, annotator, [region()])
    assert not talk.ask("GET", f"/api/tasks/{task}/")["draft_exists"]


@pytest.mark.parametrize("operator", ["equal", "not_equal", "contains", "not_contains"])
def test_filter__a_task_without_the_key_meets_none(talk: Talk, operator: str) -> None:
    push(talk, "a")
    query = where("data.reader", operator, "String", "a")
    assert talk.ask("GET", "/api/tasks", project=1, query=query)["total"] == 0


def test_filter__contains_looks_inside_words(talk: Talk) -> None:
    push(talk, "annotator-1", "annotator-10", "annotator-2")
    query = where("data.key", "not_contains", "String", "Annotator-1")
    (found,) = talk.ask("GET", "/api/tasks", project=1, query=query)["tasks"]
    assert found["data"]["key"] == "annotator-2"


def test_filter__time_without_fraction_is_an_error_even_as_the_server_wrote_it(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    label_studio.set_clock(datetime(2030, 1, 1, tzinfo=UTC))
    assert label_studio.now() == "2030-01-01T00:00:00Z"
    query = where("updated_at", "greater", "Datetime", "2030-01-01T00:00:00Z")
    answer = talk.ask("GET", "/api/tasks", project=1, query=query)
    assert talk.status == 500
    assert "does not match format" in answer["detail"]


def test_stream__filters_of_the_body_count_and_the_tab_s_number_does_not(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    tasks = push(talk, "a", "b")
    query = {"filters": filters(("data.key", "equal", "String", "b"))}
    tab = talk.ask("POST", "/api/dm/views/", {"project": 1, "data": query})
    address = {"id": "next_task", "project": 1, "tabID": tab["id"]}
    assert talk.ask("POST", "/api/dm/actions", {}, **address)["id"] == tasks[0]
    assert talk.ask("POST", "/api/dm/actions", query, **address)["id"] == tasks[1]
    assert [t["id"] for t in talk.ask("GET", "/api/tasks", view=tab["id"])["tasks"]] == [tasks[1]]


def test_stream__locks_a_task_for_who_opened_it_unless_filtered(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    tasks = push(talk, "a", "b")
    other = Talk(label_studio.url, label_studio.token_of(annotator))
    first, second = _next(talk), _next(other)
    assert (first["id"], second["id"]) == (tasks[0], tasks[1])
    assert (_next(talk)["id"], _next(talk)["queue"]) == (tasks[0], "Task lock")
    by_number = {"ordering": ["tasks:id"]}
    assert _next(talk, by_number)["id"] == _next(other, by_number)["id"] == tasks[0]


def test_stream__gives_nobody_a_task_they_have_answered(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    (task,) = push(talk, "a")
    label_studio.annotate(task, annotator, [], was_cancelled=True)
    own = Talk(label_studio.url, label_studio.token_of(annotator))
    _next(own)
    assert own.status == 404
    assert _next(talk)["id"] == task


def test_stream__frees_a_task_that_was_answered_for_its_second_reader(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    talk.ask("PATCH", "/api/projects/1/", {"maximum_annotations": 2})
    (task,) = push(talk, "a")
    first = Talk(label_studio.url, label_studio.token_of(annotator))
    assert _next(first)["id"] == task
    label_studio.annotate(task, annotator, [region()])
    assert (_next(talk)["id"], _next(talk)["queue"]) == (task, "Task lock")


def _next(talk: Talk, body: dict[str, Any] | None = None) -> Any:
    return talk.ask("POST", "/api/dm/actions", body or {}, id="next_task", project=1)
