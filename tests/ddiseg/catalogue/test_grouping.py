"""What the ids of a dataset are unique within."""

from __future__ import annotations

import pytest

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.linking import IdScope
from ddiseg.errors import NotFoundError
from tests.ddiseg.rows import new_image
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases


@pytest.fixture
def datasets(catalogue: Catalogue) -> Catalogue:
    for name in "abcd":
        catalogue.images.dataset(name)
    return catalogue


def _together(catalogue: Catalogue) -> set[str]:
    """Return the datasets that share patients: {"ab", "c", "d"}."""
    names = {row.id: row.name for row in catalogue.images.datasets()}
    scopes = catalogue.grouping.scopes()
    values = {scope.patients for scope in scopes.values()}
    return {
        "".join(names[i] for i, scope in scopes.items() if scope.patients == value)
        for value in values
    }


def test_scopes__by_default_each_dataset_has_its_own(datasets: Catalogue) -> None:
    assert list(datasets.grouping.scopes().values()) == [IdScope(name) for name in "abcd"]


def test_share__joins_all_that_share_already(datasets: Catalogue) -> None:
    share = datasets.grouping.share_patients
    assert share("b", "a", "tester")
    assert share("d", "c", "tester")
    assert share("a", "c", "tester")
    assert _together(datasets) == {"abcd"}


def test_share__twice_changes_nothing(datasets: Catalogue) -> None:
    assert datasets.grouping.share_patients("b", "a", "tester")
    events = datasets.events.count()
    assert not datasets.grouping.share_patients("b", "a", "tester")
    assert not datasets.grouping.share_patients("a", "b", "tester")
    assert not datasets.grouping.share_patients("c", "c", "tester")
    assert datasets.events.count() == events


@pytest.mark.parametrize("leaving", ["a", "b", "c"])
def test_share__with_itself_leaves_the_others_together(datasets: Catalogue, leaving: str) -> None:
    for name in "bc":
        datasets.grouping.share_patients(name, "a", "tester")
    assert datasets.grouping.share_patients(leaving, leaving, "tester")
    rest = "abc".replace(leaving, "")
    assert _together(datasets) == {leaving, rest, "d"}


def test_share__with_a_dataset_that_is_not_there(datasets: Catalogue, refusal: Refusal) -> None:
    with refusal(NotFoundError):
        datasets.grouping.share_patients("a", "nowhere", "tester")


def test_rows__of_all_images(catalogue: Catalogue) -> None:
    dataset = catalogue.images.dataset("a")
    catalogue.images.add(
        dataset.id, [new_image(1, patient="p", lesion="x"), new_image(2)], "tester"
    )
    rows = catalogue.grouping.rows()
    assert [(row.id, row.dataset_id, row.patient, row.lesion) for row in rows] == [
        (1, dataset.id, "p", "x"),
        (2, dataset.id, None, None),
    ]
    images = catalogue.images.select()
    assert [row.content_hash for row in rows] == [image.content_hash for image in images]
