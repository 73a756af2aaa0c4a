"""Ids that differ only in spelling, found by the database as by reading every row."""

from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import update

from ddiseg.catalogue import Catalogue, grouping
from ddiseg.catalogue.tables import Image
from tests.ddiseg.rows import new_image

pytestmark = pytest.mark.both_databases

#: As an older program may have stored them, too.
_SPELLINGS = [
    *("Anna", "anna", "ANNA ", "an na", "ANN", "\uff21nna", "ann\u200ba", "Jos\u00e9", "Jose\u0301", "JOSE"),
    *("7", "007", "17", "17.0", "0017,00", "170", "7.", "\uff17", "0", "00", "0.0", ".", "", "unknown"),
    *("A7", "a07", "a7.0", "I", "\u0131", "i", "\u212a", "k", "x%", "x_", "X\\", "~", "!"),
]  # fmt: skip


@pytest.fixture
def spelled(catalogue: Catalogue) -> Catalogue:
    """Images with each spelling as their patient, as their lesion, and as neither."""
    dataset = catalogue.images.dataset("clinic").id
    count = 2 * len(_SPELLINGS) + 1
    catalogue.images.add(dataset, [new_image(n) for n in range(count)], "tester")
    with catalogue._database.write() as session:
        for n, spelling in enumerate(_SPELLINGS):
            for image_id, column in ((2 * n + 1, "patient"), (2 * n + 2, "lesion")):
                row = update(Image).where(Image.id == image_id)
                session.execute(row.values({column: spelling}))
    return catalogue


def test_rows_spelled_like__as_by_reading_every_row(
    spelled: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        ({each} if of_patient else set(), set() if of_patient else {each})
        for each, of_patient in product(_SPELLINGS, (True, False))
        if each.strip("., ") and each != "unknown"
    ]
    asked.append(({"Anna", "17"}, {"7", "Jos\u00e9"}))
    found = [list(spelled.grouping.rows_spelled_like(*ids)) for ids in asked]
    monkeypatch.setattr(grouping, "MANY_IDS", -1)
    assert found == [list(spelled.grouping.rows_spelled_like(*ids)) for ids in asked]


def test_rows_spelled_like__case_width_zeros_and_spaces(spelled: Catalogue) -> None:
    patients = [row.patient for row in spelled.grouping.rows_spelled_like({"anna"}, set())]
    assert patients == ["Anna", "anna", "ANNA ", "an na", "\uff21nna", "ann\u200ba"]
    lesions = [row.lesion for row in spelled.grouping.rows_spelled_like(set(), {"17"})]
    assert lesions == ["17", "17.0", "0017,00"]
    assert not list(spelled.grouping.rows_spelled_like(set(), set()))
