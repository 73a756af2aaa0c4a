"""`ddiseg datasets`: facts about datasets, and their correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ddiseg.workspace.workspace import Workspace

Run = Callable[..., Any]


@pytest.fixture
def datasets(ddiseg: Run, filled: Workspace) -> Run:
    return lambda *words: ddiseg("--workspace", filled.root, "datasets", *words)


def test_set__each_change_is_an_event(datasets: Run, filled: Workspace) -> None:
    name = filled.catalogue.images.datasets()[0].name
    before = filled.catalogue.events.count()
    result = datasets("set", name, "--licence", "CC0", "--synthetic", "--output", "json")
    assert result.json["changed"] == ["licence", "synthetic"]
    assert filled.catalogue.events.count() == before + 2
    event = filled.catalogue.events.last("dataset")
    assert event is not None
    assert event.detail == {"dataset": name, "synthetic": [False, True]}
    assert datasets("set", name, "--licence", "CC0", "--output", "json").json["changed"] == []
    (row,) = datasets("list", "--output", "json").json["datasets"]
    assert (row["licence"], row["synthetic"]) == ("CC0", True)
    assert row["n"] == len(filled.catalogue.images.select())
    assert "CC0" in datasets("list").out


def test_set__what_can_not_be_done(datasets: Run) -> None:
    assert datasets("set", "nowhere", "--licence", "CC0").status == 1
    assert datasets("set", "nowhere").status == 2
