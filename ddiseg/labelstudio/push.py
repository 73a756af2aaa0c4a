"""Give images to annotators: copies, tasks, and the newest mask as pre-annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddiseg.catalogue import Arm, NewTask, Purpose, State
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.errors import InputError
from ddiseg.labelstudio.allocation import StratifiedAllocation
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.media import LONGEST, copy_size
from ddiseg.labelstudio.projects import ProjectRef, show_predictions
from ddiseg.labelstudio.task_payload import image_key
from ddiseg.labelstudio.upload import DataOf, TaskUploader, pushing, update_tasks
from ddiseg.labelstudio.views import ALL, Tab, condition, ensure_tabs, show_comments
from ddiseg.outcomes import FileOutcome, Outcome, Progress, Stages, silent_stages
from ddiseg.workspace.settings import StudySettings
from ddiseg.workspace.workspace import Workspace

#: Key of the batch in the task data.
BATCH = "batch"

#: States of images that can be given to an annotator; the others are finished or in review.
OPEN = (State.NEW, State.QUEUED, State.PRELABELLED, State.IN_LABELLING, State.REWORK)


@dataclass(frozen=True)
class PushOptions:
    """Settings of a push: control arm, readers, what annotators see."""

    control: float = 0.0  #: percent of the images whose prediction is withheld
    readers: int = 1  #: people who annotate each image, without seeing each other's work
    sample: float = 100.0  #: percent of the images that get that many readers; the others one
    show_tone: bool = True  #: in the task data, where annotators can read it
    longest: int = LONGEST  #: longest side of the copies, pixels
    seed: int = 0  #: of the random samples

    def __post_init__(self) -> None:
        StudySettings(control=self.control, readers=self.readers, sample=self.sample)
        if not 64 <= self.longest <= 8192:
            raise InputError(f"--longest is {self.longest}: give 64 to 8192 pixels")


@dataclass
class Pushed:
    """Outcome of a push: what happened to each image, and where people find them."""

    project: ProjectRef
    outcomes: list[FileOutcome] = field(default_factory=list)
    arms: dict[str, dict[str, int]] = field(default_factory=dict)  #: new tasks by arm and tone
    given_before: int = 0  #: images that people had already; they are in no new sample
    returned: str | None = None  #: address of the tab of images that came back from review
    tab: str | None = None  #: address of the tab of the batch


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
    """Give `images` to annotators; existing tasks are brought up to date or left as they are.

    Args:
        batch: name of the batch of the images, which gets a tab of its own, old tasks included.
    """
    with pushing(workspace, connection, Purpose.ANNOTATION) as (client, project):
        done = Pushed(project)
        uploader = TaskUploader(workspace, client, connection, project, actor, start=True)
        wanted = _plan(workspace, project, images, options, actor, done)
        uploader.adopt()
        before = {t.id for t in uploader.tasks(wanted) if t.remote_id is not None}
        data_of = _annotation_data(workspace, options, batch)
        done.outcomes += uploader.send(data_of, stages("Sending images"))
        existing = [t for t in uploader.tasks(wanted) if t.id in before]
        done.given_before = len(existing)
        done.outcomes += _bring_up_to_date(
            workspace, uploader, existing, options, stages("Bringing images up to date")
        )
        show_predictions(client, project)
        ensure_tabs(client, project, {ALL.title: ALL})  # first: it is what the project opens with
        if batch is not None:
            done.tab = _show_batch(client, project, batch, existing)
        done.returned = show_comments(workspace, client, project)
    return done


def _plan(
    workspace: Workspace,
    project: ProjectRef,
    images: Sequence[Image],
    options: PushOptions,
    actor: str,
    done: Pushed,
) -> set[int]:
    """Record the tasks to send in the catalogue; returns the ids of images that can be given out."""
    labelling, catalogue = workspace.catalogue.tasks, workspace.catalogue
    tasks = labelling.tasks(project.row.id, [image.id for image in images], deleted=True)
    existing = {t.image_id for t in tasks if t.deleted_at is None}
    for image in images:
        if image.state not in OPEN and image.id not in existing:
            reason = f"it is {image.state}: 'ddiseg reopen IMAGE' first, if it is to be drawn anew"
            done.outcomes.append(FileOutcome(image.name, Outcome.REFUSED, reason))
    fresh = [i for i in images if i.state in OPEN and i.id not in existing]
    predicted = catalogue.masks.newest_predictions([image.id for image in fresh])
    returned = [i.id for i in fresh if i.state == State.REWORK]
    shown = {**predicted, **catalogue.masks.newest_by_people(returned)}
    # Tasks that the server lost are sent again as people have seen them.
    lost = {t.image_id: t for t in tasks if t.deleted_at is not None}
    allocation = StratifiedAllocation.read(catalogue)
    eligible = [i for i in fresh if i.id in predicted and i.id not in returned]
    control = _draw_control(allocation, eligible, lost, options)
    multiple_readers = _draw_readers(
        allocation, images, [i for i in fresh if i.id not in lost], options
    )
    new = []
    for image in fresh:
        mask = shown.get(image.id)
        arm = Arm.CONTROL if image.id in control else Arm.PREDICTED if mask else Arm.BARE
        width, height = copy_size(image, options.longest)
        before = lost[image.id].readers if image.id in lost else 1
        readers = max(before, options.readers if image.id in multiple_readers else 1)
        new.append(
            NewTask(
                image_key(image), image.id, mask.id if mask else None, arm, width, height, readers
            )
        )
        tones = done.arms.setdefault(arm.value, {})
        tones[image.tone] = tones.get(image.tone, 0) + 1
    if new:
        detail = {
            **{name: getattr(options, name) for name in ("control", "readers", "sample")},
            "seed": options.seed,
            "longest": options.longest,
            "arms": done.arms,
        }
        labelling.plan(project.row.id, new, actor, detail, allocation.carry)
    for task in labelling.tasks(project.row.id, multiple_readers):
        if task.readers < options.readers:
            labelling.update_task(task.id, readers=options.readers)
    return {i.id for i in images if i.state in OPEN or i.id in existing}


def _draw_control(
    allocation: StratifiedAllocation,
    images: Sequence[Image],
    lost: Mapping[int, Task],
    options: PushOptions,
) -> set[int]:
    """Return the ids of images whose prediction is withheld (control arm)."""
    seen = {i: task for i, task in lost.items() if task.arm != Arm.BARE}
    fresh = [image for image in images if image.id not in seen]
    sampled = allocation.draw("control", fresh, options.control, options.seed)
    return sampled | {i.id for i in images if i.id in seen and seen[i.id].arm == Arm.CONTROL}


def _draw_readers(
    allocation: StratifiedAllocation,
    images: Sequence[Image],
    fresh: Sequence[Image],
    options: PushOptions,
) -> set[int]:
    """Return the ids of images with several readers; earlier tasks are included with 100 percent only."""
    if options.readers == 1:
        return set()
    eligible = images if options.sample == 100 else fresh
    return allocation.draw("readers", eligible, options.sample, options.seed)


def _show_batch(client: Client, project: ProjectRef, batch: str, tasks: Sequence[Task]) -> str:
    """Put earlier tasks into the tab of a batch; returns the tab's address."""
    for task in tasks:
        if task.remote_id is not None:
            client.set_data(task.remote_id, **{BATCH: batch})
    tab = Tab(f"Batch {batch}", (condition(BATCH, "equal", batch),))
    return ensure_tabs(client, project, {batch: tab})[batch]


