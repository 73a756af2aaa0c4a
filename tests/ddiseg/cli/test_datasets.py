"""`ddiseg datasets`: facts about datasets, and their correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Details, Split
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.rows import new_image

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


def test_set__patients_of_two_datasets(
    datasets: Run, filled: Workspace, wording: SnapshotAssertion
) -> None:
    """A hold-out set of one dataset, and the training split of another with the same patients."""
    catalogue = filled.catalogue
    (name,) = [row.name for row in catalogue.images.datasets()]
    (image, *_) = catalogue.images.select()
    catalogue.images.update_details([image.id], [Details(patient="1")], "tester")
    other = catalogue.images.dataset("archive")
    catalogue.images.add(other.id, [new_image(77, patient="1", lesion="x")], "tester")
    new = catalogue.images.select()[-1]
    catalogue.splits.decide({image.id: Split.HOLDOUT, new.id: Split.TRAINING})
    result = datasets("set", "archive", "--same-patients-as", name)
    assert result.out == wording
    again = datasets("set", "archive", "--same-patients-as", name, "--output", "json").json
    assert (again["changed"], again["leaks"], again["patient_scope"]) == ([], [], name)
    apart = datasets("set", "archive", "--same-patients-as", "archive", "--output", "json").json
    assert (apart["changed"], apart["patient_scope"]) == (["patients"], "archive")


def test_set__lesions_numbered_for_each_patient(
    datasets: Run, filled: Workspace, wording: SnapshotAssertion
) -> None:
    name = filled.catalogue.images.datasets()[0].name
    assert datasets("set", name, "--lesion-ids", "patient").out == wording
    (scope,) = filled.catalogue.grouping.scopes().values()
    assert scope.lesions_per_patient
    (row,) = datasets("list", "--output", "json").json["datasets"]
    assert row["lesion_ids"] == "patient"


def test_set__what_can_not_be_done(datasets: Run, filled: Workspace) -> None:
    name = filled.catalogue.images.datasets()[0].name
    assert datasets("set", name, "--same-patients-as", "nowhere", "--licence", "new").status == 1
    assert filled.catalogue.images.datasets()[0].licence != "new", "all or nothing"
    assert datasets("set", "nowhere", "--licence", "CC0").status == 1
    assert datasets("set", "nowhere").status == 2
