"""The data manager's query language: filters, ordering, pages, and which fields are sent.

Its oddities are kept, as they bite: SQL's NULL makes every filter on a key of the data false for
a task without that key, the negative ones too; a time must be written with its fraction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from tests.fake_label_studio.routing import Call, CrashedError, RefusedError
from tests.fake_label_studio.rows import Task

Row = TypeVar("Row")

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

_COLUMNS: dict[str, Callable[[Task], Any]] = {
    "id": lambda t: t.id,
    "inner_id": lambda t: t.inner_id,
    "overlap": lambda t: t.overlap,
    "is_labeled": lambda t: t.is_labeled,
    "created_at": lambda t: t.created_at,
    "updated_at": lambda t: t.updated_at,
    "completed_at": lambda t: t.completed_at,
    "total_annotations": lambda t: len(t.submitted),
    "cancelled_annotations": lambda t: len(t.skipped),
    "total_predictions": lambda t: len(t.predictions),
    "draft_exists": lambda t: bool(t.drafts),
    "annotators": lambda t: {a.completed_by for a in t.annotations},
    "updated_by": lambda t: t.updated_by,
}


def select(tasks: Iterable[Task], query: dict[str, Any]) -> list[Task]:
    """The tasks that a query (filters, selectedItems, ordering) asks for, in its order.

    Raises CrashedError where the real server answers 500.
    """
    found = _filtered(list(tasks), query.get("filters"))
    chosen = query.get("selectedItems") or {}
    if chosen.get("all") is False and chosen.get("included"):
        found = [task for task in found if task.id in set(chosen["included"])]
    elif chosen.get("all") and chosen.get("excluded"):
        found = [task for task in found if task.id not in set(chosen["excluded"])]
    return _ordered(found, query.get("ordering") or ["tasks:id"])


def read_query(text: str) -> dict[str, Any]:
    """The `query` parameter; raises CrashedError where it is no JSON object."""
    try:
        query = json.loads(text)
    except ValueError as error:
        raise CrashedError(f"Unexpected character found when decoding: {error}") from error
    if not isinstance(query, dict):
        raise CrashedError(f"'{type(query).__name__}' object has no attribute 'get'")
    return query


def page(rows: Sequence[Row], call: Call, *, size: int, most: int | None) -> list[Row]:
    """One numbered page; raises RefusedError 404 past the last. Page 1 of nothing is empty."""
    asked = call.params.get("page_size", "")
    if asked.isdigit() and int(asked):
        size = int(asked) if most is None else min(int(asked), most)
    number = call.params.get("page", "1")
    start = (int(number) - 1) * size if number.isdigit() else -1
    if start < 0 or start >= max(len(rows), 1):
        raise RefusedError(404, "Invalid page.")
    return list(rows[start : start + size])


def projects_page(rows: Sequence[Row], call: Call) -> tuple[list[Row], dict[str, Any]]:
    """One page of projects, and what stands around it: count, next, previous."""
    shown = page(rows, call, size=30, most=100)
    number = int(call.params.get("page", "1"))
    start = next((i for i, row in enumerate(rows) if shown and row is shown[0]), 0)

    def link(other: int) -> str:
        return f"{call.base}{call.path}?{urlencode(sorted({**call.params, 'page': other}.items()))}"

    return shown, {
        "count": len(rows),
        "next": link(number + 1) if start + len(shown) < len(rows) else None,
        "previous": link(number - 1) if number > 1 else None,
    }


def fields(call: Call) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What `include` and `omit` leave of an object: a function to put it through.

    The task list puts its annotations through the same one: `include=id,annotations` cuts them to
    their id, so `result`, `completed_by` ... must be named beside the task's fields.
    """
    include = {name.split(".")[0] for name in call.names("include")}
    omit = {name for name in call.names("omit") if "." not in name}

    def cut(shown: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in shown.items()
            if key not in omit and (not include or key in include)
        }

    return cut


def _filtered(tasks: list[Task], filters: Any) -> list[Task]:
    if not filters:
        return tasks
    if "conjunction" not in filters:
        raise CrashedError(
            "1 validation error for PrepareParams\nfilters.conjunction\n  Field required"
        )
    conditions = [_condition(item) for item in filters["items"]]
    if conditions and filters["conjunction"] == "or":
        return [task for task in tasks if any(met(task) for met in conditions)]
    for met in conditions:
        tasks = [task for task in tasks if met(task)]
    return tasks


