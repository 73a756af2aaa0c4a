"""What the server says of itself and of the people on it."""

from __future__ import annotations

from typing import Any

from tests.fake_label_studio import shapes
from tests.fake_label_studio.routing import Answer, Call, RefusedError, Routes, html_answer
from tests.fake_label_studio.rows import User

routes = Routes()

_PERMISSIONS = ("projects.create", "projects.view", "projects.change", "tasks.view", "tasks.change")


@routes.on("GET", "/health", open_to_all=True)
@routes.on("GET", "/api/health", open_to_all=True)
def health(call: Call) -> Answer:
    return html_answer('{"status": "UP"}')


@routes.on("GET", "/api/version", open_to_all=True)
def version(call: Call) -> dict[str, Any]:
    release = call.db.release
    part = {"message": "fix", "commit": "df96d7", "date": "2026-09-25T09:13:03.000Z", "branch": ""}
    return {
        "release": release,
        "label-studio-os-package": {
            "version": release,
            "short_version": ".".join(release.split(".")[:2]),
            "latest_version_from_pypi": None,
            "latest_version_upload_time": None,
            "current_version_is_outdated": False,
        },
        "label-studio-os-backend": part | {"version": release},
        "label-studio-frontend": part,
        "dm2": part,
        "label-studio-converter": {"version": "2.1.2"},
        "edition": "Community",
        "lsf": part,
        "backend": {"commit": part["commit"]},
    }


@routes.on("POST", "/api/token/refresh", open_to_all=True)
def refresh(call: Call) -> dict[str, str]:
    """A personal access token buys an access token."""
    if "refresh" not in call.fields:
        raise RefusedError.invalid("refresh", "This field is required.")
    return {"access": call.db.tokens.access(call.fields["refresh"], call.db.clock.read())}


@routes.on("GET", "/api/current-user/whoami", slash="")
def whoami(call: Call) -> dict[str, Any]:
    return shapes.user(call.by) | {"permissions": list(_PERMISSIONS)}


@routes.on("GET", "/api/users")
def users(call: Call) -> list[dict[str, Any]]:
    return [shapes.user(user) for user in call.db.users.values()]


@routes.on("GET", "/api/users/#", row="users")
def user(_call: Call, row: User) -> dict[str, Any]:
    return shapes.user(row)
