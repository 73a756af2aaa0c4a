"""Text that PostgreSQL refuses is refused by every catalogue, before anything is stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ddiseg.catalogue import Catalogue, Details
from ddiseg.catalogue.storable import text_fault
from ddiseg.catalogue.tables import Dataset, Review
from ddiseg.errors import InputError
from tests.ddiseg.rows import new_image, new_mask
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases

LONG, NUL, SURROGATE = "x" * 201, "a\0b", "a\ud800b"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("x" * 200, True),
        ("\U0001f600" * 200, True),
        (LONG, False),
        (NUL, False),
        (SURROGATE, False),
    ],
)
def test_text_fault(text: str, fits: bool) -> None:
    assert (text_fault(Dataset.name, text) is None) == fits
    assert (text_fault(Review.comment, text) is None) == (fits or text == LONG)


def _dataset(catalogue: Catalogue, text: str) -> None:
    catalogue.images.dataset(text)


def _image(catalogue: Catalogue, text: str) -> None:
    catalogue.images.add(1, [new_image(3), new_image(4, diagnosis=text)], "tester")


def _details(catalogue: Catalogue, text: str) -> None:
    catalogue.images.update_details([1, 2], [Details(lesion="l"), Details(patient=text)], "tester")


def _mask(catalogue: Catalogue, text: str) -> None:
    catalogue.masks.submit([new_mask(1, "anna"), new_mask(2, text)])


def _skip(catalogue: Catalogue, text: str) -> None:
    catalogue.images.skip(1, "blurry", text * 200, "anna" + text)


@pytest.mark.parametrize("text", [LONG, NUL, SURROGATE], ids=["long", "nul", "surrogate"])
@pytest.mark.parametrize("store", [_dataset, _image, _details, _mask, _skip])
def test_write__refused_before_anything_is_stored(
    catalogue: Catalogue, store: Callable[[Catalogue, str], None], text: str, refusal: Refusal
) -> None:
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(1), new_image(2)], "tester")
    before = catalogue.events.count(), [vars(each).copy() for each in catalogue.images.select()]
    with refusal(InputError):
        store(catalogue, text)
    after = catalogue.events.count(), [vars(each).copy() for each in catalogue.images.select()]
    for _, images in (before, after):
        for each in images:
            each.pop("_sa_instance_state")
    assert after == before
    assert [each.name for each in catalogue.images.datasets()] == ["clinic"]
