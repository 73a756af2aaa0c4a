"""Give submitted masks to a second person, never to the annotator.

Label Studio Community has no reviewer role. Reviews are tasks of a second project, which hold the
annotator's mask and name; each person has a tab that leaves out their own work. The catalogue
refuses reviews of one's own work that happen all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddiseg.catalogue import Arm, NewTask, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.labelstudio.allocation import StratifiedAllocation
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.media import LONGEST, copy_size
from ddiseg.labelstudio.projects import ProjectRef
from ddiseg.labelstudio.task_payload import review_key
from ddiseg.labelstudio.upload import DataOf, TaskUploader, pushing, update_tasks
from ddiseg.labelstudio.views import Tab, condition, ensure_tabs, short_names
from ddiseg.outcomes import FileOutcome, Outcome, Progress, Stages, silent_stages, track
from ddiseg.workspace.settings import StudySettings
from ddiseg.workspace.workspace import Workspace

#: Keys in the data of a review task.
DRAWN_BY, WAITS = "drawn_by", "waits"

#: Longest side, pixels, below which a copy is too small to assess an outline.
MIN_REVIEW_SIZE = 512


@dataclass
class PushedReviews:
    """Outcome of a push of reviews: what happened to each mask, and where each person reviews."""

    project: ProjectRef
    outcomes: list[FileOutcome] = field(default_factory=list)
    unsampled: int = 0  #: submitted masks that are not in the sample
    #: Address of each person's tab, by e-mail address.
    tabs: dict[str, str] = field(default_factory=dict)


def push_reviews(
    workspace: Workspace,
    connection: Connection,
    sample: float,
    seed: int,
    actor: str,
    stages: Stages = silent_stages,
    *,
    left_out_too: bool = True,
) -> PushedReviews:
    """Send masks that wait for review, or `sample` percent of those that are new.

    Masks whose annotator has made an unreadable change since are refused. A mask on which a verdict
    was refused is offered to one more person.

    Args:
        left_out_too: whether 100 percent include the masks that an earlier sample left out.
    """
    StudySettings(review_sample=sample)
    with pushing(workspace, connection, Purpose.REVIEW) as (client, project):
        done = PushedReviews(project)
        waiting = workspace.catalogue.masks.in_review()
        unread = workspace.catalogue.tasks.unread_edits([m.id for m in waiting.values()])
        rows = workspace.catalogue.images.select(ids=list(waiting))
        done.outcomes += [
            FileOutcome(i.name, Outcome.REFUSED, unread[waiting[i.id].id])
            for i in rows
            if waiting[i.id].id in unread
        ]
        rows = [i for i in rows if waiting[i.id].id not in unread]
        reviews = Counter(
            r.mask_id for r in workspace.catalogue.masks.reviews([m.id for m in waiting.values()])
        )
        keys = {review_key(i, waiting[i.id], reviews[waiting[i.id].id]): i for i in rows}
        labelling, number = workspace.catalogue.tasks, project.row.id
        before = {t.key for t in labelling.tasks(number, waiting) if t.remote_id}
        _plan(workspace, project, keys, waiting, sample, seed, actor, left_out_too)
        uploader = TaskUploader(workspace, client, connection, project, actor, start=False)
        uploader.adopt()
        done.outcomes += uploader.send(_review_data(workspace), stages("Sending masks"))
        tasks = labelling.tasks(number, waiting)
        existing = [t for t in tasks if t.key in before and t.key in keys]
        done.outcomes += _offer_again(workspace, client, project, existing, keys)
        done.unsampled = sum(t.arm == Arm.UNSAMPLED and t.key in keys for t in tasks)
        shown = {t.id: t for t in (*tasks, *labelling.without_comment(number))}
        ordered = [shown[task_id] for task_id in sorted(shown)]
        _show_what_waits(workspace, client, ordered, keys, stages("Updating reviewers' tabs"))
        done.tabs = _tabs(client, project)
    return done


def _plan(
    workspace: Workspace,
    project: ProjectRef,
    keys: Mapping[str, Image],
    waiting: Mapping[int, Mask],
    sample: float,
    seed: int,
    actor: str,
    left_out_too: bool,
) -> None:
    labelling = workspace.catalogue.tasks
    tasks = labelling.tasks(project.row.id, waiting, deleted=True)
    existing = {t.key: t for t in tasks if t.deleted_at is None}
    # A mask that a sample left out stays out, until all masks are asked for.
    all_asked_for = sample == 100 and left_out_too
    open_keys = {
        key: image
        for key, image in keys.items()
        if key not in existing or (all_asked_for and existing[key].arm == Arm.UNSAMPLED)
    }
    # Tasks that the server lost were sampled once, and are sent again.
    lost = {t.key for t in tasks} - existing.keys()
    allocation = StratifiedAllocation.read(workspace.catalogue)
    fresh = [image for key, image in open_keys.items() if key not in lost]
    sampled = allocation.draw("review", fresh, sample, seed)
    new = []
    for key, image in open_keys.items():
        mask = waiting[image.id]
        width, height = _review_size(image, mask)
        arm = Arm.PREDICTED if key in lost or image.id in sampled else Arm.UNSAMPLED
        new.append(NewTask(key, image.id, mask.id, arm, width, height))
    if new:
        detail = {"review": True, "sample": sample, "seed": seed}
        labelling.plan(project.row.id, new, actor, detail, allocation.carry)


def _review_size(image: Image, mask: Mask) -> tuple[int, int]:
    """Return the size at which a mask was drawn, or a larger one if that is too small for review."""
    drawn_at = mask.width, mask.height
    longest = max(drawn_at)
    if (
        drawn_at == copy_size(image, longest)
        and min(MIN_REVIEW_SIZE, max(image.width, image.height)) <= longest <= LONGEST
    ):
        return drawn_at
    return copy_size(image, LONGEST)


def _review_data(workspace: Workspace) -> DataOf:
    def data_of(image: Image, mask: Mask | None) -> Mapping[str, Any]:
        assert mask is not None
        people = workspace.catalogue.masks.people_behind([mask.id])[mask.id]
        return {
            DRAWN_BY: "".join(_enclose(person) for person in people),
            WAITS: "yes",
            "drawn_in": mask.origin or "",
        }

    return data_of


def _offer_again(
    workspace: Workspace,
    client: Client,
    project: ProjectRef,
    tasks: Sequence[Task],
    keys: Mapping[str, Image],
) -> list[FileOutcome]:
    """Offer tasks to another person whose verdict was refused, though the server has them as done."""
    refused = Counter(task.id for task, _ in workspace.catalogue.tasks.problems(project.row.id))

    def update(task: Task, number: int) -> str | None:
        if refused[task.id] and client.set_readers(number, refused[task.id] + 1):
            return "a verdict was refused: offered to another person"
        return None

    names = {image.id: image.name for image in keys.values()}
    return update_tasks(tasks, update, names, Purpose.REVIEW)


def _show_what_waits(
    workspace: Workspace,
    client: Client,
    tasks: Sequence[Task],
    keys: Collection[str],
    progress: Progress,
) -> None:
    """Hide reviews that no longer wait from everyone's tab, and show those that wait again."""
    changed = [t for t in tasks if t.remote_id and (t.key in keys) != (t.comment is None)]
    for task in track(changed, progress):
        assert task.remote_id is not None
        waits = task.key in keys
        client.set_data(task.remote_id, **{WAITS: "yes" if waits else "no"})
        comment = None if waits else "no longer in review"
        workspace.catalogue.tasks.update_task(task.id, comment=comment)


def _tabs(client: Client, project: ProjectRef) -> dict[str, str]:
    """Give each person a tab without the masks they worked on; returns its address by e-mail."""
    waits = condition(WAITS, "equal", "yes")
    tabs = {
        address: Tab(
            name,
            (condition(DRAWN_BY, "not_contains", _enclose(address)), waits),
            # The name gets longer once a second person shares it.
            former=tuple({address, address.partition("@")[0]} - {name}),
        )
        for address, name in short_names(sorted(client.users().values())).items()
    }
    return ensure_tabs(client, project, tabs)


def _enclose(address: str) -> str:
    """Enclose an address, so that a search for it does not find longer ones that contain it."""
    return f"<{address}>"
