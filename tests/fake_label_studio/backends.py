"""ML backends. The fake tries whether they answer, and never asks one for predictions."""

from __future__ import annotations

import base64
import json
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from tests.fake_label_studio import shapes
from tests.fake_label_studio.projects import related
from tests.fake_label_studio.routing import (
    Answer,
    Call,
    CrashedError,
    RefusedError,
    Routes,
    find_row,
    json_answer,
)
from tests.fake_label_studio.rows import Backend, Prediction, Project, Task
from tests.fake_label_studio.webhooks import add_webhook

routes = Routes()

#: Seconds for /health and for /setup.
_PATIENCE = 3

_direct = build_opener(ProxyHandler({}))


@routes.on("GET", "/api/ml")
def list_backends(call: Call) -> list[dict[str, Any]]:
    """Each is asked how it is."""
    number = call.params.get("project", "0")
    if not number.isdigit():
        raise RefusedError(404, "Not found.")
    project = find_row(call.db, "projects", int(number))
    rows = [row for row in call.db.backends.values() if row.project is project]
    for row in rows:
        _look(call, row)
    return [shapes.backend(row) for row in rows]


@routes.on("POST", "/api/ml")
def create_backend(call: Call) -> Answer:
    """One that does not answer is refused. Several of a name are taken, and of an address too.

    With it comes a webhook for all actions, which brings no credentials; and where the project
    shows no version of predictions yet, it shows this backend's.
    """
    settings = call.fields
    if settings.get("basic_auth_pass") == "":
        raise CrashedError("'NoneType' object has no attribute 'basic_auth_pass'")
    project = related(settings, "project", call.db.projects)
    _check(settings, project)
    row = call.db.insert("backends", Backend, project, settings, *call.db.clock.two())
    automatic = f"{settings['url'].rstrip('/')}/webhook"
    there = [w for w in call.db.webhooks.values() if w.project is project]
    if automatic not in [webhook.settings["url"] for webhook in there]:
        add_webhook(call.db, project, {"url": automatic})
    _look(call, row)
    if project.settings["show_collab_predictions"] and not project.settings["model_version"]:
        project.settings["model_version"] = _title(row)
    return json_answer(shapes.backend(row), 201)


@routes.on("GET", "/api/ml/#", slash="", row="backends")
def get_backend(call: Call, row: Backend) -> dict[str, Any]:
    _look(call, row)
    return shapes.backend(row)


@routes.on("DELETE", "/api/ml/#", slash="", row="backends")
def delete_backend(call: Call, row: Backend) -> None:
    """A project that showed this backend's predictions shows none then, whoever else has its name.

    The webhook that came with it stays.
    """
    _look(call, row)
    shown = row.project.settings
    if shown["model_version"] == _title(row):
        shown["model_version"] = ""
    del call.db.backends[row.id]


def shown_in_the_stream(call: Call, task: Task) -> list[Prediction]:
    """The predictions that the label stream shows of a task.

    They are those of the project's version; none, where that is "". Where a backend is called so,
    the project's first one has the word: while it is down, a predicted task looks bare.
    """
    project = task.project
    version = project.settings["model_version"]
    backends = [row for row in call.db.backends.values() if row.project is project]
    if any(_title(row) == version for row in backends):
        first = backends[0]
        _look(call, first)
        if first.state != "CO":
            return []
        version = first.model_version
        if all(p.model_version != version for p in task.predictions):
            raise NotImplementedError("the real server asks its ML backend to predict this task")
    return [p for p in task.predictions if p.model_version == version]


def _check(settings: dict[str, Any], project: Project) -> None:
    """What the server asks of a backend before it takes it."""
    if "url" not in settings:
        raise RefusedError.invalid("url", "This field is required.")
    url = settings["url"]
    if urlsplit(url).scheme not in ("http", "https"):
        raise RefusedError(
            403,
            "The provided URL was not allowed. URLs must use http:// or https://, and must not "
            "resolve to local or private network addresses when SSRF protection applies.",
        )
    fault = None
    named = settings.get("auth_method") == "BASIC_AUTH"
    if named and not {"basic_auth_user", "basic_auth_pass"} <= settings.keys():
        fault = "Authentication username and password is required for Basic Authentication."
    elif error := _ask(settings, "GET", "health")[1]:
        fault = (
            f"Can't connect to ML backend {url}, health check failed. Make sure it is up and your "
            'firewall is properly configured. <a href="https://labelstud.io/guide/ml.html">Learn '
            f"more</a> about how to set up an ML backend. Additional info: {error}"
        )
        if isinstance(error, HTTPError) and error.code == HTTPStatus.UNAUTHORIZED:
            fault = (
                "Able to connect to ML Server, but authentication parameters were either not "
                "provided or are incorrect."
            )
    elif error := _ask(settings, "POST", "setup", _setup(project))[1]:
        fault = (
            f"Successfully connected to {url} but it doesn't look like a valid ML backend. "
            f"Reason: {error}.\nCheck the ML backend server console logs to check the status."
        )
    if fault:
        raise RefusedError.invalid("non_field_errors", fault)


def _look(call: Call, row: Backend) -> None:
    """Ask a backend how it is, and what it is called."""
    row.state = "DI"
    if _ask(row.settings, "GET", "health")[1] is None:
        answer, error = _ask(row.settings, "POST", "setup", _setup(row.project))
        if error is None:
            row.state, row.model_version = "CO", answer.get("model_version")
    row.updated_at = call.db.clock.tick()


def _ask(
    settings: dict[str, Any], method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[Any, Exception | None]:
    """The JSON that a backend answers, or what went wrong."""
    pair = f"{settings.get('basic_auth_user')}:{settings.get('basic_auth_pass')}"
    headers = {
        "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
        "Content-Type": "application/json",
    }
    sent = None if body is None else json.dumps(body).encode()
    request = Request(f"{settings['url'].rstrip('/')}/{path}", sent, headers, method=method)
    try:
        with _direct.open(request, timeout=_PATIENCE) as response:
            return json.loads(response.read()), None
    except HTTPError as error:
        error.close()
        return None, error
    except (URLError, OSError, ValueError) as error:
        return None, error


def _setup(project: Project) -> dict[str, Any]:
    return {
        "project": f"{project.id}.{int(project.created_at.timestamp())}",
        "schema": project.settings["label_config"],
        "hostname": "http://localhost:8080",
        "access_token": project.created_by.token,
        "extra_params": None,
    }


def _title(row: Backend) -> str:
    return str(row.settings.get("title", "default"))
