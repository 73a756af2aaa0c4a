"""Bring back what people did, in annotation and in review: every version of every annotation, once.

Pages of tasks come by the time of their last change, from a little before the newest change that
is stored; a page and its watermark are stored together. What is stored already is known by
annotation and time, so overlapping, repeating and stopping a pull are all harmless.
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
from ddiseg.labelstudio.http import HttpClient, changed_since, numbered
from ddiseg.labelstudio.parse import TaskContext, parse_annotation
from ddiseg.labelstudio.projects import COMMANDS, ProjectRef, ensure_project
from ddiseg.labelstudio.returned import send_back
from ddiseg.labelstudio.upload import TaskUploader
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.workspace.workspace import Workspace

#: Tasks in a page: what is held in memory, and stored in one transaction.
PAGE = 50

#: Threads that read answers: each waits for the disk once a mask.
THREADS = 4

#: A change may become visible after a later one: each pull begins this much before the newest.
OVERLAP = timedelta(minutes=1)

#: A server whose clock is this far behind the newest change was set back: everything is read.
SET_BACK = timedelta(seconds=10)


@dataclass
class Pulled:
    """What came back."""

    place: ProjectRef
    outcomes: list[FileOutcome] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  #: refused before and still so
    full: bool = False  #: whether all tasks were read
    returned: str | None = None  #: where annotators find the images that came back from review
    taken: int = 0  #: came before, by 'ddiseg serve' or a round; see `pull_and_compare`
    since: str | None = None  #: when a person had pulled last, ISO 8601, UTC


def pull(
    workspace: Workspace,
    connection: Connection,
    purpose: Purpose,
    actor: str,
    *,
    full: bool = False,
    progress: Progress = silent,
) -> Pulled:
    """Store what people did in one project since the last pull, or with `full` since ever.

    A full pull also finds tasks that were deleted on the server.
    """
    labelling, annotating = workspace.catalogue.tasks, purpose is Purpose.ANNOTATION
    with Client(connection) as client, ThreadPoolExecutor(THREADS) as pool:
        client.check_version()
        try:
            place = ensure_project(workspace, client, connection, purpose, keep_config=False)
        except ServerError as error:
            row = labelling.project(connection.server, purpose)
            if not (full and error.status == 404 and row.remote_id is not None):
                raise
            return _project_gone(workspace, client, connection, purpose, actor)
        sender = TaskUploader(workspace, client, connection, place, actor, start=annotating)
        adopted = sender.adopt()
        # What people did with adopted tasks may lie before the newest change that is stored.
        done = Pulled(place, full=full or adopted > 0 or _set_back(client, place))
        since = None if done.full else _a_little_before(place.row.watermark)
        # Read before the pages are: a task that is pushed meanwhile is not missed in them.
        numbers = labelling.numbers(place.row.id) if done.full else {}
        seen: set[int] = set()
        strangers = False  #: tasks that nobody here knows, maybe of a request that was given up
        people = client.users()
        for page in changed_tasks(client.plain, place.number, since):
            ids = [int(task["id"]) for task in page]
            tasks = labelling.numbered(place.row.id, ids)
            if len(tasks) < len(ids) and not strangers:
                strangers = True
                sender.leave_one()
                tasks = labelling.numbered(place.row.id, ids)
            seen.update(ids)
            known = [task for task in page if int(task["id"]) in tasks]
            answers = _unseen(client, place, labelling.seen, tasks, known)
            asked = _ask(workspace, place, purpose, [tasks[int(t["id"])] for t in answers])
            received = parse_annotations(pool, asked, answers, people)
            done.outcomes += labelling.receive(
                place.row.id, _page(tasks, known, answers, received, page)
            )
            progress(len(seen), len(seen))
        if done.full:
            there = labelling.numbers(place.row.id)  # one that was there twice has another now
            gone = sorted((numbers.keys() & there.keys()) - seen)
            done.outcomes += labelling.missed([numbers[number] for number in gone], actor)
        done.returned = send_back(workspace, client, connection)
    told = {o.note for o in done.outcomes}
    still = labelling.problems(place.row.id)
    images = workspace.catalogue.images.select(ids=[task.image_id for task, _ in still])
    names = {image.id: image.name for image in images}
    done.problems = [
        f"{names[task.image_id]}: {a.problem}" for task, a in still if a.problem not in told
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
    """Pull for a person, who also learns what others have taken since a person pulled last.

    'ddiseg serve' takes what is handed in at once: without that, "0 annotations" would look as if
    nothing had been done. See `pull`.
    """
    labelling, history = workspace.catalogue.tasks, workspace.catalogue.events
    kind = f"{COMMANDS[purpose]}_pull"
    last = history.last(kind)
    known = PullRecord.from_json(last.detail).newest if last else 0
    before = labelling.newest_version()
    done = pull(workspace, connection, purpose, actor, full=full, progress=progress)
    newest = labelling.newest_version()
    # What others took while this pull ran is not told apart from what it took itself, if it did.
    through = before if any(o.outcome in _TAKEN for o in done.outcomes) else newest
    done.taken = labelling.count_versions(purpose, known, through)
    done.since = last.at if last else None
    if newest > known:
        history.record(kind, actor, PullRecord(newest).to_json())
    return done


#: Outcomes of what a pull stored itself.
_TAKEN = (Outcome.ADDED, Outcome.REFUSED)


def changed_tasks(
    plain: HttpClient, project: int, since: str | None
) -> Iterator[list[dict[str, Any]]]:
    """Pages of the tasks that changed after `since`, oldest change first, in their light form.

    A page begins where the last one ended in time, not in number: a task that changes meanwhile
    moves to the end and would push another one over a border between numbered pages.
    """
    cursor, size = since, PAGE
    seen: dict[int, str] = {}
    while True:
        tasks = plain.tasks(project, list(changed_since(cursor)), page=1, size=size, whole=False)
        fresh = [t for t in tasks if seen.get(t["id"]) != t["updated_at"]]
        seen.update((t["id"], t["updated_at"]) for t in fresh)
        for start in range(0, len(fresh), PAGE):
            yield fresh[start : start + PAGE]
        if len(tasks) < size:
            return
        ahead = _moved(tasks[-1]["updated_at"], -timedelta(microseconds=1))
        if cursor is None or ahead > cursor:
            cursor, size = ahead, PAGE
        else:  # more changes at one moment than a page holds
            size *= 2


def parse_annotations(
    pool: Executor,
    asked: Mapping[int, TaskContext],
    answers: Sequence[dict[str, Any]],
    people: Mapping[int, str],
) -> list[AnnotationVersion]:
    """What each annotation of these whole tasks says; its mask is kept in the store."""
    read = partial(parse_annotation, people=people, protocol=load_protocol())
    jobs = [(asked[int(t["id"])], a) for t in answers for a in t["annotations"]]
    return list(pool.map(read, *zip(*jobs, strict=True))) if jobs else []


def _unseen(
    client: Client,
    place: ProjectRef,
    stored: Any,
    tasks: dict[int, Task],
    page: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The tasks of a page that have an annotation in a version not stored yet, whole."""
    known = stored([tasks[int(t["id"])].id for t in page])
    new = [
        int(t["id"])
        for t in page
        if any(
            known.get((tasks[int(t["id"])].id, int(a["id"]), a["updated_at"]), "refused")
            == "refused"
            for a in t["annotations"]
        )
    ]
    if not new:
        return []
    return client.plain.tasks(place.number, [numbered(new)], page=1, size=len(new), whole=True)


