"""A server, the people on it, and short ways to fill it and to ask it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fake_label_studio import FakeLabelStudio, label_studio
from tests.fake_label_studio.conversation import CONFIG, region
from tests.fake_label_studio.talk import Talk, filters

__all__ = ["label_studio"]

IMPORT = "/api/projects/1/import"


@pytest.fixture
def talk(label_studio: FakeLabelStudio) -> Talk:
    """The administrator, with project 1 made and nothing in it."""
    talk = Talk(label_studio.url, label_studio.token)
    talk.ask("POST", "/api/projects/", {"title": "masks", "label_config": CONFIG})
    return talk


@pytest.fixture
def annotator(label_studio: FakeLabelStudio) -> int:
    return label_studio.add_user("annotator-1@example.org")


def items(*keys: str) -> list[dict[str, Any]]:
    """Tasks to import, with these keys in their data and one prediction each."""
    prediction = {"model_version": "m1", "score": 0.5, "result": [region()]}
    return [{"data": {"image": "x", "key": key}, "predictions": [prediction]} for key in keys]


def push(talk: Talk, *keys: str) -> list[int]:
    """Import tasks with these keys; returns their numbers."""
    answer = talk.ask("POST", IMPORT, items(*keys), return_task_ids="true")
    return list(answer["task_ids"])


def where(column: str, operator: str, kind: str, value: Any) -> str:
    """The `query` parameter for one filter, by number."""
    condition = (column, operator, kind, value)
    return json.dumps({"filters": filters(condition), "ordering": ["tasks:id"]})


def changed_since(talk: Talk, time: str) -> list[int]:
    query = where("updated_at", "greater", "Datetime", time)
    return [t["id"] for t in talk.ask("GET", "/api/tasks", project=1, query=query)["tasks"]]
