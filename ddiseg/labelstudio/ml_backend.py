"""Connect `ddiseg serve` with the projects: it is asked for predictions, and told what happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from ddiseg.catalogue import Purpose
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.projects import ProjectRef, ensure_project, set_clicks, show_predictions
from ddiseg.labelstudio.task_payload import PAINTED
from ddiseg.workspace.workspace import Workspace

#: What the backend is called on the server: Label Studio asks one only for predictions of its name.
TITLE = PAINTED

#: Where its webhooks arrive.
WEBHOOK = "/webhook"

#: What ddiseg is told of, in either project.
ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")

#: What a webhook of ours sends along: by this it is known, whichever address it has.
MARK = {"X-Ddiseg": "webhook"}

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
        """Raises InputError for an address that is none, or that Label Studio would not take."""
        host = _host(self.url)
        if host is None:
            raise InputError(
                f"'{self.url}' is no address of a server: give one such as http://127.0.0.1:9090"
            )
        parts = urlsplit(self.url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(
                f"give the address of {host} alone, without user, password, '?' and '#': "
                "Label Studio is told the account of 'ddiseg serve' by itself"
            )
        if host != "localhost" and not set(host) & {".", ":"}:
            raise InputError(
                f"Label Studio sends no webhooks to '{host}', a name without a dot: give the "
                "machine's full name or its IP address"
            )


def connect_backend(
    workspace: Workspace, connection: Connection, address: BackendAddress, *, clicks: bool
) -> ProjectRef:
    """Connect the backend with both projects, in place of one that was connected before.

    Label Studio tries at once whether it answers. What was connected before is taken away only
    when all of the new is there; raises ServerError where that fails, and the former stands. After
    a kill there may be both, until the next run. With `clicks` the annotation project shows the
    labels to click with, while Auto-Annotation is on.
    """
    with _projects(workspace, connection) as (client, places):
        annotation = places[Purpose.ANNOTATION]
        former = _find(client, places)
        try:
            with _explained(address.url):
                added = _add(client, places, address)
        except ServerError:
            _remove(client, annotation, _find(client, places) - former)
            raise
        _remove(client, annotation, _find(client, places) - added)
        # A task without a prediction is asked for when somebody opens it.
        client.update_project(annotation.number, evaluate_predictions_automatically=True)
        set_clicks(workspace, client, annotation, clicks=clicks)
        return annotation


def disconnect_backend(workspace: Workspace, connection: Connection) -> bool:
    """Take the backend and its webhooks away; False where none was connected."""
    with _projects(workspace, connection) as (client, places):
        annotation = places[Purpose.ANNOTATION]
        client.update_project(annotation.number, evaluate_predictions_automatically=False)
        set_clicks(workspace, client, annotation, clicks=False)
        found = _find(client, places)
        _remove(client, annotation, found)
        return bool(found)


#: ("backend" or "webhook", its number on the server) of each thing that a connection is made of.
_Parts: TypeAlias = frozenset[tuple[str, int]]


@contextmanager
def _projects(
    workspace: Workspace, connection: Connection
) -> Iterator[tuple[Client, dict[Purpose, ProjectRef]]]:
    with Client(connection) as client:
        client.check_version()
        yield client, {p: ensure_project(workspace, client, connection, p) for p in Purpose}


def _find(client: Client, places: dict[Purpose, ProjectRef]) -> _Parts:
    """What of ours is on the server.

    The webhook that Label Studio makes by itself for a backend is among it: ddiseg refuses what
    that one sends, as it brings no credentials.
    """
    backends = [b for b in client.backends(places[Purpose.ANNOTATION].number) if b.title == TITLE]
    addresses = tuple(b.url.rstrip("/") + WEBHOOK for b in backends)
    webhooks = [
        w
        for place in places.values()
        for w in client.webhooks(place.number)
        if w.url.startswith(addresses) or MARK.items() <= w.headers.items()
    ]
    return frozenset([("backend", b.id) for b in backends] + [("webhook", w.id) for w in webhooks])


def _add(client: Client, places: dict[Purpose, ProjectRef], address: BackendAddress) -> _Parts:
    number, url = places[Purpose.ANNOTATION].number, address.url.rstrip("/")
    backend = client.add_backend(
        number, TITLE, url, address.user, address.password, timeout=TIMEOUT
    )
    told = f"{url}{WEBHOOK}/{address.webhook_secret}"
    webhooks = [client.add_webhook(p.number, told, ACTIONS, MARK) for p in places.values()]
    return frozenset([("backend", backend), *(("webhook", w) for w in webhooks)])


def _remove(client: Client, annotation: ProjectRef, parts: _Parts) -> None:
    """The webhooks first: after a kill the backend still tells which of them came with it."""
    for number in sorted(number for kind, number in parts if kind == "webhook"):
        client.delete_webhook(number)
    for number in sorted(number for kind, number in parts if kind == "backend"):
        client.delete_backend(number)
    show_predictions(client, annotation)


#: What it means where Label Studio does not take an address, by what it says of that.
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
    """Says of a refusal that Label Studio explains at length what it means here."""
    try:
        yield
    except ServerError as error:
        reason = next((text for sign, text in _REASONS.items() if sign in str(error)), None)
        if reason is None:
            raise
        raise ServerError(
            f"{url} is not connected: {reason} What was connected before still is.", error.status
        ) from error


def _host(url: str) -> str | None:
    """The host of an address of a web server; None where it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return None
    return parts.hostname if usable else None
