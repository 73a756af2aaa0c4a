"""The two projects of a workspace on a server: made, found again, kept as the protocol says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotation_protocol import load_protocol
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
from ddiseg.labelstudio.connection import EMBEDDED, Connection
from ddiseg.labelstudio.folder import Folder, exclusive, silent
from ddiseg.labelstudio.media import FOLDER
from ddiseg.labelstudio.task_payload import PAINTED
from ddiseg.workspace.workspace import Workspace

#: The group of commands that deals with a project.
COMMANDS = {Purpose.ANNOTATION: "label", Purpose.REVIEW: "review"}

_TITLES = {
    Purpose.ANNOTATION: "Annotate",
    Purpose.REVIEW: "Review",
}

#: What people read below the title; a card shows about 100 characters.
_DESCRIPTIONS = {
    Purpose.ANNOTATION: "Outline the lesion on each photograph, or skip it with a reason.",
    Purpose.REVIEW: "Accept, fix or reject masks that others drew: open the tab with your name.",
}

_SETTINGS: dict[Purpose, dict[str, Any]] = {
    Purpose.ANNOTATION: {
        "show_skip_button": True,
        "enable_empty_annotation": False,
        "skip_queue": "IGNORE_SKIPPED",  # a skip is an answer: nobody is asked again
    },
    Purpose.REVIEW: {"show_skip_button": False, "enable_empty_annotation": False},
}


@dataclass(frozen=True)
class ProjectRef:
    """A project of this workspace, here and on its server."""

    row: Project
    number: int  #: the server's
    url: str  #: where a person opens it

    def link(self, task: int | None) -> str:
        """Where a person opens a task of it."""
        return f"{self.url}?task={task}"


def ensure_projects(workspace: Workspace, connection: Connection) -> dict[Purpose, ProjectRef]:
    """Both projects, made where they are missing; see `ensure_project`."""
    with Client(connection) as client:
        client.check_version()
        places = {
            purpose: ensure_project(workspace, client, connection, purpose)
            for purpose in reversed(Purpose)  # Home lists the newest first: annotate, then review
        }
        return {purpose: places[purpose] for purpose in Purpose}


def ensure_project(
    workspace: Workspace,
    client: Client,
    connection: Connection,
    purpose: Purpose,
    *,
    keep_config: bool = True,
) -> ProjectRef:
    """The project of one purpose, made or brought to the protocol's configuration where needed.

    A stopped run may have made it without writing down where: it is found by its key. Raises
    InputError where the protocol's configuration would orphan what people have drawn; without
    `keep_config` the configuration is left as it is, for what was drawn with it can still be read.
    """
    folder = Folder(workspace.root)
    folder.make()
    # Two commands at once ('label up' while a push waits for the server) would each make a project.
    with exclusive(folder.path / "projects.lock", "", silent):
        row = workspace.catalogue.tasks.project(connection.server, purpose)
        if row.remote_id is not None:
            remote = _known(client, row.remote_id, purpose)
        else:
            found = client.find_projects(_mark(row))
            remote = found[-1] if found else _make(workspace, client, row, purpose)
            workspace.catalogue.tasks.place(row.id, remote.id)
        if keep_config:
            _keep_config(workspace, client, row, remote, purpose)
        if connection.media is not None:
            _let_it_show_pictures(client, remote, connection.media / FOLDER)
    return ProjectRef(row, remote.id, f"{client.url}/projects/{remote.id}/data")


def _let_it_show_pictures(client: Client, remote: RemoteProject, folder: Path) -> None:
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
    """Let the annotation project show our predictions again, where the server has forgotten which.

    It forgets when a backend of their name goes; painted tasks would then look bare.
    """
    if client.shown_predictions(annotation.number):
        return
    try:
        client.update_project(annotation.number, model_version=PAINTED)
    except ServerError as error:
        if error.status != 400:
            raise
        # Nothing is painted yet: the first import that is sets the name.


def set_clicks(workspace: Workspace, client: Client, place: ProjectRef, *, clicks: bool) -> None:
    """Show, or show no longer, the labels that an annotator clicks with; see `ensure_project`."""
    remote = client.project(place.number)
    config = annotation_config(load_protocol(), clicks=clicks)
    _set_config(workspace, client, place.row, remote, config)


def _config(purpose: Purpose, on_server: str | None = None) -> str:
    """The protocol's configuration; with clicks where that on the server has them."""
    if purpose is Purpose.REVIEW:
        return review_config(load_protocol())
    clicks = on_server is not None and CLICK in read_config(on_server).controls
    return annotation_config(load_protocol(), clicks=clicks)


def _mark(row: Project) -> str:
    """What tells this workspace's project from others on a server."""
    return f"ddiseg:{row.key}"


def _marked(config: str, row: Project) -> str:
    """A configuration that carries the mark where only its source shows it."""
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
        model_version=PAINTED,
        **_SETTINGS[purpose],
    )


def _keep_config(
    workspace: Workspace, client: Client, row: Project, remote: RemoteProject, purpose: Purpose
) -> None:
    """See that the server's configuration is the protocol's."""
    _set_config(workspace, client, row, remote, _config(purpose, remote.config))


def _set_config(
    workspace: Workspace, client: Client, row: Project, remote: RemoteProject, config: str
) -> None:
    """Change the server's configuration where it is another, without orphaning anyone's work."""
    changed = differences(remote.config, config)
    if not changed and _mark(row) in remote.config:
        return
    used = bool(workspace.catalogue.tasks.tasks(row.id))
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
    """What people read of a project that an older version made, and its place on Home.

    That version kept the mark in the description. What somebody has written there since stays.
    """
    if remote.description != f"Filled and emptied by ddiseg; do not remove this mark: {_mark(row)}":
        return {}
    purpose = Purpose(row.purpose)
    texts: dict[str, Any] = {"description": _DESCRIPTIONS[purpose]}
    if remote.title == f"{_TITLES[purpose]} {workspace.root.resolve().name}"[:50]:
        texts["title"] = _title(workspace, purpose)
    # It was made before the one for reviews, which Home would list above it. Pinned, it comes
    # first; on a team's server it would come before everyone's projects.
    if purpose is Purpose.ANNOTATION and row.server == EMBEDDED:
        texts["pinned_at"] = datetime.now(UTC)
    return texts
