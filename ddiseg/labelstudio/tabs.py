"""Tabs of Label Studio's list of tasks: views for one person or one purpose, found by their title.

A tab's filters hold in the list and in "Label Tasks As Displayed"; "Label All Tasks" ignores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.projects import Place

#: Columns of the list that tell an annotator or reviewer nothing.
_HIDDEN = (
    *("inner_id", "annotators", "annotations_results", "annotations_ids", "predictions_results"),
    *("predictions_score", "predictions_model_versions", "total_predictions", "file_upload"),
    *("storage_filename", "created_at", "updated_at", "updated_by", "avg_lead_time"),
    *("draft_exists", "data.ddiseg", "data.image_id"),
)


def condition(key: str, operator: str, value: str) -> dict[str, Any]:
    """A filter on a key of the tasks' data. A task that lacks the key never passes, whatever is asked."""
    return {
        "filter": f"filter:tasks:data.{key}",
        "operator": operator,
        "type": "String",
        "value": value,
    }


def ensure_tabs(
    client: Client, place: Place, wanted: dict[str, Sequence[dict[str, Any]]]
) -> dict[str, str]:
    """The addresses of tabs by their titles; `wanted` has the conditions of those to be made."""
    there = {
        str((view.get("data") or {}).get("title")): int(view["id"])
        for view in client.plain.views(place.number)
    }
    for title, conditions in wanted.items():
        if title not in there:
            data = {
                "title": title,
                "filters": {"conjunction": "and", "items": list(conditions)},
                "hiddenColumns": {"explore": [f"tasks:{name}" for name in _HIDDEN], "labeling": []},
            }
            there[title] = client.plain.add_view(place.number, data)
    return {title: f"{place.url}?tab={there[title]}" for title in wanted}
