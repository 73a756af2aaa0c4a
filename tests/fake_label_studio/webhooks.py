"""Webhooks. The fake keeps them and sends nothing: a test posts an event itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.fake_label_studio import shapes
from tests.fake_label_studio.projects import of_chosen_project, related
from tests.fake_label_studio.routing import Answer, Call, RefusedError, Routes, json_answer
from tests.fake_label_studio.rows import Project, Webhook

if TYPE_CHECKING:
    from tests.fake_label_studio.database import Database

routes = Routes()

_ACTIONS = (
    "PROJECT_UPDATED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
)
_OF_AN_ORGANISATION = ("PROJECT_CREATED", "PROJECT_DELETED")


@routes.on("GET", "/api/webhooks")
def list_webhooks(call: Call) -> list[dict[str, Any]]:
    rows = list(call.db.webhooks.values())
    return [shapes.webhook(row) for row in of_chosen_project(call, rows)]


@routes.on("POST", "/api/webhooks")
def create_webhook(call: Call) -> Answer:
    settings = call.fields
    if "url" not in settings:
        raise RefusedError.invalid("url", "This field is required.")
    if settings.get("project") is not None:
        related(settings, "project", call.db.projects)
    _check(settings)
    if settings.get("project") is None:
        raise RefusedError(404, "Project not found.")
    row = add_webhook(call.db, call.db.projects[settings["project"]], settings)
    return json_answer(shapes.webhook(row), 201)


@routes.on("GET", "/api/webhooks/#", row="webhooks")
def get_webhook(_call: Call, row: Webhook) -> dict[str, Any]:
    return shapes.webhook(row)


@routes.on("DELETE", "/api/webhooks/#", row="webhooks")
def delete_webhook(call: Call, row: Webhook) -> None:
    del call.db.webhooks[row.id]


def add_webhook(db: Database, project: Project, settings: dict[str, Any]) -> Webhook:
    return db.insert("webhooks", Webhook, project, settings, *db.clock.two())


def _check(settings: dict[str, Any]) -> None:
    host = urlsplit(settings["url"]).hostname or ""
    if host != "localhost" and not set(host) & {".", ":"}:
        raise RefusedError.invalid("url", "Enter a valid URL.")
    for place, action in enumerate(settings.get("actions", [])):
        if action not in (*_ACTIONS, *_OF_AN_ORGANISATION):
            wrong = {str(place): [f'"{action}" is not a valid choice.']}
            raise RefusedError(400, "Validation error", {"actions": wrong})
        if action in _OF_AN_ORGANISATION:
            text = "Project webhook can't contain organization-only action."
            raise RefusedError.invalid("non_field_errors", text)
    if not isinstance(settings.get("headers", {}), dict):
        text = f"{settings['headers']} failed JSON schema check"
        raise RefusedError.invalid("headers", text)
