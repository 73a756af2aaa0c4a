"""Pull annotations and reviews: every version of every annotation, exactly once.

Tasks are read page by page in the order of their last change, from a little before the newest
stored change. A page and its watermark are stored in one transaction. Stored versions are known by
annotation and time, so a pull may overlap, be repeated or be stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import AnnotationPage, AnnotationVersion, Arm, Purpose
from ddiseg.catalogue.records import PullRecord
from ddiseg.catalogue.tables import Mask, Task
from ddiseg.errors import ServerError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.http import HttpClient, condition
from ddiseg.labelstudio.parse import TaskContext, parse_annotation
from ddiseg.labelstudio.projects import COMMANDS, ProjectRef, ensure_project
from ddiseg.labelstudio.upload import TaskUploader
from ddiseg.labelstudio.views import send_back
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.workspace.workspace import Workspace

#: Tasks per page: held in memory, and stored in one transaction.
PAGE = 50

#: Threads that parse annotations: each waits for the disk once per mask.
THREADS = 4

#: A change may become visible after a later one, so each pull begins this much earlier.
OVERLAP = timedelta(minutes=1)

#: If the server's clock is this far behind the newest change, it was set back: all tasks are read.
SET_BACK = timedelta(seconds=10)


@dataclass
class Pulled:
    """Result of a pull."""

    project: ProjectRef
    outcomes: list[FileOutcome] = field(default_factory=list)
    #: Annotations refused by an earlier pull, unchanged since.
    problems: list[str] = field(default_factory=list)
    full: bool = False  #: whether all tasks were read
    returned: str | None = None  #: address of the tab of images that came back from review
    taken: int = 0  #: versions that others pulled before; see `pull_and_compare`
    since: str | None = None  #: time of the last pull by a person, ISO 8601, UTC


def pull(
    workspace: Workspace,
    connection: Connection,
    purpose: Purpose,
    actor: str,
    *,
    full: bool = False,
    progress: Progress = silent,
) -> Pulled:
    """Store what people did in one project since the last pull.

    Args:
        full: read all tasks, and find those that were deleted on the server.
    """
    labelling, annotating = workspace.catalogue.tasks, purpose is Purpose.ANNOTATION
    with Client(connection) as client, ThreadPoolExecutor(THREADS) as pool:
        client.check_version()
        try:
            project = ensure_project(workspace, client, connection, purpose, keep_config=False)
        except ServerError as error:
            row = labelling.project(connection.server, purpose)
            if not (full and error.status == 404 and row.remote_id is not None):
                raise
            return _replace_deleted_project(workspace, client, connection, purpose, actor)
        uploader = TaskUploader(workspace, client, connection, project, actor, start=annotating)
        adopted = uploader.adopt()
        # Work on adopted tasks may be older than the newest stored change.
        done = Pulled(project, full=full or adopted > 0 or _clock_was_set_back(client, project))
        watermark = project.row.watermark
        since = None if done.full or watermark is None else _shifted(watermark, -OVERLAP)
        # Read before the pages, so that a task pushed meanwhile does not count as deleted.
        numbers = labelling.numbers(project.row.id) if done.full else {}
        seen: set[int] = set()
        has_unknown = False  #: tasks unknown here, maybe of a request that was given up
        people = client.users()
        for page in changed_tasks(client.plain, project.number, since):
            ids = [int(task["id"]) for task in page]
            tasks = labelling.numbered(project.row.id, ids)
            if len(tasks) < len(ids) and not has_unknown:
                has_unknown = True
                uploader.remove_duplicates()
                tasks = labelling.numbered(project.row.id, ids)
            seen.update(ids)
            known = [task for task in page if int(task["id"]) in tasks]
            changed = _unseen(client, project, labelling.seen, tasks, known)
            contexts = _task_contexts(
                workspace, project, purpose, [tasks[int(t["id"])] for t in changed]
            )
            received = parse_annotations(pool, contexts, changed, people)
            done.outcomes += labelling.receive(
                project.row.id, _page(tasks, known, changed, received, page)
            )
            progress(len(seen), len(seen))
        if done.full:
            now = labelling.numbers(project.row.id)  # removing duplicates may have changed some
            deleted = sorted((numbers.keys() & now.keys()) - seen)
            done.outcomes += labelling.mark_deleted([numbers[number] for number in deleted], actor)
        done.returned = send_back(workspace, client, connection)
    reported = {o.note for o in done.outcomes}
    problems = labelling.problems(project.row.id)
    images = workspace.catalogue.images.select(ids=[task.image_id for task, _ in problems])
    names = {image.id: image.name for image in images}
    done.problems = [
        f"{names[task.image_id]}: {a.problem}" for task, a in problems if a.problem not in reported
    ]
    return done


def pull_and_compare(
    workspace: Workspace,
    connection: Connection,
    purpose: Purpose,
    actor: str,
    *,
    full: bool = False,
    progress: Progress = silent,
) -> Pulled:
    """Pull, and count what others have pulled since a person's last pull.

    'ddiseg serve' pulls submitted work at once; without the count, "0 annotations" would look as if
    nobody had worked. See `pull`.
    """
    labelling, history = workspace.catalogue.tasks, workspace.catalogue.events
    kind = f"{COMMANDS[purpose]}_pull"
    last = history.last(kind)
    known = PullRecord.from_json(last.detail).newest if last else 0
    before = labelling.newest_version()
    done = pull(workspace, connection, purpose, actor, full=full, progress=progress)
    newest = labelling.newest_version()
    # If this pull took something, it cannot be told apart from what others took meanwhile.
    through = before if any(o.outcome in _TAKEN for o in done.outcomes) else newest
    done.taken = labelling.count_versions(purpose, known, through)
    done.since = last.at if last else None
    if newest > known:
        history.record(kind, actor, PullRecord(newest).to_json())
    return done


#: Outcomes of annotations that a pull has stored.
_TAKEN = (Outcome.ADDED, Outcome.REFUSED)


def changed_tasks(
    plain: HttpClient, project: int, since: str | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield pages of the tasks changed after `since`, oldest change first, without annotation results.

    A page begins at the time, not the number, at which the last one ended: a task that changes
    meanwhile moves to the end, and numbered pages would then skip another task.
    """
    cursor, size = since, PAGE
    seen: dict[int, str] = {}
    while True:
        later = [] if cursor is None else [condition("updated_at", "greater", "Datetime", cursor)]
        tasks = plain.tasks(project, later, page=1, size=size, whole=False)
        fresh = [t for t in tasks if seen.get(t["id"]) != t["updated_at"]]
        seen.update((t["id"], t["updated_at"]) for t in fresh)
        for start in range(0, len(fresh), PAGE):
            yield fresh[start : start + PAGE]
        if len(tasks) < size:
            return
        next_cursor = _shifted(tasks[-1]["updated_at"], -timedelta(microseconds=1))
        if cursor is None or next_cursor > cursor:
            cursor, size = next_cursor, PAGE
        else:  # more changes at one moment than a page holds
            size *= 2


