"""Tabs of Label Studio's list of tasks: views for one person or one purpose, found by their filters.

A tab's filters hold in the list and in "Label Tasks As Displayed"; "Label All Tasks" ignores them.
Label Studio orders the columns itself: its own come first, then those of the tasks' data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.projects import ProjectRef

#: Characters of a title that a tab shows; Label Studio cuts longer ones.
TITLE_WIDTH = 15

#: Columns of the list, hidden unless a tab shows them. The others tell people what they look for:
#: the photograph, its name and tone, when it was completed, whether it was skipped.
_HIDDEN = (
    *("id", "inner_id", "annotators", "annotations_results", "annotations_ids"),
    *("total_annotations", "total_predictions", "predictions_results", "predictions_score"),
    *("predictions_model_versions", "file_upload", "storage_filename", "created_at", "updated_at"),
    *("updated_by", "avg_lead_time", "draft_exists"),
    *("data.ddiseg", "data.image_id", "data.review_comment", "data.model", "data.batch"),
    *("data.drawn_by", "data.waits", "data.drawn_in"),
)

#: Beside an open task the list is narrow: the photograph and its name.
_HIDDEN_BESIDE_A_TASK = (*_HIDDEN, "completed_at", "cancelled_annotations", "data.tone")


@dataclass(frozen=True)
class Tab:
    """A tab as it is to be."""

    title: str
    conditions: tuple[dict[str, Any], ...] = ()  #: filters; without any, the tab lists all tasks
    shows: tuple[str, ...] = ()  #: columns that are hidden elsewhere
    former: tuple[str, ...] = ()  #: titles to be replaced: Label Studio's, or an older version's

    @property
    def data(self) -> dict[str, Any]:
        """The tab as Label Studio keeps it."""
        hidden = {
            "explore": _columns(_HIDDEN, self.shows),
            "labeling": _columns(_HIDDEN_BESIDE_A_TASK),
        }
        data: dict[str, Any] = {"title": self.title, "hiddenColumns": hidden}
        if self.conditions:
            data["filters"] = {"conjunction": "and", "items": list(self.conditions)}
        return data

    def matches(self, view: Mapping[str, Any]) -> bool:
        """Whether a view on the server is this tab: by its filters; without any, by its title too."""
        data = view.get("data") or {}
        filters = (data.get("filters") or {}).get("items") or []
        if filters or self.conditions:
            return _comparable(filters) == _comparable(self.conditions)
        return data.get("title") in (self.title, *self.former)


#: All tasks of a project; Label Studio makes such a tab itself for whoever comes before us.
ALL = Tab("All", former=("Default",))


def condition(key: str, operator: str, value: str) -> dict[str, Any]:
    """A filter on a key of the tasks' data. A task that lacks the key never passes, whatever is asked."""
    return {
        "filter": f"filter:tasks:data.{key}",
        "operator": operator,
        "type": "String",
        "value": value,
    }


def ensure_tabs(client: Client, place: ProjectRef, wanted: Mapping[str, Tab]) -> dict[str, str]:
    """Make the tabs that are missing; returns the addresses of `wanted` by its keys.

    A tab that bears a former title gets its title and columns; any other stays as people left it.
    """
    views = client.plain.views(place.number)
    addresses = {}
    for key, tab in wanted.items():
        number = _update(client, views, tab)
        if number is None:
            number = client.plain.add_view(place.number, tab.data)
        addresses[key] = f"{place.url}?tab={number}"
    if ALL not in wanted.values():
        _update(client, views, ALL)
    return addresses


def short_names(addresses: Collection[str]) -> dict[str, str]:
    """Return a title for each person's tab, short enough to be read whole, by e-mail address.

    It is the part before the @; where several people share that, what tells their domains apart
    follows.
    """
    sharing: dict[str, list[str]] = {}
    for address in addresses:
        sharing.setdefault(address.partition("@")[0], []).append(address)
    names = {}
    for local, people in sharing.items():
        ends = _told_apart([address.partition("@")[2] for address in people])
        for address, end in zip(people, ends, strict=True):
            room = max(TITLE_WIDTH - len(end) - 1, 2)
            cut = local if len(local) <= room else f"{local[: room - 1]}…"
            names[address] = local if len(people) == 1 else f"{cut}@{end}"
    return names


def _update(client: Client, views: Collection[Mapping[str, Any]], tab: Tab) -> int | None:
    """The number of the view that is `tab`, brought up to date; None where there is none."""
    view = next((view for view in views if tab.matches(view)), None)
    if view is None:
        return None
    if view["data"].get("title") in tab.former:
        client.plain.change_view(int(view["id"]), {**view["data"], **tab.data})
    return int(view["id"])


def _comparable(filters: Collection[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return sorted(
        tuple(str(item.get(key)) for key in ("filter", "operator", "value")) for item in filters
    )


def _columns(hidden: Collection[str], shown: Collection[str] = ()) -> list[str]:
    return [f"tasks:{name}" for name in hidden if name not in shown]


def _told_apart(domains: list[str]) -> list[str]:
    """Domains without the ends that all of them share: north.org and south.org are north and south."""
    parts = [domain.split(".") for domain in domains]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return [".".join(p) for p in parts]
