"""Send planned tasks to a project exactly once, whatever interrupts it.

Every task is recorded in the catalogue before it is sent, and looked up on the server before it is
sent again: a push may be interrupted anywhere, here or there, and is simply run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from annotation_protocol import load_protocol
from annotation_protocol.files import locked
from ddiseg import masks
from ddiseg.catalogue import Arm, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.errors import DdisegError, InputError, ServerError, StoreError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.folder import Folder
from ddiseg.labelstudio.http import as_json
from ddiseg.labelstudio.media import FOLDER, copy_name, copy_png, place_copy
from ddiseg.labelstudio.projects import COMMANDS, ProjectRef, ensure_project
from ddiseg.labelstudio.task_payload import (
    KEY,
    expectation,
    preannotated_mask,
    prediction,
    score_of,
    task_data,
)
from ddiseg.outcomes import (
    FileOutcome,
    Outcome,
    Progress,
    map_batches,
    silent,
    track,
    worker_threads,
)
from ddiseg.pixel_budget import BUDGET
from ddiseg.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

#: Tasks per request: a few MB, a second or two of the server's time.
BATCH = 50

#: Threads that build tasks: each waits for the disk, or for an upload, once per task.
THREADS = 4

#: Returns the task data besides the picture and the ids, by image and predicted mask.
DataOf: TypeAlias = Callable[[Image, Mask | None], Mapping[str, Any]]


@contextmanager
def pushing(
    workspace: Workspace, connection: Connection, purpose: Purpose
) -> Iterator[tuple[Client, ProjectRef]]:
    """Yield the project of one purpose, while no other push of this workspace runs."""
    folder = Folder(workspace.root)
    folder.make()
    busy = "another push is running: waiting for it"
    lock = locked(folder.path / "push.lock", busy, wait=logger.info)
    with Client(connection) as client, lock:
        client.check_version()
        yield client, ensure_project(workspace, client, connection, purpose)


@dataclass(frozen=True)
class _Payload:
    """An encoded task."""

    task: Task
    json: bytes
    predicted: bool


class TaskUploader:
    """Sends the planned tasks of one project, and finds out which ones were sent already."""

    def __init__(
        self,
        workspace: Workspace,
        client: Client,
        connection: Connection,
        project: ProjectRef,
        actor: str,
        *,
        start: bool,
    ) -> None:
        self.workspace, self.client, self.project = workspace, client, project
        self._connection, self._actor, self._start = connection, actor, start
        self._labelling = workspace.catalogue.tasks
        #: Tasks of an interrupted run, whose request the server may still be working on.
        self._interrupted = {task.id for task in self._labelling.pending(project.row.id)}

    def tasks(self, image_ids: Iterable[int] | None = None) -> list[Task]:
        """Return the project's tasks that belong on the server, of some images or of all."""
        rows = self._labelling.tasks(self.project.row.id, image_ids)
        return [row for row in rows if row.arm != Arm.UNSAMPLED]

    def adopt(self) -> int:
        """Find planned tasks that exist on the server: those of a request whose answer was lost.

        Duplicates are removed and missing predictions added. Returns the number of tasks found.
        """
        pending = self._labelling.pending(self.project.row.id)
        if not pending or not self.client.plain.tasks(
            self.project.number, [], page=1, size=1, whole=False
        ):
            return 0  # an empty project need not be searched for thousands of keys
        return self._locate(pending)

    def remove_duplicates(self) -> None:
        """Remove duplicate tasks: those of a request that was completed after it was sent again.

        The task that people have begun stays, or else the one that the catalogue knows.
        """
        self._locate([task for task in self.tasks() if task.remote_id is not None])

    def _locate(self, tasks: Sequence[Task]) -> int:
        """Make `tasks` unique on the server and record their ids; returns how many are new."""
        wanted = {task.key: task for task in tasks}
        found = self.client.plain.find_tasks(self.project.number, KEY, list(wanted))
        numbers = {
            wanted[key]: self._remove_duplicates(wanted[key], ids) for key, ids in found.items()
        }
        new = {task: number for task, number in numbers.items() if number != task.remote_id}
        predicted = [t.mask_id for t in new if t.arm == Arm.PREDICTED and t.mask_id is not None]
        mask_rows = self.workspace.catalogue.masks.get(predicted)
        for task, number in new.items():
            self._complete(task, number, mask_rows)
        ids = {task.id: number for task, number in new.items()}
        self._labelling.sent(ids, self._actor, start=self._start)
        return len(ids)

    def send(self, data_of: DataOf, progress: Progress = silent) -> list[FileOutcome]:
        """Send the planned tasks that are not on the server; those without their photograph stay."""
        outcomes: list[FileOutcome] = []
        pending = self._labelling.pending(self.project.row.id)
        rows = self.workspace.catalogue.images.select(ids=[t.image_id for t in pending])
        images = {image.id: image for image in rows}
        mask_rows = self.workspace.catalogue.masks.get([t.mask_id for t in pending if t.mask_id])

        def build(task: Task) -> _Payload | FileOutcome:
            mask, image = mask_rows.get(task.mask_id or 0), images[task.image_id]
            with BUDGET.hold(image.width * image.height):
                return self._payload(data_of, task, image, mask)

        with worker_threads(THREADS) as pool:
            for built in filter(None, map_batches(pool, build, pending, BATCH)):
                ready = [p for p in built if isinstance(p, _Payload)]
                outcomes += [p for p in built if isinstance(p, FileOutcome)]
                if ready:
                    self._import(ready, mask_rows)
                names = [images[p.task.image_id].name for p in ready]
                outcomes += [FileOutcome(name, Outcome.ADDED) for name in names]
                progress(len(outcomes), len(pending))
        resent = self._interrupted.intersection(task.id for task in pending)
        if resent:
            again = self.tasks(task.image_id for task in pending)
            self._locate([task for task in again if task.id in resent and task.remote_id])
        return outcomes

    def _import(self, ready: Sequence[_Payload], mask_rows: Mapping[int, Mask]) -> None:
        """Send one request, and compare what the server created with what was sent."""
        numbers, predicted = self.client.plain.import_tasks(
            self.project.number, [payload.json for payload in ready]
        )
        if len(numbers) != len(ready):
            raise ServerError(
                f"{self.client.url} made {len(numbers)} tasks of {len(ready)}: run the same command "
                "again, it looks which ones are there"
            )
        ids = {payload.task.id: n for payload, n in zip(ready, numbers, strict=True)}
        incomplete = predicted < sum(payload.predicted for payload in ready)
        for payload in ready:
            masked = mask_rows if incomplete and payload.predicted else {}
            self._complete(payload.task, ids[payload.task.id], masked)
        self._labelling.sent(ids, self._actor, start=self._start)  # now the tasks are complete

    def _complete(self, task: Task, number: int, mask_rows: Mapping[int, Mask]) -> None:
        """Give task `number` its prediction, if `mask_rows` has it, and its readers."""
        mask = mask_rows.get(task.mask_id or 0)
        if mask is not None and task.arm == Arm.PREDICTED:
            self.set_prediction(task, number, mask)
        if task.readers > 1:
            self.client.set_readers(number, task.readers)

    def set_prediction(self, task: Task, number: int, mask: Mask) -> None:
        """Make `mask` the only prediction of task `number`."""
        existing = self.client.predictions(number)
        shown = {n for n, ids in existing.items() if _is_of(ids, mask)}
        if not shown:
            self.client.add_prediction(number, self._prediction(task, mask))
        for extra in sorted(set(existing) - shown) + sorted(shown)[:-1]:
            self.client.delete_prediction(extra)

    def update_prediction(self, task: Task, mask: Mask, model: str) -> bool:
        """Show a newer prediction in a task; returns False if somebody has begun with the older one."""
        assert task.remote_id is not None
        if self.client.has_work(task.remote_id):
            return False
        self.set_prediction(task, task.remote_id, mask)
        self.client.set_data(task.remote_id, model=model, **expectation(mask))
        self._labelling.update_task(task.id, mask_id=mask.id, arm=Arm.PREDICTED.value)
        return True

    def _remove_duplicates(self, task: Task, numbers: Sequence[int]) -> int:
        """Delete duplicates of a task; returns the id of the one that people began, or else the known one."""
        begun = [n for n in numbers if self.client.has_work(n)] if len(numbers) > 1 else []
        if len(begun) > 1:
            links = " and ".join(self.project.link(n) for n in begun)
            raise InputError(
                f"{links} are the same image and people worked on both: delete one of them"
            )
        known = [n for n in numbers if n == task.remote_id]
        kept = (begun or known or list(numbers))[0]
        for extra in numbers:
            if extra != kept:
                self.client.delete_task(extra)
        return kept

    def _payload(
        self, data_of: DataOf, task: Task, image: Image, mask: Mask | None
    ) -> _Payload | FileOutcome:
        try:
            picture = self._picture(task, image)
            payload: dict[str, Any] = {
                "data": task_data(image, task.key, picture, **data_of(image, mask))
            }
            if task.arm == Arm.PREDICTED and mask is not None:
                payload["predictions"] = [self._prediction(task, mask)]
                payload["data"] |= expectation(mask)  # not in the control arm, which sees nothing
        except (ServerError, StoreError):
            raise
        except DdisegError as error:
            return FileOutcome(image.name, Outcome.REFUSED, str(error))
        return _Payload(task, as_json(payload), "predictions" in payload)

    def _prediction(self, task: Task, mask: Mask) -> dict[str, Any]:
        pixels = masks.stretch(self.workspace.mask(mask), (task.height, task.width))
        protocol = load_protocol()
        return prediction(pixels, mask.content_hash, protocol, score_of(mask, protocol))

    def _picture(self, task: Task, image: Image) -> str:
        """Return the copy's address on the server, uploading it if it is missing."""
        name = copy_name(image, task.width, task.height)
        if self._connection.media is not None:
            path = self._connection.media / FOLDER / name
            if not path.exists() or not path.stat().st_size:
                data = copy_png(self.workspace, image, task.width, task.height)
                place_copy(self._connection.media, name, data)
            return f"/data/local-files/?d={FOLDER}/{name}"
        if task.media is None:
            data = copy_png(self.workspace, image, task.width, task.height)
            task.media = self.client.plain.upload(self.project.number, name, data)
            self._labelling.update_task(task.id, media=task.media)
        return task.media


def _is_of(region_ids: list[str], mask: Mask) -> bool:
    digest = preannotated_mask(region_ids)
    return digest is not None and mask.content_hash.startswith(digest)


def update_tasks(
    tasks: Sequence[Task],
    update: Callable[[Task, int], str | None],
    names: Mapping[int, str],
    purpose: Purpose,
    progress: Progress = silent,
) -> list[FileOutcome]:
    """Update tasks that are on the server; one that was deleted there is refused.

    Args:
        update: called with a task and its id on the server; returns what it changed, None if nothing.
        names: the images' names, by id.
    """
    outcomes = []
    for task in track(tasks, progress):
        assert task.remote_id is not None
        try:
            note = update(task, task.remote_id)
            outcome = Outcome.UNCHANGED if note is None else Outcome.REPAIRED
        except ServerError as error:
            if error.status != 404:
                raise
            outcome, note = Outcome.REFUSED, _DELETED.format(COMMANDS[purpose])
        outcomes.append(FileOutcome(names[task.image_id], outcome, note))
    return outcomes


_DELETED = "its task was deleted on the server: 'ddiseg {} pull --full' takes note of that, then push again"
