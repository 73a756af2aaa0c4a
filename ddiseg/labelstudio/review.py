"""Give submitted masks to a second person; a person never finds their own work among them.

Label Studio Community has no reviewer's role. Review is a project of its own whose tasks hold the
annotator's mask and name; each person has a view of it (a tab) that leaves their own work out. What
a reviewer gets round to is refused in the catalogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddiseg.catalogue import Arm, NewTask, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.errors import ServerError
from ddiseg.labelstudio.allocation import StratifiedAllocation
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.media import LONGEST, copy_size
from ddiseg.labelstudio.projects import ProjectRef
from ddiseg.labelstudio.task_payload import review_key
from ddiseg.labelstudio.upload import TaskUploader, pushing
from ddiseg.labelstudio.views import Tab, condition, ensure_tabs, short_names
from ddiseg.outcomes import FileOutcome, Outcome, Progress, Stages, silent_stages, track
from ddiseg.workspace.settings import StudySettings
from ddiseg.workspace.workspace import Workspace

#: Keys in a review task's data.
DRAWN_BY, WAITS = "drawn_by", "waits"


#: A copy whose longest side is shorter, pixels, shows too little of a photograph to judge a rim by.
SHARP = 512


@dataclass
class PushedReviews:
    """What became of each submitted mask, and where each person reviews."""

    place: ProjectRef
    outcomes: list[FileOutcome] = field(default_factory=list)
    unsampled: int = 0  #: submitted masks that the spot check leaves out
    tabs: dict[str, str] = field(default_factory=dict)  #: where to review, by e-mail address


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
    """Send every mask that waits for review, or of those not looked at yet `sample` percent.

    Not one that its annotator has changed into something that can't be read. A mask on which a
    verdict was refused is offered to one more person.

    Args:
        left_out_too: whether 100 percent are also the masks that an earlier spot check left out.
    """
    StudySettings(review_sample=sample)
    with pushing(workspace, connection, Purpose.REVIEW) as (client, place):
        done = PushedReviews(place)
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
        before = {t.key for t in workspace.catalogue.tasks.tasks(place.row.id) if t.remote_id}
        _plan(workspace, place, keys, waiting, sample, seed, actor, left_out_too)
        sender = TaskUploader(workspace, client, connection, place, actor, start=False)
        sender.adopt()
        done.outcomes += sender.send(_review_data(workspace), stages("Sending masks"))
        tasks = workspace.catalogue.tasks.tasks(place.row.id)
        there = [t for t in tasks if t.key in before and t.key in keys]
        done.outcomes += _offer_again(workspace, client, place, there, keys)
        done.unsampled = sum(t.arm == Arm.UNSAMPLED and t.key in keys for t in tasks)
        _show_what_waits(workspace, client, tasks, keys, stages("Updating reviewers' tabs"))
        done.tabs = _tabs(client, place)
    return done


def _plan(
    workspace: Workspace,
    place: ProjectRef,
    keys: Mapping[str, Image],
    waiting: Mapping[int, Mask],
    sample: float,
    seed: int,
    actor: str,
    left_out_too: bool,
) -> None:
    labelling = workspace.catalogue.tasks
    tasks = labelling.tasks(place.row.id, deleted=True)
    there = {t.key: t for t in tasks if t.deleted_at is None}
    # A mask that a spot check left out stays out, until all are asked for.
    all_asked_for = sample == 100 and left_out_too
    open_keys = {
        key: image
        for key, image in keys.items()
        if key not in there or (all_asked_for and there[key].arm == Arm.UNSAMPLED)
    }
    # What the server lost was drawn once, and is sent again.
    lost = {t.key for t in tasks} - there.keys()
    shares = StratifiedAllocation.read(workspace.catalogue)
    fresh = [image for key, image in open_keys.items() if key not in lost]
    drawn = shares.draw("review", fresh, sample, seed)
    new = []
    for key, image in open_keys.items():
        mask = waiting[image.id]
        width, height = _review_size(image, mask)
        arm = Arm.PREDICTED if key in lost or image.id in drawn else Arm.UNSAMPLED
        new.append(NewTask(key, image.id, mask.id, arm, width, height))
    if new:
        detail = {"review": True, "sample": sample, "seed": seed}
        labelling.plan(place.row.id, new, actor, detail, shares.owed)


def _review_size(image: Image, mask: Mask) -> tuple[int, int]:
    """The size at which a mask was drawn; where that shows too little of the photograph, more."""
    drawn_at = mask.width, mask.height
    longest = max(drawn_at)
    if (
        drawn_at == copy_size(image, longest)
        and min(SHARP, max(image.width, image.height)) <= longest <= LONGEST
    ):
        return drawn_at
    return copy_size(image, LONGEST)


def _review_data(workspace: Workspace) -> Any:
    def data_of(image: Image, mask: Mask | None) -> Mapping[str, Any]:
        assert mask is not None
        people = workspace.catalogue.masks.people_behind([mask.id])[mask.id]
        return {
            DRAWN_BY: "".join(_enclosed(person) for person in people),
            WAITS: "yes",
            "drawn_in": mask.origin or "",
        }

    return data_of


def _offer_again(
    workspace: Workspace,
    client: Client,
    place: ProjectRef,
    tasks: Sequence[Task],
    keys: Mapping[str, Image],
) -> list[FileOutcome]:
    """Tasks that were there before; one whose verdict was refused is not done, as the server has it."""
    refused = Counter(task.id for task, _ in workspace.catalogue.tasks.problems(place.row.id))
    outcomes = []
    for task in tasks:
        assert task.remote_id is not None
        outcome, note = Outcome.UNCHANGED, None
        try:
            if refused[task.id] and client.set_readers(task.remote_id, refused[task.id] + 1):
                outcome, note = Outcome.REPAIRED, "a verdict was refused: offered to another person"
        except ServerError as error:
            if error.status != 404:
                raise
            outcome, note = Outcome.REFUSED, _DELETED
        outcomes.append(FileOutcome(keys[task.key].name, outcome, note))
    return outcomes


_DELETED = "its task was deleted on the server: 'ddiseg review pull --full' takes note of that, then push again"


def _show_what_waits(
    workspace: Workspace,
    client: Client,
    tasks: Sequence[Task],
    keys: Collection[str],
    progress: Progress,
) -> None:
    """Take reviews of masks that no longer wait out of everyone's view, and show those that do again."""
    changed = [t for t in tasks if t.remote_id and (t.key in keys) != (t.comment is None)]
    for task in track(changed, progress):
        assert task.remote_id is not None
        waits = task.key in keys
        client.set_data(task.remote_id, **{WAITS: "yes" if waits else "no"})
        comment = None if waits else "no longer in review"
        workspace.catalogue.tasks.update_task(task.id, comment=comment)


def _tabs(client: Client, place: ProjectRef) -> dict[str, str]:
    """Give each person a tab that leaves out what they had a hand in; returns where, by address."""
    names = short_names(sorted(client.users().values()))
    return ensure_tabs(
        client,
        place,
        {
            address: Tab(
                name,
                (
                    condition(DRAWN_BY, "not_contains", _enclosed(address)),
                    condition(WAITS, "equal", "yes"),
                ),
                # Once somebody comes who shares the name, it must say more.
                former=tuple({address, address.partition("@")[0]} - {name}),
            )
            for address, name in names.items()
        },
    )


def _enclosed(address: str) -> str:
    """An address that is found in a text without finding those that begin or end with it."""
    return f"<{address}>"
