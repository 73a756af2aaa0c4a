"""Give images to annotators: copies, tasks, and the newest mask painted on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddiseg.catalogue import Arm, NewTask, Purpose, State
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio.allocation import StratifiedAllocation
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.media import LONGEST, copy_size
from ddiseg.labelstudio.projects import ProjectRef, show_predictions
from ddiseg.labelstudio.returned import show_comments
from ddiseg.labelstudio.task_payload import image_key
from ddiseg.labelstudio.upload import DataOf, TaskUploader, pushing
from ddiseg.labelstudio.views import ALL, Tab, condition, ensure_tabs
from ddiseg.outcomes import FileOutcome, Outcome, Progress, Stages, silent_stages, track
from ddiseg.workspace.settings import StudySettings
from ddiseg.workspace.workspace import Workspace

#: The key in a task's data that says of which batch it was given out.
BATCH = "batch"

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
        StudySettings(control=self.control, readers=self.readers, sample=self.sample)
        if not 64 <= self.longest <= 8192:
            raise InputError(f"--longest is {self.longest}: give 64 to 8192 pixels")


@dataclass
class Pushed:
    """What became of each image, and where people find them."""

    place: ProjectRef
    outcomes: list[FileOutcome] = field(default_factory=list)
    arms: dict[str, dict[str, int]] = field(default_factory=dict)  #: new tasks by arm and tone
    given_before: int = 0  #: images that people had already: no draw of arms reaches them
    returned: str | None = None  #: where images that came back from review are listed
    tab: str | None = None  #: where the images of the batch are listed


def push(
    workspace: Workspace,
    connection: Connection,
    images: Sequence[Image],
    options: PushOptions,
    actor: str,
    stages: Stages = silent_stages,
    *,
    batch: str | None = None,
) -> Pushed:
    """Give `images` to annotators; what is there already is brought up to date or left as it is.

    Images of a `batch` get a tab of its name, those too that people had before.
    """
    with pushing(workspace, connection, Purpose.ANNOTATION) as (client, place):
        done = Pushed(place)
        sender = TaskUploader(workspace, client, connection, place, actor, start=True)
        wanted = _plan(workspace, place, images, options, actor, done)
        sender.adopt()
        before = {t.id for t in sender.tasks() if t.remote_id is not None}
        data_of = _annotation_data(workspace, options, batch)
        done.outcomes += sender.send(data_of, stages("Sending images"))
        there = [t for t in sender.tasks() if t.id in before and t.image_id in wanted]
        done.given_before = len(there)
        done.outcomes += _bring_up_to_date(
            workspace, sender, there, options, stages("Bringing images up to date")
        )
        show_predictions(client, place)
        ensure_tabs(client, place, {ALL.title: ALL})  # first: it is what the project opens with
        if batch is not None:
            done.tab = _show_batch(client, place, batch, there)
        done.returned = show_comments(workspace, client, place)
    return done


def _plan(
    workspace: Workspace,
    place: ProjectRef,
    images: Sequence[Image],
    options: PushOptions,
    actor: str,
    done: Pushed,
) -> set[int]:
    """Write down the tasks to be sent; returns the ids of the images that can be given to people."""
    labelling, catalogue = workspace.catalogue.tasks, workspace.catalogue
    tasks = labelling.tasks(place.row.id, deleted=True)
    there = {t.image_id for t in tasks if t.deleted_at is None}
    for image in images:
        if image.state not in OPEN and image.id not in there:
            why = f"it is {image.state}: 'ddiseg reopen IMAGE' first, if it is to be drawn anew"
            done.outcomes.append(FileOutcome(image.name, Outcome.REFUSED, why))
    fresh = [i for i in images if i.state in OPEN and i.id not in there]
    predicted = catalogue.masks.newest_predictions()
    returned = [i.id for i in fresh if i.state == State.REWORK]
    painted = {**predicted, **catalogue.masks.newest_by_people(returned)}
    # What the server lost is sent again as people have seen it.
    lost = {t.image_id: t for t in tasks if t.deleted_at is not None}
    shares = StratifiedAllocation.read(catalogue)
    drawable = [i for i in fresh if i.id in predicted and i.id not in returned]
    withheld = _withheld(shares, drawable, lost, options)
    read_more = _read_more(shares, images, [i for i in fresh if i.id not in lost], options)
    new = []
    for image in fresh:
        mask = painted.get(image.id)
        arm = Arm.CONTROL if image.id in withheld else Arm.PREDICTED if mask else Arm.BARE
        width, height = copy_size(image, options.longest)
        before = lost[image.id].readers if image.id in lost else 1
        readers = max(before, options.readers if image.id in read_more else 1)
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
        labelling.plan(place.row.id, new, actor, detail, shares.owed)
    for task in labelling.tasks(place.row.id):
        if task.image_id in read_more and task.readers < options.readers:
            labelling.update_task(task.id, readers=options.readers)
    return {i.id for i in images if i.state in OPEN or i.id in there}


def _withheld(
    shares: StratifiedAllocation,
    images: Sequence[Image],
    lost: Mapping[int, Task],
    options: PushOptions,
) -> set[int]:
    """Ids of those of the images whose prediction nobody is to see."""
    seen = {i: task for i, task in lost.items() if task.arm != Arm.BARE}
    fresh = [image for image in images if image.id not in seen]
    drawn = shares.draw("control", fresh, options.control, options.seed)
    return drawn | {i.id for i in images if i.id in seen and seen[i.id].arm == Arm.CONTROL}


def _read_more(
    shares: StratifiedAllocation,
    images: Sequence[Image],
    fresh: Sequence[Image],
    options: PushOptions,
) -> set[int]:
    """Ids of the images that get more readers than one; of those given out before, all or none."""
    if options.readers == 1:
        return set()
    drawable = images if options.sample == 100 else fresh
    return shares.draw("readers", drawable, options.sample, options.seed)


def _show_batch(client: Client, place: ProjectRef, batch: str, tasks: Sequence[Task]) -> str:
    """Put tasks that were there before into the tab of a batch; returns the tab's address."""
    for task in tasks:
        if task.remote_id is not None:
            client.set_data(task.remote_id, **{BATCH: batch})
    tab = Tab(f"Batch {batch}", (condition(BATCH, "equal", batch),))
    return ensure_tabs(client, place, {batch: tab})[batch]


def _annotation_data(workspace: Workspace, options: PushOptions, batch: str | None) -> DataOf:
    models = {model.id: model.name for model in workspace.catalogue.models.all()}

    def data_of(image: Image, mask: Mask | None) -> Mapping[str, Any]:
        model = models.get(mask.model_version_id or 0) if mask is not None else None
        shown = {"tone": image.tone} if options.show_tone else {}
        return {**shown, "model": model or "", **({BATCH: batch} if batch is not None else {})}

    return data_of


def _bring_up_to_date(
    workspace: Workspace,
    sender: TaskUploader,
    tasks: Sequence[Task],
    options: PushOptions,
    progress: Progress,
) -> list[FileOutcome]:
    """Tasks that were there before: a newer prediction where nobody has begun, more readers."""
    rows = workspace.catalogue.images.select(ids=[t.image_id for t in tasks])
    images = {image.id: image for image in rows}
    shown = workspace.catalogue.masks.get([t.mask_id for t in tasks if t.mask_id is not None])
    by_people = {mask.id for mask in shown.values() if mask.annotator is not None}
    predicted = workspace.catalogue.masks.newest_predictions()
    models = {model.id: model.name for model in workspace.catalogue.models.all()}
    outcomes = []
    for task in track(tasks, progress):
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
