"""Tabs of Label Studio's task list (its API calls them views), for one person or one purpose.

A tab is found by its filters. They apply to the list and to "Label Tasks As Displayed"; "Label All
Tasks" ignores them. Label Studio orders the columns itself: its own, then those of the task data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from annotation_protocol.label_studio_config import REVIEW_COMMENT
from ddiseg.catalogue import Purpose, State
from ddiseg.catalogue.masks import REJECT
from ddiseg.catalogue.tables import Review
from ddiseg.labelstudio import http
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.projects import ProjectRef, ensure_project
from ddiseg.labelstudio.task_payload import EXPECTED
from ddiseg.workspace.workspace import Workspace

#: Characters of a title that a tab shows; Label Studio cuts longer ones.
TITLE_WIDTH = 15

#: Columns hidden unless a tab shows them. Visible are the photograph, its name and tone, what to expect
#: of its prediction, when the task was completed and whether it was skipped.
_HIDDEN = (
    *("id", "inner_id", "annotators", "annotations_results", "annotations_ids"),
    *("total_annotations", "total_predictions", "predictions_results", "predictions_score"),
    *("predictions_model_versions", "file_upload", "storage_filename", "created_at", "updated_at"),
    *("updated_by", "avg_lead_time", "draft_exists"),
    *("data.ddiseg", "data.image_id", "data.review_comment", "data.model", "data.batch"),
    *("data.drawn_by", "data.waits", "data.drawn_in"),
)

#: While a task is open the list is narrow: the photograph and its name.
_HIDDEN_WHILE_LABELLING = (
    *(*_HIDDEN, "completed_at", "cancelled_annotations", "data.tone", f"data.{EXPECTED}"),
)


@dataclass(frozen=True)
class Tab:
    """The wanted state of a tab."""

    title: str
    conditions: tuple[dict[str, Any], ...] = ()  #: filters; without any, the tab lists all tasks
    shows: tuple[str, ...] = ()  #: columns that are hidden elsewhere
    former: tuple[str, ...] = ()  #: titles to replace: Label Studio's, or an older version's

    @property
    def data(self) -> dict[str, Any]:
        """The tab as Label Studio stores it."""
        hidden = {
            "explore": _columns(_HIDDEN, self.shows),
            "labeling": _columns(_HIDDEN_WHILE_LABELLING),
        }
        data: dict[str, Any] = {"title": self.title, "hiddenColumns": hidden}
        if self.conditions:
            data["filters"] = {"conjunction": "and", "items": list(self.conditions)}
        return data

    def matches(self, view: Mapping[str, Any]) -> bool:
        """Whether a view on the server is this tab, by its filters or, without filters, its title."""
        data = view.get("data") or {}
        filters = (data.get("filters") or {}).get("items") or []
        if filters or self.conditions:
            return _comparable(filters) == _comparable(self.conditions)
        return data.get("title") in (self.title, *self.former)


#: All tasks of a project. Label Studio creates such a tab for the first person who opens the list.
ALL = Tab("All", former=("Default",))


def condition(key: str, operator: str, value: str) -> dict[str, Any]:
    """Return a filter on a key of the task data; a task without the key never passes."""
    return http.condition(f"data.{key}", operator, "String", value)


#: The tab of images that came back from review or were reopened.
RETURNED = Tab(
    "Returned",
    (condition(REVIEW_COMMENT, "not_equal", ""),),
    shows=(f"data.{REVIEW_COMMENT}",),
    former=("Returned by the reviewer",),
)


def ensure_tabs(client: Client, project: ProjectRef, wanted: Mapping[str, Tab]) -> dict[str, str]:
    """Create missing tabs; returns the addresses of the wanted tabs, by the keys of `wanted`.

    A tab with a former title gets the new title and columns; any other stays as people left it.
    """
    views = client.plain.views(project.number)
    addresses = {}
    for key, tab in wanted.items():
        number = _update(client, views, tab)
        if number is None:
            number = client.plain.add_view(project.number, tab.data)
        addresses[key] = f"{project.url}?tab={number}"
    if ALL not in wanted.values():
        _update(client, views, ALL)
    return addresses


def show_comments(workspace: Workspace, client: Client, project: ProjectRef) -> str | None:
    """Show the comments of returned images in their tasks, and remove them once an image moved on.

    A skipped image that was reopened counts as returned: its task is done for the server, which
    offers it to nobody else.

    Returns:
        The address of the tab that lists the returned images; None if there are none.
    """
    labelling = workspace.catalogue.tasks
    commented = labelling.commented(project.row.id)
    reviews = workspace.catalogue.masks.last_reviews([image.id for _, image, _ in commented])
    any_returned = False
    for task, image, answered in commented:
        comment = _comment(image.state, reviews.get(image.id), answered)
        any_returned = any_returned or comment is not None
        if comment != task.comment:
            assert task.remote_id is not None
            if client.set_data(task.remote_id, **{REVIEW_COMMENT: comment or ""}):
                labelling.update_task(task.id, comment=comment)
    if not any_returned:
        return None
    return ensure_tabs(client, project, {RETURNED.title: RETURNED})[RETURNED.title]


def send_back(workspace: Workspace, client: Client, connection: Connection) -> str | None:
    """Show the comments of returned images to their annotators; see `show_comments`."""
    project = ensure_project(workspace, client, connection, Purpose.ANNOTATION, keep_config=False)
    return show_comments(workspace, client, project)


def short_names(addresses: Collection[str]) -> dict[str, str]:
    """Return a short, readable tab title for each person, by e-mail address.

    It is the part before the @, followed by the distinct part of the domain if several people share
    it.
    """
    sharing: dict[str, list[str]] = {}
    for address in addresses:
        sharing.setdefault(address.partition("@")[0], []).append(address)
    names = {}
    for local, people in sharing.items():
        ends = _distinct_parts([address.partition("@")[2] for address in people])
        for address, end in zip(people, ends, strict=True):
            room = max(TITLE_WIDTH - len(end) - 1, 2)
            cut = local if len(local) <= room else f"{local[: room - 1]}…"
            names[address] = local if len(people) == 1 else f"{cut}@{end}"
    return names


def _update(client: Client, views: Collection[Mapping[str, Any]], tab: Tab) -> int | None:
    """Bring the view of `tab` up to date and return its number; None if there is no such view."""
    view = next((view for view in views if tab.matches(view)), None)
    if view is None:
        return None
    if view["data"].get("title") in tab.former:
        client.plain.change_view(int(view["id"]), {**view["data"], **tab.data})
    return int(view["id"])


def _comment(state: str, review: Review | None, answered: bool) -> str | None:
    """Return the comment shown above a returned image; None for any other image."""
    rejected = review is not None and review.verdict == REJECT
    in_new_task = state == State.IN_LABELLING and rejected
    if state != State.REWORK and not in_new_task and not answered:
        return None
    if review is None:
        return "Please look at this image again."
    return f"{review.reviewer}: {review.comment or 'please look at this image again'}"


def _comparable(filters: Collection[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return sorted(
        tuple(str(item.get(key)) for key in ("filter", "operator", "value")) for item in filters
    )


def _columns(hidden: Collection[str], shown: Collection[str] = ()) -> list[str]:
    return [f"tasks:{name}" for name in hidden if name not in shown]


def _distinct_parts(domains: list[str]) -> list[str]:
    """Return domains without their common ending: north.org and south.org give north and south."""
    parts = [domain.split(".") for domain in domains]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return [".".join(p) for p in parts]