def parse_annotations(
    pool: Executor,
    contexts: Mapping[int, TaskContext],
    tasks: Sequence[dict[str, Any]],
    people: Mapping[int, str],
) -> list[AnnotationVersion]:
    """Parse every annotation of these tasks, and store its mask."""
    read = partial(parse_annotation, people=people, protocol=load_protocol())
    jobs = [(contexts[int(t["id"])], a) for t in tasks for a in t["annotations"]]
    return list(pool.map(read, *zip(*jobs, strict=True))) if jobs else []


def _unseen(
    client: Client,
    project: ProjectRef,
    stored: Any,
    tasks: dict[int, Task],
    page: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return the tasks of a page with a version not stored yet, with annotation results."""
    known = stored([tasks[int(t["id"])].id for t in page])

    def is_stored(task: dict[str, Any], annotation: dict[str, Any]) -> bool:
        version = tasks[int(task["id"])].id, int(annotation["id"]), annotation["updated_at"]
        return bool(known.get(version, "refused") != "refused")

    new = [int(t["id"]) for t in page if not all(is_stored(t, a) for a in t["annotations"])]
    if not new:
        return []
    wanted = [condition("id", "in_list", "List", new)]
    return client.plain.tasks(project.number, wanted, page=1, size=len(new), whole=True)


def _page(
    tasks: dict[int, Task],
    known: Sequence[dict[str, Any]],
    changed: Sequence[dict[str, Any]],
    received: Sequence[AnnotationVersion],
    page: Sequence[dict[str, Any]],
) -> AnnotationPage:
    newest = {int(t["id"]): t for t in [*known, *changed]}
    existing = {
        tasks[number].id: {int(a["id"]) for a in task["annotations"]}
        for number, task in newest.items()
    }
    updated_at = {tasks[number].id: str(task["updated_at"]) for number, task in newest.items()}
    return AnnotationPage(received, existing, max(str(t["updated_at"]) for t in page), updated_at)


def _task_contexts(
    workspace: Workspace, project: ProjectRef, purpose: Purpose, tasks: Sequence[Task]
) -> dict[int, TaskContext]:
    """Return what is needed to parse the annotations of these tasks, by the server's id."""
    rows = workspace.catalogue.images.select(ids=[t.image_id for t in tasks])
    images = {image.id: image for image in rows}
    shown = workspace.catalogue.masks.get([t.mask_id for t in tasks if t.mask_id is not None])
    return {
        task.remote_id: TaskContext(
            task,
            images[task.image_id],
            project.link(task.remote_id),
            purpose,
            partial(_find_mask, workspace, task, shown.get(task.mask_id or 0)),
            partial(_pixels, workspace, task),
            workspace.store_mask,
        )
        for task in tasks
        if task.remote_id is not None
    }


def _find_mask(workspace: Workspace, task: Task, shown: Mask | None, digest: str) -> Mask | None:
    """Return the mask whose hash begins with `digest`, usually the one that the task shows now."""
    if shown is not None and shown.content_hash.startswith(digest):
        return shown
    rows = workspace.catalogue.masks.of_image(task.image_id)
    return next((m for m in reversed(rows) if m.content_hash.startswith(digest)), None)


def _pixels(workspace: Workspace, task: Task, mask: Mask) -> masks.Mask:
    return masks.stretch(workspace.mask(mask), (task.height, task.width))


def _replace_deleted_project(
    workspace: Workspace, client: Client, connection: Connection, purpose: Purpose, actor: str
) -> Pulled:
    """Create a new project for one deleted on the server; the next push sends its tasks again."""
    labelling = workspace.catalogue.tasks
    row = labelling.project(connection.server, purpose)
    lost = [t.id for t in labelling.tasks(row.id) if t.arm != Arm.UNSAMPLED]
    outcomes = labelling.mark_deleted(lost, actor)
    labelling.set_remote_id(row.id, None)
    return Pulled(ensure_project(workspace, client, connection, purpose), outcomes, full=True)


def _clock_was_set_back(client: Client, project: ProjectRef) -> bool:
    """Whether the server's clock was set back behind the newest stored change."""
    now, newest = client.plain.server_time(), project.row.watermark
    return now is not None and newest is not None and _shifted(newest, -SET_BACK) > now


def _shifted(at: str, by: timedelta) -> str:
    """Return a time of the server's shifted by `by`, in the server's format."""
    moment = datetime.fromisoformat(at).astimezone(UTC) + by
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
