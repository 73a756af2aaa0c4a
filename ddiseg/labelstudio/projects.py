"""The two Label Studio projects of a workspace: create, find again, configure by the protocol."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotation_protocol import load_protocol
from annotation_protocol.files import locked
from annotation_protocol.label_studio_config import (
    CLICK,
    annotation_config,
    differences,
    orphaned_labels,
    read_config,
    review_config,
)
from ddiseg.catalogue import Purpose
from ddiseg.catalogue.tables import Project
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.client import Client, RemoteProject
from ddiseg.labelstudio.connection import EMBEDDED, Connection, server_of
from ddiseg.labelstudio.folder import Folder
from ddiseg.labelstudio.media import FOLDER
from ddiseg.labelstudio.task_payload import MODEL_VERSION
from ddiseg.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

#: Command group of each project.
COMMANDS = {Purpose.ANNOTATION: "label", Purpose.REVIEW: "review"}

_TITLES = {Purpose.ANNOTATION: "Annotate", Purpose.REVIEW: "Review"}

#: Descriptions below the title; a card on Home shows about 100 characters.
_DESCRIPTIONS = {
    Purpose.ANNOTATION: "Outline the lesion on each photograph, or skip it with a reason.",
    Purpose.REVIEW: "Accept, fix or reject masks that others drew: open the tab with your name.",
}

_SETTINGS: dict[Purpose, dict[str, Any]] = {
    Purpose.ANNOTATION: {
        "show_skip_button": True,
        "enable_empty_annotation": False,
        "skip_queue": "IGNORE_SKIPPED",  # a skip is final: nobody is asked again
    },
    Purpose.REVIEW: {"show_skip_button": False, "enable_empty_annotation": False},
}


@dataclass(frozen=True)
class ProjectRef:
    """A project of this workspace: its row and its id on the server."""

    row: Project
    number: int  #: the server's id
    url: str  #: address at which a person opens it

    def link(self, task: int | None) -> str:
        """Return the address at which a person opens a task."""
        return f"{self.url}?task={task}"


def known_projects(workspace: Workspace) -> dict[int, Project]:
    """Return this workspace's projects by their ids on its labelling server."""
    rows = workspace.catalogue.tasks.projects(server_of(workspace.root))
    return {row.remote_id: row for row in rows if row.remote_id is not None}


def ensure_projects(workspace: Workspace, connection: Connection) -> dict[Purpose, ProjectRef]:
    """Return both projects, created if missing; see `ensure_project`."""
    with Client(connection) as client:
        client.check_version()
        projects = {
            purpose: ensure_project(workspace, client, connection, purpose)
            for purpose in reversed(Purpose)  # Home lists the newest first: annotate, then review
        }
        return {purpose: projects[purpose] for purpose in Purpose}


def ensure_project(
    workspace: Workspace,
    client: Client,
    connection: Connection,
    purpose: Purpose,
    *,
    keep_config: bool = True,
) -> ProjectRef:
    """Return the project of one purpose, created or brought to the protocol's configuration.

    A project that an interrupted run created without recording its id is found by its key.

    Args:
        keep_config: update the configuration; without, masks drawn with an old one can be read.

    Raises:
        InputError: the protocol's configuration would orphan regions that people have drawn.
    """
    folder = Folder(workspace.root)
    folder.make()
    # Two commands at once ('label up' while a push waits for the server) would each create a project.
    busy = "another command creates the projects: waiting for it"
    with locked(folder.path / "projects.lock", busy, wait=logger.info):
        row = workspace.catalogue.tasks.project(connection.server, purpose)
        if row.remote_id is not None:
            remote = _known(client, row.remote_id, purpose)
        else:
            found = client.find_projects(_mark(row))
            remote = found[-1] if found else _make(workspace, client, row, purpose)
            workspace.catalogue.tasks.set_remote_id(row.id, remote.id)
        if keep_config:
            _set_config(workspace, client, row, remote, _config(purpose, remote.config))
        if connection.media is not None:
            _ensure_storage(client, remote, connection.media / FOLDER)
    return ProjectRef(row, remote.id, f"{client.url}/projects/{remote.id}/data")