def _annotation_data(workspace: Workspace, options: PushOptions, batch: str | None) -> DataOf:
    models = workspace.catalogue.models.names()

    def data_of(image: Image, mask: Mask | None) -> Mapping[str, Any]:
        model = models.get(mask.model_version_id or 0) if mask is not None else None
        shown = {"tone": image.tone} if options.show_tone else {}
        return {**shown, "model": model or "", **({BATCH: batch} if batch is not None else {})}

    return data_of


def _bring_up_to_date(
    workspace: Workspace,
    uploader: TaskUploader,
    tasks: Sequence[Task],
    options: PushOptions,
    progress: Progress,
) -> list[FileOutcome]:
    """Update earlier tasks: a newer prediction if nobody has begun, and more readers."""
    rows = workspace.catalogue.images.select(ids=[t.image_id for t in tasks])
    images = {image.id: image for image in rows}
    shown = workspace.catalogue.masks.get([t.mask_id for t in tasks if t.mask_id is not None])
    by_people = {mask.id for mask in shown.values() if mask.annotator is not None}
    predicted = workspace.catalogue.masks.newest_predictions([t.image_id for t in tasks])
    models = workspace.catalogue.models.names()

    def update(task: Task, number: int) -> str | None:
        state, mask, note = images[task.image_id].state, predicted.get(task.image_id), None
        is_fixed = state not in (State.IN_LABELLING, State.QUEUED, State.PRELABELLED)
        is_fixed = is_fixed or task.arm == Arm.CONTROL or task.mask_id in by_people
        if mask is not None and mask.id != task.mask_id and not is_fixed:
            model = models[mask.model_version_id or 0]
            if uploader.update_prediction(task, mask, model):
                note = f"new prediction of {model}"
        more = options.readers > 1 and task.readers == options.readers
        if more and uploader.client.set_readers(number, task.readers):
            note = f"now for {task.readers} readers"
        return note

    names = {image.id: image.name for image in rows}
    return update_tasks(tasks, update, names, Purpose.ANNOTATION, progress)