def _page(
    tasks: dict[int, Task],
    known: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    received: Sequence[AnnotationVersion],
    page: Sequence[dict[str, Any]],
) -> AnnotationPage:
    newest = {int(t["id"]): t for t in [*known, *answers]}
    standing = {
        tasks[number].id: {int(a["id"]) for a in task["annotations"]}
        for number, task in newest.items()
    }
    changed = {tasks[number].id: str(task["updated_at"]) for number, task in newest.items()}
    return AnnotationPage(received, standing, max(str(t["updated_at"]) for t in page), changed)


def _ask(
    workspace: Workspace, place: ProjectRef, purpose: Purpose, tasks: Sequence[Task]
) -> dict[int, TaskContext]:
    """What is needed to understand the answers to these tasks, by the server's number."""
    rows = workspace.catalogue.images.select(ids=[t.image_id for t in tasks])
    images = {image.id: image for image in rows}
    painted = workspace.catalogue.masks.get([t.mask_id for t in tasks if t.mask_id is not None])
    return {
        task.remote_id: TaskContext(
            task,
            images[task.image_id],
            place.link(task.remote_id),
            purpose,
            partial(_find_mask, workspace, task, painted.get(task.mask_id or 0)),
            partial(_pixels, workspace, task),
            workspace.store_mask,
        )
        for task in tasks
        if task.remote_id is not None
    }


def _find_mask(workspace: Workspace, task: Task, painted: Mask | None, digest: str) -> Mask | None:
    """The mask whose hash begins with `digest`: most often the one that the task shows now."""
    if painted is not None and painted.content_hash.startswith(digest):
        return painted
    rows = workspace.catalogue.masks.of_image(task.image_id)
    return next((m for m in reversed(rows) if m.content_hash.startswith(digest)), None)


def _pixels(workspace: Workspace, task: Task, mask: Mask) -> masks.Mask:
    return masks.stretch(workspace.mask(mask), (task.height, task.width))


def _project_gone(
    workspace: Workspace, client: Client, connection: Connection, purpose: Purpose, actor: str
) -> Pulled:
    """The project was deleted on the server: a new one takes its place, its tasks are sent anew."""
    labelling = workspace.catalogue.tasks
    row = labelling.project(connection.server, purpose)
    gone = [t.id for t in labelling.tasks(row.id) if t.arm != Arm.UNSAMPLED]
    outcomes = labelling.missed(gone, actor)
    labelling.place(row.id, None)
    return Pulled(ensure_project(workspace, client, connection, purpose), outcomes, full=True)


def _set_back(client: Client, place: ProjectRef) -> bool:
    """Whether the server's clock was set back behind the newest change that is stored."""
    now, newest = client.plain.server_time(), place.row.watermark
    if now is None or newest is None:
        return False
    return _moved(newest, -SET_BACK) > now


def _a_little_before(watermark: str | None) -> str | None:
    return None if watermark is None else _moved(watermark, -OVERLAP)


def _moved(at: str, by: timedelta) -> str:
    """A moment of the server's, `by` later, written as the server writes it."""
    moment = datetime.fromisoformat(at).astimezone(UTC) + by
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
