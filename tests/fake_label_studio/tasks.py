"""Tasks, their annotations and predictions."""

from __future__ import annotations

import json
from typing import Any

from tests.fake_label_studio import shapes
from tests.fake_label_studio.data_manager import asked
from tests.fake_label_studio.projects import related
from tests.fake_label_studio.queries import fields, page, select
from tests.fake_label_studio.routing import (
    Answer,
    Call,
    CrashedError,
    RefusedError,
    Routes,
    find_row,
    json_answer,
)
from tests.fake_label_studio.rows import Annotation, Prediction, Task

routes = Routes()

_WRITABLE = ("data", "meta", "overlap", "is_labeled")

_ANNOTATION_COLUMNS = (
    *("result", "was_cancelled", "ground_truth", "lead_time", "completed_by"),
    *("parent_prediction", "parent_annotation"),
)


@routes.on("GET", "/api/tasks")
def list_tasks(call: Call) -> Any:
    """The tasks of a project or a tab, 100 a page unless told otherwise, without upper limit."""
    if "project" not in call.params and "view" not in call.params:
        return json_answer({"detail": "Neither project nor view id specified"}, 404)
    project, query = asked(call)
    rows = select(call.db.tasks_of(project), query)
    all_fields = call.params.get("fields") == "all"
    cut = fields(call)
    shown = []
    for row in page(rows, call, size=100, most=None):
        task = cut(shapes.listed_task(call.db, row, call.by, all_fields=all_fields))
        if "annotations" in task:
            task["annotations"] = [cut(annotation) for annotation in task["annotations"]]
        shown.append(task)
    return {
        "total_annotations": sum(len(row.submitted) for row in rows),
        "total_predictions": sum(len(row.predictions) for row in rows),
        "total": len(rows),
        "tasks": shown,
    }


@routes.on("POST", "/api/tasks")
def create_task(call: Call) -> Answer:
    sent = call.fields
    project = find_row(call.db, "projects", sent.get("project", 0))
    task = call.db.add_task(project, sent.get("data", {}), sent.get("meta", {}))
    return json_answer(shapes.task_columns(task), 201)


@routes.on("GET", "/api/tasks/#", row="tasks")
def get_task(call: Call, row: Task) -> dict[str, Any]:
    shown = shapes.listed_task(call.db, row, call.by, all_fields=True, stacked=False)
    return fields(call)(shown)


@routes.on("PATCH", "/api/tasks/#", row="tasks")
def change_task(call: Call, row: Task) -> dict[str, Any]:
    """`data` is replaced whole and checked against nothing; `overlap` does not count again."""
    sent = {key: value for key, value in call.fields.items() if key in _WRITABLE}
    if "data" in sent and sent["data"] is None:
        raise RefusedError.invalid("data", "This field may not be null.")
    if not isinstance(sent.get("data", {}), dict):
        raise CrashedError(f"'{type(sent['data']).__name__}' object has no attribute 'keys'")
    if not isinstance(sent.get("overlap", 1), int):
        raise RefusedError.invalid("overlap", "A valid integer is required.")
    for key, value in sent.items():
        setattr(row, key, value)
    call.db.touch(row)
    return shapes.written_task(call.db, row)


@routes.on("DELETE", "/api/tasks/#", row="tasks")
def delete_task(call: Call, row: Task) -> None:
    call.db.delete_task(row)


@routes.on("GET", "/api/tasks/#/annotations", row="tasks")
def list_annotations(call: Call, row: Task) -> list[dict[str, Any]]:
    """Without the skipped ones."""
    return [shapes.annotation(call.db, a) for a in row.submitted]


@routes.on("POST", "/api/tasks/#/annotations", row="tasks")
def create_annotation(call: Call, row: Task) -> Answer:
    sent = call.fields
    columns = _annotation_columns(call, sent)
    if "was_cancelled" in call.params:
        columns["was_cancelled"] = call.flag("was_cancelled", default=False)
    unique_id = sent.get("unique_id")
    if unique_id and any(a.unique_id == unique_id for a in call.db.annotations.values()):
        raise RefusedError(409, "Annotation with this unique id already exists")
    columns = {"result": None, "completed_by": call.by.id, "unique_id": unique_id} | columns
    made = call.db.add_annotation(row, by=call.by.id, **columns)
    return json_answer(shapes.annotation(call.db, made), 201)


@routes.on("GET", "/api/annotations/#", row="annotations")
def get_annotation(call: Call, row: Annotation) -> dict[str, Any]:
    return fields(call)(shapes.annotation(call.db, row))


@routes.on("PATCH", "/api/annotations/#", row="annotations")
def change_annotation(call: Call, row: Annotation) -> dict[str, Any]:
    """A change that is then refused has already moved the task's time, and names who tried."""
    row.updated_by = call.by.id
    call.db.touch(row.task)
    call.db.change_annotation(row, by=call.by.id, **_annotation_columns(call, call.fields))
    return shapes.annotation(call.db, row)


@routes.on("DELETE", "/api/annotations/#", row="annotations")
def delete_annotation(call: Call, row: Annotation) -> None:
    call.db.delete_annotation(row, by=call.by.id)


@routes.on("GET", "/api/predictions")
def list_predictions(call: Call) -> list[dict[str, Any]]:
    rows = list(call.db.predictions.values())
    for key, table in (("task", call.db.tasks), ("project", call.db.projects)):
        if key not in call.params:
            continue
        number = int(call.params[key])
        if number not in table:
            text = "Select a valid choice. That choice is not one of the available choices."
            raise RefusedError.invalid(key, text)
        rows = [r for r in rows if number == (r.task if key == "task" else r.task.project).id]
    return [shapes.prediction(row) for row in rows]


@routes.on("POST", "/api/predictions")
def create_prediction(call: Call) -> Answer:
    """The labels and controls that a result names are not checked."""
    sent = call.fields
    if "result" not in sent:
        raise RefusedError.invalid("result", "This field is required.")
    row = call.db.add_prediction(
        related(sent, "task", call.db.tasks),
        by=call.by.id,
        result=sent["result"],
        model_version=sent.get("model_version", ""),
        score=sent.get("score"),
    )
    return json_answer(shapes.prediction(row), 201)


@routes.on("GET", "/api/predictions/#", row="predictions")
def get_prediction(call: Call, row: Prediction) -> dict[str, Any]:
    return shapes.prediction(row)


@routes.on("DELETE", "/api/predictions/#", row="predictions")
def delete_prediction(call: Call, row: Prediction) -> None:
    call.db.delete_prediction(row, by=call.by.id)


def _annotation_columns(call: Call, sent: dict[str, Any]) -> dict[str, Any]:
    columns = {key: sent[key] for key in _ANNOTATION_COLUMNS if key in sent}
    if isinstance(columns.get("result"), str):
        try:
            columns["result"] = json.loads(columns["result"])
        except ValueError as error:
            raise CrashedError('annotation "result" can\'t be parse from str to JSON') from error
    if not isinstance(columns.get("result"), list | None):
        raise RefusedError.invalid("result", 'annotation "result" field in annotation must be list')
    if not isinstance(columns.get("lead_time"), int | float | None):
        raise RefusedError.invalid("lead_time", "A valid number is required.")
    if "completed_by" in columns:
        related(columns, "completed_by", call.db.users)
    if columns.get("parent_prediction") is not None:
        related(columns, "parent_prediction", call.db.predictions)
    return columns
