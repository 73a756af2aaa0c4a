"""The data manager: tabs, and the label stream that is drawn from them."""

from __future__ import annotations

from typing import Any

from tests.fake_label_studio import shapes
from tests.fake_label_studio.backends import shown_in_the_stream
from tests.fake_label_studio.projects import of_chosen_project, related
from tests.fake_label_studio.queries import read_query, select
from tests.fake_label_studio.routing import (
    Answer,
    Call,
    CrashedError,
    RefusedError,
    Routes,
    find_row,
    json_answer,
)
from tests.fake_label_studio.rows import Project, Tab

routes = Routes()


@routes.on("GET", "/api/dm/views")
def list_tabs(call: Call) -> list[dict[str, Any]]:
    rows = sorted(call.db.tabs.values(), key=lambda row: (row.order, row.id))
    return [shapes.tab(row) for row in of_chosen_project(call, rows)]


@routes.on("POST", "/api/dm/views")
def create_tab(call: Call) -> Answer:
    sent = call.fields
    project = related(sent, "project", call.db.projects)
    data, filters, ordering = _split(sent.get("data", {}))
    siblings = [row for row in call.db.tabs.values() if row.project is project]
    order = len(siblings) if filters else 0
    row = call.db.insert("tabs", Tab, project, call.by, data, order, filters, ordering or [])
    return json_answer(shapes.tab(row), 201)


@routes.on("GET", "/api/dm/views/#", row="tabs")
def get_tab(_call: Call, row: Tab) -> dict[str, Any]:
    return shapes.tab(row)


@routes.on("PATCH", "/api/dm/views/#", row="tabs")
def change_tab(call: Call, row: Tab) -> dict[str, Any]:
    """`data` is replaced; filters and ordering that it does not name stay."""
    sent = call.fields
    if "data" not in sent:
        raise CrashedError("'data'")
    row.data, filters, ordering = _split(sent["data"])
    row.filters = filters or row.filters
    row.ordering = ordering or row.ordering
    return shapes.tab(row)


@routes.on("DELETE", "/api/dm/views/#", row="tabs")
def delete_tab(call: Call, row: Tab) -> None:
    del call.db.tabs[row.id]


@routes.on("POST", "/api/dm/actions")
def act(call: Call) -> Any:
    """`next_task`: what the label stream asks before each task.

    The browser sends the tab's filters in the body, or none after "Label All Tasks"; `tabID` in
    the address does nothing. Asking locks the task for the asker.
    """
    project, query = asked(call)
    action = call.params.get("id")
    if action is None:
        return json_answer({"detail": 'No action id "None", use ?id=<action-id>'}, 422)
    if action != "next_task":
        raise CrashedError(f"Can't find '{action}' in registered actions")
    body = call.fields
    filtered = any(body.get(key) for key in ("filters", "ordering", "selectedItems"))
    tasks = select(call.db.tasks_of(project), query)
    found = call.db.next_task(call.by, project, tasks, filtered=filtered)
    if found is None:
        raise RefusedError(404, f"There are no tasks for {call.by.email}")
    task, queue = found
    return shapes.next_task(task, call.by, queue, shown_in_the_stream(call, task))


def asked(call: Call) -> tuple[Project, dict[str, Any]]:
    """The project that a request names, and the query: of its `view`, its `query`, or its body."""
    tab, project = (
        find_row(call.db, table, int(call.params[key])) if key in call.params else None
        for key, table in (("view", "tabs"), ("project", "projects"))
    )
    if tab is not None:
        if project not in (None, tab.project):
            raise CrashedError("Project and View mismatch")
        return tab.project, {"filters": tab.filters, "ordering": tab.ordering}
    if project is None:
        raise RefusedError(404, "No Project matches the given query.")
    if "query" in call.params:
        return project, read_query(call.params["query"])
    return project, call.fields


def _split(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None, Any]:
    """A tab's data without its filters, the filters checked, and the ordering."""
    filters = data.get("filters") or None
    if filters is not None and "conjunction" not in filters:
        filters = None
    for item in (filters or {}).get("items", []):
        if not item["filter"].startswith("filter:tasks:"):
            text = f'Filter "{item["filter"]}" should start with "filter:tasks:"'
            fault = {"filters": [{"column": [text]}]}
            raise RefusedError(400, "Validation error", {"filter_group": fault})
    rest = {key: value for key, value in data.items() if key not in ("filters", "ordering")}
    return rest, filters, data.get("ordering")
