"""Send planned tasks to a project, so that each is there once whatever stops the sending.

Every task is written down in the catalogue before it is sent and looked up on the server before it
is sent again: a push may be stopped anywhere, here or there, and simply be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, TypeAlias, TypeVar

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import Arm, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.errors import DdisegError, InputError, ServerError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.folder import Folder, exclusive
from ddiseg.labelstudio.folder import silent as unheard
from ddiseg.labelstudio.http import as_json
from ddiseg.labelstudio.media import FOLDER, copy_name, copy_png, place_copy
from ddiseg.labelstudio.projects import ProjectRef, ensure_project
from ddiseg.labelstudio.task_payload import KEY, preannotated_mask, prediction, task_data
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.workspace.workspace import Workspace

#: Tasks in one request: a few MB, a second or two of the server's time.
BATCH = 50

#: Threads that make tasks: each waits for the disk, or for an upload, once a task.
THREADS = 4

#: What a task's data says besides the picture and its ids, by image and painted mask.
DataOf: TypeAlias = Callable[[Image, Mask | None], Mapping[str, Any]]

_Made = TypeVar("_Made")


@contextmanager
def pushing(
    workspace: Workspace, connection: Connection, purpose: Purpose
) -> Iterator[tuple[Client, ProjectRef]]:
    """The project of one purpose while no other push of this workspace runs."""
    folder = Folder(workspace.root)
    folder.make()
    busy = "another push is running: waiting for it"
    with Client(connection) as client, exclusive(folder.path / "push.lock", busy, unheard):
        client.check_version()
        yield client, ensure_project(workspace, client, connection, purpose)


@dataclass(frozen=True)
class _Payload:
    """A task as it is sent."""

    json: bytes
    painted: bool


class TaskUploader:
    """Sends the planned tasks of one project; knows how to find out what was sent already."""

    def __init__(
        self,
        workspace: Workspace,
        client: Client,
        connection: Connection,
        place: ProjectRef,
        actor: str,
        *,
        start: bool,
    ) -> None:
        self.workspace, self.client, self.place = workspace, client, place
        self._connection, self._actor, self._start = connection, actor, start
        self._labelling = workspace.catalogue.tasks
        #: Tasks of a stopped run: the server may still be at work on its request.
        self._stopped = {task.id for task in self._labelling.pending(place.row.id)}

    def tasks(self) -> list[Task]:
        """The project's tasks that are to be on the server."""
        rows = self._labelling.tasks(self.place.row.id)
        return [row for row in rows if row.arm != Arm.UNSAMPLED]

    def adopt(self) -> int:
        """Find planned tasks that the server has: a request whose answer never came.

        One that stands there twice is left once. One that came without its prediction gets it.
        Returns how many were found.
        """
        pending = self._labelling.pending(self.place.row.id)
        if not pending or not self.client.plain.tasks(
            self.place.number, [], page=1, size=1, whole=False
        ):
            return 0  # in a new project there is no need to look for thousands of keys
        return self._find(pending)

    def leave_one(self) -> None:
        """Find tasks that stand there twice: a request came to its end after it was sent again.

        The one that people have begun is left, or else the one that the catalogue knows.
        """
        self._find([task for task in self.tasks() if task.remote_id is not None])

    def _find(self, tasks: Sequence[Task]) -> int:
        """See that `tasks` are on the server once, and write down where; returns how many are new."""
        wanted = {task.key: task for task in tasks}
        found = self.client.plain.find_tasks(self.place.number, KEY, list(wanted))
        there = {wanted[key]: self._only_one(wanted[key], ids) for key, ids in found.items()}
        there = {task: number for task, number in there.items() if number != task.remote_id}
        painted = [t.mask_id for t in there if t.arm == Arm.PREDICTED and t.mask_id is not None]
        mask_rows = self.workspace.catalogue.masks.get(painted)
        for task, number in there.items():
            if task.arm == Arm.PREDICTED and task.mask_id is not None:
                self.repaint(task, number, mask_rows[task.mask_id])
            if task.readers > 1:
                self.client.set_readers(number, task.readers)
        ids = {task.id: number for task, number in there.items()}
        self._labelling.sent(ids, self._actor, start=self._start)
        return len(ids)

    def send(self, data_of: DataOf, progress: Progress = silent) -> list[FileOutcome]:
        """Send every planned task that the server has not; those whose photograph is missing stay."""
        outcomes: list[FileOutcome] = []
        pending = self._labelling.pending(self.place.row.id)
        rows = self.workspace.catalogue.images.select(ids=[t.image_id for t in pending])
        images = {image.id: image for image in rows}
        mask_rows = self.workspace.catalogue.masks.get([t.mask_id for t in pending if t.mask_id])

        def make(task: Task) -> _Payload | FileOutcome:
            mask = mask_rows.get(task.mask_id or 0)
            return self._payload(data_of, task, images[task.image_id], mask)

        with _makers() as pool:
            for batch, made in _made_ahead(pool, make, _batches(pending, BATCH)):
                ready = [
                    (t, p) for t, p in zip(batch, made, strict=True) if isinstance(p, _Payload)
                ]
                outcomes += [p for p in made if isinstance(p, FileOutcome)]
                if ready:
                    self._import(ready, mask_rows)
                outcomes += [FileOutcome(images[t.image_id].name, Outcome.ADDED) for t, _ in ready]
                progress(len(outcomes), len(pending))
        again = self._stopped.intersection(task.id for task in pending)
        if again:
            self._find([task for task in self.tasks() if task.id in again and task.remote_id])
        return outcomes

    def _import(
        self, ready: Sequence[tuple[Task, _Payload]], mask_rows: Mapping[int, Mask]
    ) -> None:
        """One request; then what the server says it made is compared with what was sent."""
        numbers, painted = self.client.plain.import_tasks(
            self.place.number, [payload.json for _, payload in ready]
        )
        if len(numbers) != len(ready):
            raise ServerError(
                f"{self.client.url} made {len(numbers)} tasks of {len(ready)}: run the same command "
                "again, it looks which ones are there"
            )
        ids = {task.id: n for (task, _), n in zip(ready, numbers, strict=True)}
        unpainted = painted < sum(payload.painted for _, payload in ready)
        for task, payload in ready:
            if unpainted and payload.painted and task.mask_id is not None:
                self.repaint(task, ids[task.id], mask_rows[task.mask_id])
            if task.readers > 1:
                self.client.set_readers(ids[task.id], task.readers)
        self._labelling.sent(ids, self._actor, start=self._start)  # now nothing is missing there

    def repaint(self, task: Task, number: int, mask: Mask) -> None:
        """See that task `number` shows `mask`, once, and nothing older."""
        there = self.client.predictions(number)
        shown = {n for n, ids in there.items() if _is_of(ids, mask)}
        if not shown:
            self.client.add_prediction(number, self._painted(task, mask))
        for extra in sorted(set(there) - shown) + sorted(shown)[:-1]:
            self.client.delete_prediction(extra)

    def paint_anew(self, task: Task, mask: Mask, model: str) -> bool:
        """Show a newer prediction in a task; False where somebody has begun with the older one."""
        assert task.remote_id is not None
        if self.client.has_work(task.remote_id):
            return False
        self.repaint(task, task.remote_id, mask)
        self.client.set_data(task.remote_id, model=model)
        self._labelling.update_task(task.id, mask_id=mask.id, arm=Arm.PREDICTED.value)
        return True

    def _only_one(self, task: Task, numbers: Sequence[int]) -> int:
        """The number that stays where a task was sent twice: that which people began, or the known one."""
        begun = [n for n in numbers if self.client.has_work(n)] if len(numbers) > 1 else []
        if len(begun) > 1:
            links = " and ".join(self.place.link(n) for n in begun)
            raise InputError(
                f"{links} are the same image and people worked on both: delete one of them"
            )
        known = [n for n in numbers if n == task.remote_id]
        stays = (begun or known or list(numbers))[0]
        for extra in numbers:
            if extra != stays:
                self.client.delete_task(extra)
        return stays

    def _payload(
        self, data_of: DataOf, task: Task, image: Image, mask: Mask | None
    ) -> _Payload | FileOutcome:
        try:
            picture = self._picture(task, image)
            payload: dict[str, Any] = {
                "data": task_data(image, task.key, picture, **data_of(image, mask))
            }
            if task.arm == Arm.PREDICTED and mask is not None:
                payload["predictions"] = [self._painted(task, mask)]
        except ServerError:
            raise
        except DdisegError as error:
            return FileOutcome(image.name, Outcome.REFUSED, str(error))
        return _Payload(as_json(payload), "predictions" in payload)

    def _painted(self, task: Task, mask: Mask) -> dict[str, Any]:
        pixels = masks.stretch(self.workspace.mask(mask), (task.height, task.width))
        return prediction(pixels, mask.content_hash, load_protocol(), mask.uncertainty)

    def _picture(self, task: Task, image: Image) -> str:
        """Where the server shows the copy; it is put there where it is missing."""
        name = copy_name(image, task.width, task.height)
        if self._connection.media is not None:
            path = self._connection.media / FOLDER / name
            if not path.exists() or not path.stat().st_size:
                data = copy_png(self.workspace, image, task.width, task.height)
                place_copy(self._connection.media, name, data)
            return f"/data/local-files/?d={FOLDER}/{name}"
        if task.media is None:
            data = copy_png(self.workspace, image, task.width, task.height)
            task.media = self.client.plain.upload(self.place.number, name, data)
            self._labelling.update_task(task.id, media=task.media)
        return task.media


def _is_of(region_ids: list[str], mask: Mask) -> bool:
    digest = preannotated_mask(region_ids)
    return digest is not None and mask.content_hash.startswith(digest)


@contextmanager
def _makers() -> Iterator[Executor]:
    """Threads that make what is to be sent; where sending fails, what was not begun is not made."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _made_ahead(
    pool: Executor, make: Callable[[Task], _Made], batches: Iterable[Sequence[Task]]
) -> Iterator[tuple[Sequence[Task], list[_Made]]]:
    """Each batch with what `make` made of its tasks; the next one is in the making meanwhile."""
    begun = ((batch, pool.map(make, batch)) for batch in batches)
    end: tuple[Sequence[Task], Iterator[_Made]] = ((), iter(()))
    for (batch, made), _next in pairwise(chain(begun, [end])):
        yield batch, list(made)


def _batches(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
