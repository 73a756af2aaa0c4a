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
from ddiseg.catalogue.models import Image, Mask, Task
from ddiseg.errors import InputError
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.media import LONGEST, copy_size
from ddiseg.labelstudio.projects import Place
from ddiseg.labelstudio.sender import Sender, pushing
from ddiseg.labelstudio.shares import draw_share
from ddiseg.labelstudio.tabs import condition, ensure_tabs
from ddiseg.labelstudio.tasks import review_key
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.workspace import Workspace

#: Keys in a review task's data.
DRAWN_BY, WAITS = "drawn_by", "waits"


#: A copy whose longest side is shorter, pixels, shows too little of a photograph to judge a rim by.
SHARP = 512


@dataclass
class PushedReviews:
    """What became of each submitted mask, and where each person reviews."""

    place: Place
    outcomes: list[FileOutcome] = field(default_factory=list)
    unsampled: int = 0  #: submitted masks that the spot check leaves out
    tabs: dict[str, str] = field(default_factory=dict)  #: where to review, by e-mail address


def push_reviews(
    workspace: Workspace,
    connection: Connection,
    sample: float,
    seed: int,
    actor: str,
    progress: Progress = silent,
) -> PushedReviews:
    """Send every mask that waits for review, or of those not looked at yet `sample` percent."""
    if not 0 <= sample <= 100:
        raise InputError(f"--sample is {sample:g}: give a percentage, 0 to 100")
    with pushing(workspace, connection, Purpose.REVIEW) as (client, place):
        done = PushedReviews(place)
        waiting = workspace.catalogue.masks.in_review()
        rows = workspace.catalogue.images.select(ids=list(waiting))
        reviews = Counter(
            r.mask_id for r in workspace.catalogue.masks.reviews([m.id for m in waiting.values()])
        )
        keys = {review_key(i, waiting[i.id], reviews[waiting[i.id].id]): i for i in rows}
        before = {t.key for t in workspace.catalogue.labelling.tasks(place.row.id) if t.remote_id}
        _plan(workspace, place, keys, waiting, sample, seed, actor)
        sender = Sender(workspace, client, connection, place, actor, start=False)
        sender.adopt()
        done.outcomes += sender.send(_review_data(workspace), progress)
        done.outcomes += [
            FileOutcome(image.name, Outcome.UNCHANGED)
            for key, image in keys.items()
            if key in before
        ]
        tasks = workspace.catalogue.labelling.tasks(place.row.id)
        done.unsampled = sum(t.arm == Arm.UNSAMPLED and t.key in keys for t in tasks)
        _show_what_waits(workspace, client, tasks, keys)
        done.tabs = _tabs(client, place)
    return done


def _plan(
    workspace: Workspace,
    place: Place,
    keys: Mapping[str, Image],
    waiting: Mapping[int, Mask],
    sample: float,
    seed: int,
    actor: str,
) -> None:
    labelling = workspace.catalogue.labelling
    there = {t.key: t for t in labelling.tasks(place.row.id)}
    # A mask that a spot check left out stays out, until all are asked for.
    open_keys = {
        key: image
        for key, image in keys.items()
        if key not in there or (sample == 100 and there[key].arm == Arm.UNSAMPLED)
    }
    drawn = draw_share(list(open_keys.values()), sample, seed, "review")
    new = []
    for key, image in open_keys.items():
        mask = waiting[image.id]
        width, height = _review_size(image, mask)
        arm = Arm.PAINTED if image.id in drawn else Arm.UNSAMPLED
        new.append(NewTask(key, image.id, mask.id, arm, width, height))
    if new:
        labelling.plan(place.row.id, new, actor, {"review": True, "sample": sample, "seed": seed})


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


def _show_what_waits(
    workspace: Workspace, client: Client, tasks: Sequence[Task], keys: Collection[str]
) -> None:
    """Take reviews of masks that no longer wait out of everyone's view, and show those that do again."""
    for task in tasks:
        waits, shown = task.key in keys, task.comment is None
        if task.remote_id is not None and waits != shown:
            client.set_data(task.remote_id, **{WAITS: "yes" if waits else "no"})
            comment = None if waits else "no longer in review"
            workspace.catalogue.labelling.update_task(task.id, comment=comment)


def _tabs(client: Client, place: Place) -> dict[str, str]:
    """A tab for each person that leaves out what they had a hand in; where it is, by address."""
    return ensure_tabs(
        client,
        place,
        {
            address: (
                condition(DRAWN_BY, "not_contains", _enclosed(address)),
                condition(WAITS, "equal", "yes"),
            )
            for address in sorted(client.users().values())
        },
    )


def _enclosed(address: str) -> str:
    """An address that is found in a text without finding those that begin or end with it."""
    return f"<{address}>"
