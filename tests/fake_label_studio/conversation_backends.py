"""The part of the conversation that is about ML backends and webhooks."""

from __future__ import annotations

from typing import Any

from tests.fake_label_studio.ml_backend import MLBackend
from tests.fake_label_studio.talk import Talk, filters


def talk_of_backends(talk: Talk, project: int) -> None:
    """Of a project that has predictions, none of which are called like the backend."""
    with MLBackend() as first, MLBackend() as second:
        settings = _settings(project, first.url)
        _backend_refusals(talk, settings, second)
        talk.ask("PATCH", f"/api/projects/{project}/", {"model_version": ""})
        one = talk.ask("POST", "/api/ml/", settings)
        _hear_version(talk, "taken by the first", project)
        _hear_webhooks(talk, "come with it", project, first.url)
        two = talk.ask("POST", "/api/ml", {**settings, "url": f"{second.url}/"})
        three = talk.ask("POST", "/api/ml/", settings)
        _hear_webhooks(talk, "one for an address", project, second.url)
        talk.ask("GET", f"/api/ml/{one['id']}")
        talk.ask("DELETE", f"/api/ml/{one['id']}")
        _hear_version(talk, "gone though others have the name", project)
        talk.ask("PATCH", f"/api/projects/{project}/", {"model_version": "likeness"})
        _hear_version(talk, "put right", project)
        second.stop()
        found = talk.ask("GET", "/api/ml/", project=project)
        talk.hear("states", [backend["readable_state"] for backend in found])
        for backend in (two, three):
            talk.ask("DELETE", f"/api/ml/{backend['id']}")
        talk.ask("PATCH", f"/api/projects/{project}/", {"model_version": "likeness"})
        talk.ask("PATCH", f"/api/projects/{project}/", {"model_version": "m1"})
        _hear_webhooks(talk, "outlive their backends", project, first.url)
        _webhooks(talk, project, first.url)
        _stream(talk, settings)


def _settings(project: int, url: str) -> dict[str, Any]:
    return {
        "project": project,
        "title": "likeness",
        "url": url,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": MLBackend.USER,
        "basic_auth_pass": MLBackend.PASSWORD,
        "timeout": 100.0,
    }


def _backend_refusals(talk: Talk, settings: dict[str, Any], backend: MLBackend) -> None:
    for change in (
        {"url": "http://127.0.0.1:1"},
        {"url": "nonsense"},
        {"project": 999999999},
        {"basic_auth_pass": ""},
        {"basic_auth_pass": "another", "url": backend.url},
    ):
        talk.ask("POST", "/api/ml/", {**settings, **change})
    for key in ("url", "project", "basic_auth_pass"):
        talk.ask("POST", "/api/ml/", {k: v for k, v in settings.items() if k != key})
    talk.ask("GET", "/api/ml/")
    for number in (999999999, "x"):
        talk.ask("GET", "/api/ml/", project=number)
    for path in ("/api/ml/999999999", "/api/ml/1/"):
        talk.ask("GET", path)
    talk.ask("DELETE", "/api/ml/999999999")


def _webhooks(talk: Talk, project: int, url: str) -> None:
    settings = {
        "project": project,
        "url": f"{url}/webhook/secret",
        "actions": ["ANNOTATIONS_DELETED", "ANNOTATION_CREATED"],
        "send_for_all_actions": False,
        "send_payload": True,
        "headers": {"X-Likeness": "yes"},
    }
    made = talk.ask("POST", "/api/webhooks/", settings)
    made["actions"].sort()
    talk.hear("as it was sent", {key: made[key] for key in settings} == settings)
    talk.ask("POST", "/api/webhooks", settings)
    for change in (
        {"url": "http://serve:9090/webhook"},
        {"actions": ["ANNOTATED"]},
        {"actions": ["PROJECT_CREATED"]},
        {"project": 999999999},
        {"project": None},
        {"headers": "x"},
    ):
        talk.ask("POST", "/api/webhooks/", {**settings, **change})
    for key in ("url", "project"):
        talk.ask("POST", "/api/webhooks/", {k: v for k, v in settings.items() if k != key})
    path = f"/api/webhooks/{made['id']}"
    talk.ask("GET", f"{path}/")
    talk.ask("GET", path)
    talk.ask("GET", "/api/webhooks/", project=999999999)
    for _ in range(2):
        talk.ask("DELETE", f"{path}/")
    talk.ask("GET", f"{path}/")


def _stream(talk: Talk, backend: dict[str, Any]) -> None:
    """Whether a task that is painted is shown so."""
    project = backend["project"]
    prediction = {"model_version": MLBackend.VERSION, "result": []}
    task = {"data": {"image": "x", "key": "painted"}, "predictions": [prediction]}
    talk.ask("POST", f"/api/projects/{project}/import", [task])
    for version in ("", MLBackend.VERSION):
        talk.ask("PATCH", f"/api/projects/{project}/", {"model_version": version})
        _hear_predictions(talk, f"version {version}", project)
    with MLBackend() as live:
        connected = {**backend, "url": live.url, "title": MLBackend.VERSION}
        made = talk.ask("POST", "/api/ml/", connected)
        _hear_predictions(talk, "with a backend", project)
    _hear_predictions(talk, "that is down", project)
    talk.ask("DELETE", f"/api/ml/{made['id']}")


def _hear_predictions(talk: Talk, label: str, project: int) -> None:
    query = {"filters": filters(("data.key", "equal", "String", "painted"))}
    task = talk.ask("POST", "/api/dm/actions", query, id="next_task", project=project)
    talk.hear(label, len(task["predictions"]))


def _hear_version(talk: Talk, label: str, project: int) -> None:
    talk.hear(label, talk.ask("GET", f"/api/projects/{project}/")["model_version"])


def _hear_webhooks(talk: Talk, label: str, project: int, url: str) -> None:
    """The paths of a project's webhooks at an address, and whether they are sent everything."""
    found = talk.ask("GET", "/api/webhooks/", project=project)
    there = [w for w in found if w["url"].startswith(url)]
    talk.hear(label, [[w["url"].removeprefix(url), w["send_for_all_actions"]] for w in there])
