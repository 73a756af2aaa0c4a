"""Give images to annotators: copies, tasks, and the newest mask painted on them.

Every task is written down in the catalogue before it is sent and looked up on the server before it
is sent again, so that a push may be stopped anywhere, here or there, and simply be run again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, TypeAlias, TypeVar

from annotation_protocol import load_protocol
from annotation_protocol.labelling_config import REVIEW_COMMENT
from ddiseg import masks
from ddiseg.catalogue import Arm, NewTask, Purpose, State
from ddiseg.catalogue.masks import REJECT
from ddiseg.catalogue.models import Image, Mask, Review, Task
from ddiseg.errors import DdisegError, InputError, ServerError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.folder import Folder, exclusive
from ddiseg.labelstudio.media import FOLDER, LONGEST, copy_name, copy_png, copy_size, place_copy
from ddiseg.labelstudio.plain import as_json
from ddiseg.labelstudio.projects import Place, open_place
from ddiseg.labelstudio.tabs import condition, ensure_tabs
from ddiseg.labelstudio.tasks import KEY, image_key, painted_mask, prediction, task_data
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.workspace import Workspace

#: Tasks in one request: a few MB, a second or two of the server's time.
BATCH = 50

#: Threads that make tasks: each waits for the disk, or for an upload, once a task.
THREADS = 4

#: What a task's data says besides the picture and its ids, by image and painted mask.
DataOf: TypeAlias = Callable[[Image, Mask | None], Mapping[str, Any]]

_Made = TypeVar("_Made")

#: The tab of images that came back from review.
RETURNED = "Returned by the reviewer"

#: States whose images can be given to an annotator; the others are settled or with a reviewer.
OPEN = (State.NEW, State.QUEUED, State.PRELABELLED, State.IN_LABELLING, State.REWORK)


@dataclass(frozen=True)
class PushOptions:
    """How images are given to people."""

    control: float = 0.0  #: percent of the images whose prediction is withheld
    readers: int = 1  #: people who annotate each image, without seeing each other's work
    sample: float = 100.0  #: percent of the images that get that many readers; the others one
    show_tone: bool = True  #: in the task's data, where annotators can read it
    longest: int = LONGEST  #: longest side of the copies, pixels
    seed: int = 0  #: of the draws

    def __post_init__(self) -> None:
        for name in ("control", "sample"):
            if not 0 <= getattr(self, name) <= 100:
                raise InputError(
                    f"--{name} is {getattr(self, name):g}: give a percentage, 0 to 100"
                )
        if self.readers < 1:
            raise InputError(f"--readers is {self.readers}: give 1 or more")
        if not 64 <= self.longest <= 8192:
            raise InputError(f"--longest is {self.longest}: give 64 to 8192 pixels")


@dataclass
class Pushed:
    """What became of each image, and where people find them."""

    place: Place
    outcomes: list[FileOutcome] = field(default_factory=list)
    arms: dict[str, dict[str, int]] = field(default_factory=dict)  #: new tasks by arm and tone
    returned: str | None = None  #: where images that came back from review are listed


def push(
    workspace: Workspace,
    connection: Connection,
    images: Sequence[Image],
    options: PushOptions,
    actor: str,
    progress: Progress = silent,
) -> Pushed:
    """Give `images` to annotators; what is there already is brought up to date or left as it is."""
    folder = Folder(workspace.root)
    folder.make()
    lock = folder.path / "push.lock"
    with (
        Client(connection) as client,
        exclusive(lock, "another push is running: waiting for it", _no_line),
    ):
        client.check_version()
        place = open_place(workspace, client, connection, Purpose.ANNOTATION)
        done = Pushed(place)
        sender = Sender(workspace, client, connection, place, actor, start=True)
        wanted = _plan(workspace, place, images, options, actor, done)
        sender.adopt()
        before = {t.id for t in sender.tasks() if t.remote_id is not None}
        done.outcomes += sender.send(_annotation_data(workspace, options), progress)
        there = [t for t in sender.tasks() if t.id in before and t.image_id in wanted]
        done.outcomes += _bring_up_to_date(workspace, sender, there, options)
        done.returned = show_comments(workspace, client, place)
    return done


@dataclass(frozen=True)
class _Payload:
    """A task as it is sent."""

    json: bytes
    painted: bool


class Sender:
    """Sends the planned tasks of one project; knows how to find out what was sent already."""

    def __init__(
        self,
        workspace: Workspace,
        client: Client,
        connection: Connection,
        place: Place,
        actor: str,
        *,
        start: bool,
    ) -> None:
        self.workspace, self.client, self.place = workspace, client, place
        self._connection, self._actor, self._start = connection, actor, start
        self._labelling = workspace.catalogue.labelling
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
        painted = [t.mask_id for t in there if t.arm == Arm.PAINTED and t.mask_id is not None]
        mask_rows = self.workspace.catalogue.masks.get(painted)
        for task, number in there.items():
            if task.arm == Arm.PAINTED and task.mask_id is not None:
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
        self._labelling.update_task(task.id, mask_id=mask.id, arm=Arm.PAINTED.value)
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
            if task.arm == Arm.PAINTED and mask is not None:
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


def show_comments(workspace: Workspace, client: Client, place: Place) -> str | None:
    """Show each returned image's comment in its task, and take it away once the image moved on.

    Returns the address of the tab that lists the returned images; None where there are none.
    """
    labelling = workspace.catalogue.labelling
    reviews = workspace.catalogue.masks.last_reviews()
    returned = False
    for task, image in labelling.commented(place.row.id):
        wanted = _comment(image.state, reviews.get(image.id))
        returned = returned or wanted is not None
        if wanted != task.comment:
            assert task.remote_id is not None
            if client.set_data(task.remote_id, **{REVIEW_COMMENT: wanted or ""}):
                labelling.update_task(task.id, comment=wanted)
    if not returned:
        return None
    shows = condition(REVIEW_COMMENT, "not_equal", "")
    return ensure_tabs(client, place, {RETURNED: [shows]})[RETURNED]


def send_back(workspace: Workspace, client: Client, connection: Connection) -> str | None:
    """Show the comments of returned images to their annotators; see `show_comments`."""
    place = open_place(workspace, client, connection, Purpose.ANNOTATION, keep_config=False)
    return show_comments(workspace, client, place)


def draw_share(
    images: Sequence[Image],
    percent: float,
    seed: int,
    what: str,
    drawn_before: Collection[int] = (),
) -> set[int]:
    """Ids of `percent` of the images, the same share of every tone, by seed.

    Each tone gets its share rounded down; what is left goes to the tones with the largest rests.
    Images that were drawn before are drawn first: a draw from what is left adds no more of them.
    """
    by_tone: dict[str, list[Image]] = {}
    for image in sorted(images, key=lambda i: i.content_hash):  # no row number decides
        by_tone.setdefault(image.tone, []).append(image)
    exact = {tone: len(of) * percent / 100 for tone, of in by_tone.items()}
    quota = {tone: int(share) for tone, share in exact.items()}
    rest = round(sum(exact.values())) - sum(quota.values())
    for tone in sorted(exact, key=lambda t: (quota[t] - exact[t], t))[:rest]:
        quota[tone] += 1
    drawn: set[int] = set()
    for tone, of in by_tone.items():
        order = random.Random(f"{what} {seed} {tone}").sample(of, len(of))
        order.sort(key=lambda image: image.id not in drawn_before)
        drawn.update(image.id for image in order[: quota[tone]])
    return drawn


def _comment(state: str, review: Review | None) -> str | None:
    """What an annotator reads above a returned image; None above any other."""
    rejected = review is not None and review.verdict == REJECT
    if state != State.REWORK and not (state == State.IN_LABELLING and rejected):
        return None  # a returned image whose task is a new one is in labelling
    if review is None:
        return "Please look at this image again."
    return f"{review.reviewer}: {review.comment or 'please look at this image again'}"


def _plan(
    workspace: Workspace,
    place: Place,
    images: Sequence[Image],
    options: PushOptions,
    actor: str,
    done: Pushed,
) -> set[int]:
    """Write down the tasks to be sent; returns the ids of the images that can be given to people."""
    labelling, catalogue = workspace.catalogue.labelling, workspace.catalogue
    tasks = labelling.tasks(place.row.id)
    there = {t.image_id for t in tasks}
    for image in images:
        if image.state not in OPEN and image.id not in there:
            why = f"it is {image.state}: 'ddiseg reopen {image.name}' first, if it is to be drawn anew"
            done.outcomes.append(FileOutcome(image.name, Outcome.REFUSED, why))
    fresh = [i for i in images if i.state in OPEN and i.id not in there]
    predicted = catalogue.masks.newest_predictions()
    returned = [i.id for i in fresh if i.state == State.REWORK]
    painted = {**predicted, **catalogue.masks.newest_by_people(returned)}
    withheld = draw_share(
        [i for i in fresh if i.id in predicted and i.id not in returned],
        options.control,
        options.seed,
        "control",
    )
    before = {t.image_id for t in tasks if t.readers >= options.readers}
    read_twice = draw_share(images, options.sample, options.seed, "readers", before)
    new = []
    for image in fresh:
        mask = painted.get(image.id)
        arm = Arm.CONTROL if image.id in withheld else Arm.PAINTED if mask else Arm.BARE
        width, height = copy_size(image, options.longest)
        readers = options.readers if image.id in read_twice else 1
        new.append(
            NewTask(
                image_key(image), image.id, mask.id if mask else None, arm, width, height, readers
            )
        )
        tones = done.arms.setdefault(arm.value, {})
        tones[image.tone] = tones.get(image.tone, 0) + 1
    if new:
        drawn = {"control": options.control, "readers": options.readers, "sample": options.sample}
        detail = {**drawn, "seed": options.seed, "longest": options.longest, "arms": done.arms}
        labelling.plan(place.row.id, new, actor, detail)
    for task in labelling.tasks(place.row.id):
        if task.image_id in read_twice and task.readers < options.readers:
            labelling.update_task(task.id, readers=options.readers)
    return {i.id for i in images if i.state in OPEN or i.id in there}


def _annotation_data(workspace: Workspace, options: PushOptions) -> DataOf:
    models = {model.id: model.name for model in workspace.catalogue.models.all()}

    def data_of(image: Image, mask: Mask | None) -> Mapping[str, Any]:
        model = models.get(mask.model_version_id or 0) if mask is not None else None
        return {**({"tone": image.tone} if options.show_tone else {}), "model": model or ""}

    return data_of


def _bring_up_to_date(
    workspace: Workspace,
    sender: Sender,
    tasks: Sequence[Task],
    options: PushOptions,
) -> list[FileOutcome]:
    """Tasks that were there before: a newer prediction where nobody has begun, more readers."""
    rows = workspace.catalogue.images.select(ids=[t.image_id for t in tasks])
    images = {image.id: image for image in rows}
    shown = workspace.catalogue.masks.get([t.mask_id for t in tasks if t.mask_id is not None])
    by_people = {mask.id for mask in shown.values() if mask.annotator is not None}
    predicted = workspace.catalogue.masks.newest_predictions()
    models = {model.id: model.name for model in workspace.catalogue.models.all()}
    outcomes = []
    for task in tasks:
        assert task.remote_id is not None
        image, mask = images[task.image_id], predicted.get(task.image_id)
        stays = image.state not in (State.IN_LABELLING, State.QUEUED, State.PRELABELLED)
        stays = stays or task.arm == Arm.CONTROL or task.mask_id in by_people
        outcome, note = Outcome.UNCHANGED, None
        try:
            if mask is not None and mask.id != task.mask_id and not stays:
                model = models[mask.model_version_id or 0]
                if sender.paint_anew(task, mask, model):
                    outcome, note = Outcome.REPAIRED, f"painted anew by {model}"
            more = options.readers > 1 and task.readers == options.readers
            if more and sender.client.set_readers(task.remote_id, task.readers):
                outcome, note = Outcome.REPAIRED, f"now for {task.readers} readers"
        except ServerError as error:
            if error.status != 404:
                raise
            outcome, note = Outcome.REFUSED, _DELETED
        outcomes.append(FileOutcome(image.name, outcome, note))
    return outcomes


_DELETED = "its task was deleted on the server: 'ddiseg label pull --full' takes note of that, then push again"


def _is_of(region_ids: list[str], mask: Mask) -> bool:
    digest = painted_mask(region_ids)
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


def _no_line(_line: str) -> None: ...
