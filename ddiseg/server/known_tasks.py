"""The tasks of a request, found in the catalogue; nothing that a task names is ever opened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ddiseg.catalogue import Purpose
from ddiseg.catalogue.tables import Image, Project, Task
from ddiseg.labelstudio.connection import EMBEDDED, team_url
from ddiseg.labelstudio.task_payload import KEY
from ddiseg.workspace.workspace import Workspace

#: A number that every database has room for.
_LARGEST = 2**31 - 1


class AskedTask(BaseModel):
    """A task as Label Studio sends it, as far as it is read; odd values make it an unknown one."""

    id: Any = None
    project: Any = None
    data: Any = None
    total_annotations: Any = None
    cancelled_annotations: Any = None
    drafts: Any = None

    @property
    def number(self) -> int | None:
        """The server's number of the task."""
        return _number(self.id)

    @property
    def key(self) -> str | None:
        """What our push wrote into its data."""
        key = self.data.get(KEY) if isinstance(self.data, Mapping) else None
        return key if isinstance(key, str) else None

    @property
    def begun(self) -> bool:
        """Whether somebody has worked on it."""
        return bool(self.total_annotations or self.cancelled_annotations or self.drafts)


@dataclass(frozen=True)
class KnownTask:
    """A task of this workspace with its image."""

    task: Task
    image: Image


def projects_here(workspace: Workspace) -> dict[int, Project]:
    """This workspace's projects by the numbers that its labelling server has for them."""
    server = team_url(workspace.root) or EMBEDDED
    rows = workspace.catalogue.tasks.projects(server)
    return {row.remote_id: row for row in rows if row.remote_id is not None}


def find_tasks(
    workspace: Workspace, project: str | None, asked: Sequence[AskedTask]
) -> list[KnownTask | None]:
    """The annotation task of this workspace that each asked one is; None where it is none.

    Project, number and key must all be those of one task: after a server was set up anew, numbers
    mean other tasks.

    Args:
        project: of the request, as Label Studio names it: "3.1795406531".
    """
    places = projects_here(workspace)
    numbers = [_project(each, project) for each in asked]
    found: dict[tuple[int, int], Task] = {}
    for number in {n for n in numbers if n is not None}:
        place = places.get(number)
        if place is None or place.purpose != Purpose.ANNOTATION:
            continue
        ids = [each.number for each, n in zip(asked, numbers, strict=True) if n == number]
        rows = workspace.catalogue.tasks.numbered(place.id, {i for i in ids if i is not None})
        found |= {(number, remote_id): task for remote_id, task in rows.items()}
    images = {
        image.id: image
        for image in workspace.catalogue.images.select(ids=[t.image_id for t in found.values()])
    }
    known: list[KnownTask | None] = []
    for each, in_project in zip(asked, numbers, strict=True):
        task = found.get((in_project or 0, each.number or 0))
        there = task is not None and task.deleted_at is None and task.key == each.key
        known.append(KnownTask(task, images[task.image_id]) if task and there else None)
    return known


def _project(asked: AskedTask, of_request: str | None) -> int | None:
    """The number of a task's project: its own, or else the request's."""
    if asked.project is not None:
        return _number(asked.project)
    match = re.fullmatch(r"([0-9]{1,10})(\.[0-9]+)?", of_request or "")
    return _number(int(match[1])) if match else None


def _number(value: Any) -> int | None:
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and 0 < value <= _LARGEST else None
