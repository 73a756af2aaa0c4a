"""What is imported into a project: tasks with their predictions, and pictures."""

from __future__ import annotations

import mimetypes
import re
import secrets
import time
from pathlib import PurePosixPath
from typing import Any

from tests.fake_label_studio import labelling_config, shapes
from tests.fake_label_studio.labelling_config import Config
from tests.fake_label_studio.routing import (
    Answer,
    Call,
    CrashedError,
    NoPageError,
    RefusedError,
    Routes,
    json_answer,
)
from tests.fake_label_studio.rows import Project, Upload

routes = Routes()

_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp")

#: Where the data of an item was looked for, as the error says it.
_IN_ITEM = ' [assume: item["data"] = task root with values]'
_BARE = " [assume: item as is = task root with values] "


@routes.on("POST", "/api/projects/#/import", slash="")
def import_tasks(call: Call, number: int) -> Answer:
    """A JSON list of tasks, all of it or nothing; or files, with commit_to_project=false.

    An item's own overlap, id and times are ignored, and nothing is deduped.
    """
    if number not in call.db.projects:
        raise NoPageError
    started = time.perf_counter()
    project = call.db.projects[number]
    if call.content_type.startswith("multipart/"):
        counts = _import_files(call, project)
    else:
        counts = _import_json(call, project)
    around = {"duration": time.perf_counter() - started, "could_be_tasks_list": False}
    return json_answer(counts | around, 201)


@routes.on("GET", "/api/import/file-upload/#", slash="", row="uploads")
def get_upload(_call: Call, row: Upload) -> dict[str, Any]:
    return shapes.upload(row)


@routes.on("GET", "/data/upload/#/.+", slash="")
def download(call: Call, project: int) -> Answer:
    """An uploaded file: a task's data points at it with /data/ before its `file`."""
    for row in call.db.uploads.values():
        if f"/data/{row.file}" == call.path:
            kind = mimetypes.guess_type(row.file)[0] or "application/octet-stream"
            return Answer(200, row.content, kind)
    raise CrashedError("'NoneType' object has no attribute 'has_permission'")


def _import_json(call: Call, project: Project) -> dict[str, Any]:
    items = call.json if isinstance(call.json, list) else [call.json]
    if not items:
        raise RefusedError.invalid("non_field_errors", "load_tasks: No tasks added")
    config = project.config
    faults = [_fault(config, item, place) for place, item in enumerate(items)]
    if any(faults):
        raise RefusedError.invalid("non_field_errors", [fault or {} for fault in faults])
    made = [_add(call, project, item) for item in items]
    versions = [p.model_version for task in made for p in task.predictions]
    if versions and not project.settings["model_version"]:
        project.settings["model_version"] = versions[-1]
    counts = {
        "task_count": len(made),
        "annotation_count": sum(len(task.annotations) for task in made),
        "prediction_count": len(versions),
        "file_upload_ids": [],
        "found_formats": [],
        "data_columns": [],
    }
    wants_ids = call.flag("return_task_ids", default=False)
    return counts | ({"task_ids": [task.id for task in made]} if wants_ids else {})


def _add(call: Call, project: Project, item: dict[str, Any]) -> Any:
    if "data" not in item:
        return call.db.add_task(project, item, {})
    task = call.db.add_task(project, item["data"], item.get("meta", {}))
    for sent in item.get("predictions", []):
        call.db.add_prediction(
            task,
            by=None,
            result=sent["result"],
            model_version=sent.get("model_version", "undefined"),
            score=sent.get("score"),
        )
    for sent in item.get("annotations", []):
        call.db.add_annotation(
            task,
            by=None,
            result=sent["result"],
            completed_by=sent.get("completed_by", call.by.id),
            was_cancelled=sent.get("was_cancelled", False),
            lead_time=sent.get("lead_time"),
        )
    return task


def _fault(config: Config, item: Any, place: int) -> str | None:
    if not isinstance(item, dict):
        raise CrashedError(f"argument of type '{type(item).__name__}' is not iterable")
    fault = labelling_config.data_fault(config, item.get("data", item))
    if fault is not None:
        fault += _IN_ITEM if "data" in item else _BARE
    for kind, name in (("annotations", "Annotation"), ("predictions", "Prediction")):
        rows = item.get(kind, [])
        if fault is None and not isinstance(rows, list):
            fault = f"Task[{kind}] must be list"
        elif fault is None and any("result" not in row for row in rows):
            fault = f'{name} must have "result" fields'
    return None if fault is None else f"Error at item {place}: {fault} :: {item}"


def _import_files(call: Call, project: Project) -> dict[str, Any]:
    if call.flag("commit_to_project", default=True):
        raise NotImplementedError("this server takes files with commit_to_project=false only")
    files = _files(call.body, call.content_type)
    endings = [PurePosixPath(name).suffix.lower() for name, _ in files]
    for ending in endings:
        if ending not in _PICTURES:
            raise RefusedError.invalid("non_field_errors", f"{ending} extension is not supported")
    rows = []
    for name, content in files:
        plain = re.sub(r"[^\w.-]", "_", name)
        file = f"upload/{project.id}/{secrets.token_hex(4)}-{plain}"
        rows.append(call.db.insert("uploads", Upload, project, file, content))
    return {
        "task_count": len(rows),
        "annotation_count": None,
        "prediction_count": None,
        "file_upload_ids": [row.id for row in rows],
        "found_formats": {ending: endings.count(ending) for ending in endings},
        "data_columns": ["$undefined$"],
    }


def _files(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """The files of a multipart/form-data body: name and content."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        raise RefusedError(400, "Multipart form parse error - Invalid boundary in multipart: None")
    found = []
    for part in body.split(b"--" + boundary[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if name := re.search(rb'filename="([^"]*)"', head):
            found.append((name[1].decode(), content.removesuffix(b"\r\n")))
    return found
