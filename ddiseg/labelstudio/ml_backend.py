"""Connect `ddiseg serve` with the projects: it is asked for predictions, and told what happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ddiseg.catalogue import Purpose
from ddiseg.errors import InputError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.projects import Place, open_place, set_clicks
from ddiseg.labelstudio.tasks import PAINTED
from ddiseg.workspace import Workspace

#: What the backend is called on the server: Label Studio asks one only for predictions of its name.
TITLE = PAINTED

#: Where its webhooks arrive.
WEBHOOK = "/webhook/"

#: What ddiseg is told of, in either project.
ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")

#: Seconds that Label Studio waits for predictions.
TIMEOUT = 100.0


@dataclass(frozen=True)
class BackendAddress:
    """Where Label Studio reaches `ddiseg serve`, and what it shows there."""

    url: str
    user: str
    password: str = field(repr=False)
    webhook_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"'{self.url}' is no address of a server: give one such as http://127.0.0.1:9090"
            )


def connect_backend(
    workspace: Workspace, connection: Connection, address: BackendAddress, *, clicks: bool
) -> Place:
    """Connect the backend with both projects, in place of one that was connected before.

    Label Studio tries at once whether it answers. With `clicks` the annotation project shows the
    labels to click with, while Auto-Annotation is on.
    """
    with _projects(workspace, connection) as (client, places):
        annotation = places[Purpose.ANNOTATION]
        _disconnect(client, places)
        user, password, url = address.user, address.password, address.url.rstrip("/")
        client.add_backend(annotation.number, TITLE, url, user, password, timeout=TIMEOUT)
        # A task without a prediction is asked for when somebody opens it.
        client.update_project(annotation.number, evaluate_predictions_automatically=True)
        for place in places.values():
            client.add_webhook(place.number, f"{url}{WEBHOOK}{address.webhook_secret}", ACTIONS)
        set_clicks(workspace, client, annotation, clicks=clicks)
        return annotation


def disconnect_backend(workspace: Workspace, connection: Connection) -> bool:
    """Take the backend and its webhooks away; False where none was connected."""
    with _projects(workspace, connection) as (client, places):
        annotation = places[Purpose.ANNOTATION]
        found = _disconnect(client, places)
        client.update_project(annotation.number, evaluate_predictions_automatically=False)
        set_clicks(workspace, client, annotation, clicks=False)
        return found


@contextmanager
def _projects(
    workspace: Workspace, connection: Connection
) -> Iterator[tuple[Client, dict[Purpose, Place]]]:
    with Client(connection) as client:
        client.check_version()
        yield client, {p: open_place(workspace, client, connection, p) for p in Purpose}


def _disconnect(client: Client, places: dict[Purpose, Place]) -> bool:
    found = False
    for place in places.values():
        for number, title in client.backends(place.number).items():
            if title == TITLE:
                client.delete_backend(number)
                found = True
        for number, url in client.webhooks(place.number).items():
            if urlsplit(url).path.startswith(WEBHOOK):
                client.delete_webhook(number)
                found = True
    return found
