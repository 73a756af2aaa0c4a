"""Connect `ddiseg serve` with the projects, as an ML backend and as a receiver of webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from ddiseg.catalogue import Purpose
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection, host_of
from ddiseg.labelstudio.projects import ProjectRef, ensure_project, set_clicks, show_predictions
from ddiseg.labelstudio.task_payload import MODEL_VERSION
from ddiseg.workspace.workspace import Workspace

#: Title of the backend on the server; Label Studio requires it to equal the predictions' version.
TITLE = MODEL_VERSION

#: Path of its webhooks.
WEBHOOK = "/webhook"

#: Actions that webhooks report, in both projects.
ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")

#: Header of our webhooks, by which they are found whatever their address is.
MARK = {"X-Ddiseg": "webhook"}

#: Seconds that Label Studio waits for predictions.
TIMEOUT = 100.0


@dataclass(frozen=True)
class BackendAddress:
    """Address of `ddiseg serve` as Label Studio reaches it, with its credentials."""

    url: str
    user: str
    password: str = field(repr=False)
    webhook_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for an invalid address, or one that Label Studio would not accept."""
        host = host_of(self.url)
        if host is None:
            raise InputError(
                f"'{self.url}' is no address of a server: give one such as http://127.0.0.1:9090"
            )
        parts = urlsplit(self.url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(
                f"give the address of {host} alone, without user, password, '?' and '#': "
                "Label Studio gets the account of 'ddiseg serve' from ddiseg"
            )
        if host != "localhost" and not set(host) & {".", ":"}:
            raise InputError(
                f"Label Studio sends no webhooks to '{host}', a name without a dot: give the "
                "machine's full name or its IP address"
            )


def connect_backend(
    workspace: Workspace, connection: Connection, address: BackendAddress, *, clicks: bool
) -> ProjectRef:
    """Connect the backend with both projects, replacing an earlier connection.

    Label Studio checks at once whether it answers. An earlier connection is removed only after the
    new one is complete; after a kill both may exist, until the next run.

    Args:
        clicks: whether the annotation project shows labels to click with in Auto-Annotation.

    Raises:
        ServerError: Label Studio did not accept the backend; the earlier connection still works.
    """
    with _projects(workspace, connection) as (client, projects):
        annotation = projects[Purpose.ANNOTATION]
        before = _find(client, projects)
        try:
            with _explained(address.url):
                added = _add(client, projects, address)
        except ServerError:
            _remove(client, annotation, _find(client, projects) - before)
            raise
        _remove(client, annotation, _find(client, projects) - added)
        # Label Studio asks for a missing prediction when somebody opens the task.
        client.update_project(annotation.number, evaluate_predictions_automatically=True)
        set_clicks(workspace, client, annotation, clicks=clicks)
        return annotation


def disconnect_backend(workspace: Workspace, connection: Connection) -> bool:
    """Remove the backend and its webhooks; returns whether there was one."""
    with _projects(workspace, connection) as (client, projects):
        annotation = projects[Purpose.ANNOTATION]
        client.update_project(annotation.number, evaluate_predictions_automatically=False)
        set_clicks(workspace, client, annotation, clicks=False)
        found = _find(client, projects)
        _remove(client, annotation, found)
        return bool(found)


#: The parts of a connection: ("backend" or "webhook", its id on the server).
_Parts: TypeAlias = frozenset[tuple[str, int]]


@contextmanager
def _projects(
    workspace: Workspace, connection: Connection
) -> Iterator[tuple[Client, dict[Purpose, ProjectRef]]]:
    with Client(connection) as client:
        client.check_version()
        yield client, {p: ensure_project(workspace, client, connection, p) for p in Purpose}


def _find(client: Client, projects: dict[Purpose, ProjectRef]) -> _Parts:
    """Find our backends and webhooks on the server.

    They include the webhook that Label Studio creates for each backend. It sends no credentials, so
    ddiseg refuses its requests.
    """
    backends = [b for b in client.backends(projects[Purpose.ANNOTATION].number) if b.title == TITLE]
    addresses = tuple(b.url.rstrip("/") + WEBHOOK for b in backends)
    webhooks = [
        w
        for project in projects.values()
        for w in client.webhooks(project.number)
        if w.url.startswith(addresses) or MARK.items() <= w.headers.items()
    ]
    return frozenset([("backend", b.id) for b in backends] + [("webhook", w.id) for w in webhooks])


def _add(client: Client, projects: dict[Purpose, ProjectRef], address: BackendAddress) -> _Parts:
    number, url = projects[Purpose.ANNOTATION].number, address.url.rstrip("/")
    backend = client.add_backend(
        number, TITLE, url, address.user, address.password, timeout=TIMEOUT
    )
    webhook_url = f"{url}{WEBHOOK}/{address.webhook_secret}"
    webhooks = [client.add_webhook(p.number, webhook_url, ACTIONS, MARK) for p in projects.values()]
    return frozenset([("backend", backend), *(("webhook", w) for w in webhooks)])


def _remove(client: Client, annotation: ProjectRef, parts: _Parts) -> None:
    """Remove webhooks before backends: after a kill, the backend still identifies its webhook."""
    for number in sorted(number for kind, number in parts if kind == "webhook"):
        client.delete_webhook(number)
    for number in sorted(number for kind, number in parts if kind == "backend"):
        client.delete_backend(number)
    show_predictions(client, annotation)


#: What a refusal of an address means, by a part of Label Studio's message.
_REASONS = {
    "health check failed": (
        "Label Studio gets no answer there: is 'ddiseg serve' running, and is that where Label "
        "Studio's machine reaches it?"
    ),
    "authentication parameters": (
        "what answers there does not know this workspace's account: is it the 'ddiseg serve' of "
        "another one, or started before its credentials were changed?"
    ),
    "URL was not allowed": (
        "Label Studio refuses addresses in its own network unless it is started with "
        "LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false and LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false."
    ),
}


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Replace Label Studio's long message of a refusal by what it means here."""
    try:
        yield
    except ServerError as error:
        reason = next((text for part, text in _REASONS.items() if part in str(error)), None)
        if reason is None:
            raise
        raise ServerError(
            f"{url} is not connected: {reason} What was connected before still is.", error.status
        ) from error
