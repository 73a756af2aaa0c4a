"""Projects and their storages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from tests.fake_label_studio import labelling_config, shapes
from tests.fake_label_studio.labelling_config import ConfigError, NotXmlError
from tests.fake_label_studio.queries import fields, projects_page
from tests.fake_label_studio.routing import (
    Answer,
    Call,
    CrashedError,
    RefusedError,
    Routes,
    find_row,
    json_answer,
)
from tests.fake_label_studio.rows import PROJECT_DEFAULTS, Project, Storage, Tab, Webhook

routes = Routes()

_TITLE_LENGTHS = (3, 50)

Row = TypeVar("Row")
OfProject = TypeVar("OfProject", Tab, Webhook)


@routes.on("GET", "/api/projects")
def list_projects(call: Call) -> dict[str, Any]:
    rows = list(reversed(call.db.projects.values()))
    rows.sort(key=lambda row: row.settings["pinned_at"] or "", reverse=True)  # the newest pin first
    if "ids" in call.params:
        if not all(number.isdigit() for number in call.names("ids")):
            raise CrashedError(f"Field 'id' expected a number but got '{call.params['ids']}'.")
        rows = [row for row in rows if str(row.id) in call.names("ids")]
    title = call.params.get("title", "").lower()
    rows = [row for row in rows if title in str(row.settings["title"]).lower()]
    shown, around = projects_page(rows, call)
    cut = fields(call)
    return around | {"results": [cut(shapes.project(call.db, row, call.by)) for row in shown]}


@routes.on("POST", "/api/projects")
def create_project(call: Call) -> Answer:
    settings = _settings(call.fields)
    try:
        labelling_config.parse(settings.get("label_config", "<View></View>"))
    except ConfigError as error:
        raise RefusedError.invalid("label_config", str(error)) from error
    project = call.db.add_project(call.by, settings)
    return json_answer(shapes.project(call.db, project, call.by, counted=False), 201)


@routes.on("GET", "/api/projects/#", row="projects")
def get_project(call: Call, project: Project) -> dict[str, Any]:
    return fields(call)(shapes.project(call.db, project, call.by))


@routes.on("PATCH", "/api/projects/#", row="projects")
def change_project(call: Call, project: Project) -> dict[str, Any]:
    settings = _settings(call.fields)
    if "label_config" in settings:
        try:
            _check_config(call, project, settings["label_config"], strict=False)
        except NotXmlError as error:  # raised before the fields are validated: no field's name
            raise RefusedError(400, str(error)) from error
        except ConfigError as error:
            raise RefusedError.invalid("label_config", str(error)) from error
    version = settings.get("model_version")
    if version and version != project.settings["model_version"]:
        predicted = {p.model_version for t in call.db.tasks_of(project) for p in t.predictions}
        backends = [b for b in call.db.backends.values() if b.project is project]
        if version not in predicted | {b.settings.get("title", "default") for b in backends}:
            raise RefusedError.invalid(
                "model_version",
                "Model version doesn't exist either as live model or as static predictions.",
            )
    call.db.change_project(project, settings)
    return shapes.project(call.db, project, call.by)


@routes.on("DELETE", "/api/projects/#", row="projects")
def delete_project(call: Call, project: Project) -> None:
    call.db.delete_project(project)


@routes.on("POST", "/api/projects/#/validate", row="projects")
def validate(call: Call, project: Project) -> dict[str, Any]:
    """Stricter than PATCH, which lets labels go that people have painted with."""
    config = call.fields.get("label_config")
    if not config:
        raise RefusedError.invalid("non_field_errors", "Label config is not set or is empty")
    try:
        changed = labelling_config.changes_essentially(config, project.settings["label_config"])
        _check_config(call, project, config, strict=True)
    except NotXmlError as error:
        raise RefusedError(400, str(error)) from error
    except ConfigError as error:
        raise RefusedError.invalid("non_field_errors", str(error)) from error
    return {"config_essential_data_has_changed": changed or None}


@routes.on("GET", "/api/storages/localfiles")
def list_storages(call: Call) -> list[dict[str, Any]]:
    if "project" not in call.params:
        raise RefusedError.invalid("non_field_errors", 'query parameter "project" is required')
    project = find_row(call.db, "projects", int(call.params["project"]))
    return [shapes.storage(row) for row in call.db.storages.values() if row.project is project]


@routes.on("POST", "/api/storages/localfiles")
def create_storage(call: Call) -> Answer:
    settings = call.fields
    project = related(settings, "project", call.db.projects)
    if not settings.get("path"):
        raise RefusedError.invalid("non_field_errors", "Path must be set for Local Files storage")
    _check_folder(settings["path"], call.db.document_root)
    created_at = call.db.clock.tick()
    row = call.db.insert("storages", Storage, project, settings, created_at)
    return json_answer(shapes.storage(row), 201)


def related(sent: dict[str, Any], key: str, table: dict[int, Row]) -> Row:
    """The row that a field names; raises RefusedError 400 where there is no field or no row."""
    if key not in sent:
        raise RefusedError.invalid(key, "This field is required.")
    if sent[key] not in table:
        raise RefusedError.invalid(key, f'Invalid pk "{sent[key]}" - object does not exist.')
    return table[sent[key]]


def of_chosen_project(call: Call, rows: Iterable[OfProject]) -> list[OfProject]:
    """Those of the rows that are of the project in the query, all where there is none.

    Raises RefusedError 400 where there is no such project.
    """
    if "project" not in call.params:
        return list(rows)
    number = int(call.params["project"])
    if number not in call.db.projects:
        text = "Select a valid choice. That choice is not one of the available choices."
        raise RefusedError.invalid("project", text)
    return [row for row in rows if row.project.id == number]


def _settings(sent: dict[str, Any]) -> dict[str, Any]:
    """What of a body can be set, checked by the type of its default; the rest is ignored."""
    settings = {
        key: value.strip() if isinstance(value, str) else value
        for key, value in sent.items()
        if key in PROJECT_DEFAULTS
    }
    errors: dict[str, list[str]] = {}
    for key, value in settings.items():
        default = PROJECT_DEFAULTS[key]
        if isinstance(default, bool) and not isinstance(value, bool):
            errors[key] = ["Must be a valid boolean."]
        elif type(default) is int and not isinstance(value, int):
            errors[key] = ["A valid integer is required."]
    title = settings.get("title")
    shortest, longest = _TITLE_LENGTHS
    if title and len(title) < shortest:
        errors["title"] = [f"Ensure this field has at least {shortest} characters."]
    elif title and len(title) > longest:
        errors["title"] = [f"Ensure this field has no more than {longest} characters."]
    if errors:
        raise RefusedError(400, "Validation error", errors)
    return settings


def _check_config(call: Call, project: Project, config: str, *, strict: bool) -> None:
    results = [
        result
        for task in call.db.tasks_of(project)
        for annotation in task.annotations
        for result in annotation.result or []
    ]
    labelling_config.check_change(config, results, strict=strict)


def _check_folder(path: str, root: Path | None) -> None:
    """What the server asks of a folder under its LOCAL_FILES_DOCUMENT_ROOT."""
    if root is None:
        return
    if not Path(path).exists():
        fault = "does not exist"
    elif Path(path) == root:
        fault = f'cannot be the same as LOCAL_FILES_DOCUMENT_ROOT="{root}" by security reasons.'
    elif root not in Path(path).parents:
        fault = f'must be a subdirectory of LOCAL_FILES_DOCUMENT_ROOT="{root}" by security reasons.'
    else:
        return
    raise RefusedError.invalid("non_field_errors", f'Absolute local path "{path}" {fault}')