def _condition(item: dict[str, Any]) -> Callable[[Task], bool]:
    name, operator, kind, wanted = (item[key] for key in ("filter", "operator", "type", "value"))
    if wanted is None:
        raise CrashedError("6 validation errors for PrepareParams\nfilters.items.0.value.int")
    if not name.startswith("filter:tasks:"):
        raise CrashedError("reduce() of empty iterable with no initial value")
    value = _column(name.removeprefix("filter:tasks:"))
    if operator in ("in", "not_in"):
        low, high = _cast(wanted["min"], kind), _cast(wanted["max"], kind)
        return _known(value, lambda v: (low <= _like(v, kind) <= high) == (operator == "in"))
    if operator in ("in_list", "not_in_list"):
        listed = {_hashable(entry) for entry in wanted}
        is_id = name == "filter:tasks:id"
        listed |= {_hashable(int(e)) for e in wanted if is_id and isinstance(e, str)}
        return _known(value, lambda v: (_hashable(v) in listed) == (operator == "in_list"))
    if operator == "empty":
        want_empty = str(wanted).lower() == "true"
        return lambda task: (value(task) in (None, "")) == want_empty
    if operator in ("contains", "not_contains"):
        return _known(value, lambda v: _contains(v, wanted) == (operator == "contains"))
    right = _cast(wanted, kind)
    compare = _COMPARISONS.get(operator, _COMPARISONS["equal"])
    return _known(value, lambda v: compare(_like(v, kind), right))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equal": lambda a, b: _hashable(a) == _hashable(b),
    "not_equal": lambda a, b: _hashable(a) != _hashable(b),
    "greater": lambda a, b: bool(a > b),
    "greater_or_equal": lambda a, b: bool(a >= b),
    "less": lambda a, b: bool(a < b),
    "less_or_equal": lambda a, b: bool(a <= b),
}


def _column(name: str) -> Callable[[Task], Any]:
    if name.startswith("data."):
        key = name.removeprefix("data.")
        return lambda task: task.data.get(key)
    if name not in _COLUMNS:
        raise CrashedError(
            f"Cannot resolve keyword '{name}' into field. Choices are: {sorted(_COLUMNS)}"
        )
    return _COLUMNS[name]


def _known(value: Callable[[Task], Any], test: Callable[[Any], bool]) -> Callable[[Task], bool]:
    """A condition that NULL never meets."""

    def met(task: Task) -> bool:
        found = value(task)
        return found is not None and test(found)

    return met


def _cast(wanted: Any, kind: str) -> Any:
    """The value of a filter, as its type says; raises CrashedError as the real server's strptime does."""
    try:
        if kind == "Datetime":
            return datetime.strptime(wanted, _TIME).replace(tzinfo=UTC)
        if kind == "Number":
            return float(wanted)
    except ValueError as error:
        raise CrashedError(str(error)) from error
    if kind == "Boolean":
        return str(wanted).lower() == "true"
    return wanted


def _like(found: Any, kind: str) -> Any:
    """A task's value, in the form that the filter's value has."""
    if kind == "Number":
        return float(found)
    if isinstance(found, datetime) and kind != "Datetime":
        return found.strftime(_TIME)
    return found


def _contains(found: Any, wanted: Any) -> bool:
    """Of text, wherever it stands and in any case: "annotator-1" is in "annotator-10"."""
    if isinstance(found, set):
        return int(wanted) in found
    return str(wanted).lower() in str(found).lower()


def _hashable(value: Any) -> Any:
    """A value by which 1 and True differ, as in JSON."""
    return (isinstance(value, bool), value)


def _ordered(tasks: list[Task], ordering: Sequence[str]) -> list[Task]:
    """By the first of `ordering` only, unknown values last; equal ones by number."""
    name = ordering[0].replace("tasks:", "", 1)
    value = _column(name.removeprefix("-"))
    by_number = sorted(tasks, key=lambda task: task.id)
    known = [task for task in by_number if value(task) is not None]
    known.sort(key=lambda task: value(task), reverse=name.startswith("-"))
    return known + [task for task in by_number if value(task) is None]