def _ensure_storage(client: Client, remote: RemoteProject, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if str(folder) not in client.storage_paths(remote.id):
        client.add_storage(remote.id, str(folder), "photographs of ddiseg")


def _known(client: Client, number: int, purpose: Purpose) -> RemoteProject:
    try:
        return client.project(number)
    except ServerError as error:
        if error.status != 404:
            raise
        group = COMMANDS[purpose]
        raise ServerError(
            f"{client.url} has project {number} no longer: 'ddiseg {group} pull --full' takes note "
            f"of that, and 'ddiseg {group} push' then sends everything again into a new one",
            404,
        ) from error


def show_predictions(client: Client, annotation: ProjectRef) -> None:
    """Make the annotation project show our predictions, if the server shows none.

    It forgets the version when a backend of that name is deleted; predictions would then be hidden.
    """
    if client.shown_predictions(annotation.number):
        return
    try:
        client.update_project(annotation.number, model_version=MODEL_VERSION)
    except ServerError as error:
        if error.status != 400:
            raise
        # There is no prediction yet: the first import with one sets the version.


def set_clicks(workspace: Workspace, client: Client, project: ProjectRef, *, clicks: bool) -> None:
    """Show or hide the labels that an annotator clicks with; see `ensure_project`."""
    remote = client.project(project.number)
    config = annotation_config(load_protocol(), clicks=clicks)
    _set_config(workspace, client, project.row, remote, config)


def _config(purpose: Purpose, on_server: str | None = None) -> str:
    """Return the protocol's configuration, with clicks if the one on the server has them."""
    if purpose is Purpose.REVIEW:
        return review_config(load_protocol())
    clicks = on_server is not None and CLICK in read_config(on_server).controls
    return annotation_config(load_protocol(), clicks=clicks)


def _mark(row: Project) -> str:
    """Return the text that identifies this workspace's project on a server."""
    return f"ddiseg:{row.key}"


def _marked(config: str, row: Project) -> str:
    """Return a configuration with the mark in a comment."""
    return f"{config}\n<!-- ddiseg finds this project by {_mark(row)} -->"


def _title(workspace: Workspace, purpose: Purpose) -> str:
    return f"{_TITLES[purpose]}: {workspace.root.resolve().name}"[:50]


def _make(workspace: Workspace, client: Client, row: Project, purpose: Purpose) -> RemoteProject:
    return client.create_project(
        title=_title(workspace, purpose),
        description=_DESCRIPTIONS[purpose],
        label_config=_marked(_config(purpose), row),
        maximum_annotations=1,
        show_collab_predictions=True,
        model_version=MODEL_VERSION,
        **_SETTINGS[purpose],
    )


def _set_config(
    workspace: Workspace, client: Client, row: Project, remote: RemoteProject, config: str
) -> None:
    """Change the server's configuration if it differs, without orphaning anyone's work."""
    changed = differences(remote.config, config)
    if not changed and _mark(row) in remote.config:
        return
    used = workspace.catalogue.tasks.has_tasks(row.id)
    orphans = orphaned_labels(remote.config, load_protocol()) if changed and used else ()
    if orphans:
        raise InputError(
            f"project {remote.id} on {client.url} has {', '.join(orphans)}, which the protocol has "
            "not; regions drawn with it would be orphaned. Either put the old name back (in the "
            "project under Settings > Labeling Interface, or in protocol.toml), or pull everything, "
            "delete the project there and run 'ddiseg label pull --full': the next push makes a new one"
        )
    texts = _new_texts(workspace, row, remote)
    client.update_project(remote.id, label_config=_marked(config, row), **texts)


def _new_texts(workspace: Workspace, row: Project, remote: RemoteProject) -> dict[str, Any]:
    """Return new texts, and a position on Home, for a project that an older version created.

    That version kept the mark in the description. Texts that somebody has changed since stay.
    """
    if remote.description != f"Filled and emptied by ddiseg; do not remove this mark: {_mark(row)}":
        return {}
    purpose = Purpose(row.purpose)
    texts: dict[str, Any] = {"description": _DESCRIPTIONS[purpose]}
    if remote.title == f"{_TITLES[purpose]} {workspace.root.resolve().name}"[:50]:
        texts["title"] = _title(workspace, purpose)
    # It is older than the review project, which Home would list above it. Pinned, it comes first;
    # on a team's server it would come before everyone's projects.
    if purpose is Purpose.ANNOTATION and row.server == EMBEDDED:
        texts["pinned_at"] = datetime.now(UTC)
    return texts
