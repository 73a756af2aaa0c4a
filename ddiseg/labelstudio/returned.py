"""Images that came back from review or were reopened: what annotators read above them."""

from __future__ import annotations

from annotation_protocol.label_studio_config import REVIEW_COMMENT
from ddiseg.catalogue import Purpose, State
from ddiseg.catalogue.masks import REJECT
from ddiseg.catalogue.tables import Review
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.projects import ProjectRef, ensure_project
from ddiseg.labelstudio.views import Tab, condition, ensure_tabs
from ddiseg.workspace.workspace import Workspace

#: The tab of images that came back from review, and of those that were reopened.
RETURNED = Tab(
    "Returned",
    (condition(REVIEW_COMMENT, "not_equal", ""),),
    shows=(f"data.{REVIEW_COMMENT}",),
    former=("Returned by the reviewer",),
)


def show_comments(workspace: Workspace, client: Client, place: ProjectRef) -> str | None:
    """Show each returned image's comment in its task, and take it away once the image moved on.

    A skipped image that was reopened is among them: the server, for which its task is done, offers
    it to nobody else.

    Returns the address of the tab that lists the returned images; None where there are none.
    """
    labelling = workspace.catalogue.tasks
    reviews = workspace.catalogue.masks.last_reviews()
    returned = False
    for task, image, answered in labelling.commented(place.row.id):
        wanted = _comment(image.state, reviews.get(image.id), answered)
        returned = returned or wanted is not None
        if wanted != task.comment:
            assert task.remote_id is not None
            if client.set_data(task.remote_id, **{REVIEW_COMMENT: wanted or ""}):
                labelling.update_task(task.id, comment=wanted)
    if not returned:
        return None
    return ensure_tabs(client, place, {RETURNED.title: RETURNED})[RETURNED.title]


def send_back(workspace: Workspace, client: Client, connection: Connection) -> str | None:
    """Show the comments of returned images to their annotators; see `show_comments`."""
    place = ensure_project(workspace, client, connection, Purpose.ANNOTATION, keep_config=False)
    return show_comments(workspace, client, place)


def _comment(state: str, review: Review | None, answered: bool) -> str | None:
    """What an annotator reads above a returned image; None above any other."""
    rejected = review is not None and review.verdict == REJECT
    in_new_task = state == State.IN_LABELLING and rejected
    if state != State.REWORK and not in_new_task and not answered:
        return None
    if review is None:
        return "Please look at this image again."
    return f"{review.reviewer}: {review.comment or 'please look at this image again'}"
