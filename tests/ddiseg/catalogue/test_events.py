"""The event log, and what contradicts it."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from ddiseg.catalogue import Catalogue
from tests.ddiseg.rows import new_image, new_mask

pytestmark = pytest.mark.both_databases


@pytest.fixture
def worked(catalogue: Catalogue) -> Catalogue:
    """#1 accepted, #2 skipped, #3 new, #4 submitted."""
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in (1, 2, 3, 4)], "tester")
    catalogue.masks.submit([new_mask(1, "anna")], "ben")
    catalogue.images.skip(2, "scalp", None, "anna")
    catalogue.masks.submit([new_mask(4, "anna")])
    return catalogue


def test_contradictions__none_after_work(worked: Catalogue) -> None:
    assert worked.events.contradictions() == []


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        (
            "UPDATE images SET state = 'submitted' WHERE id = 3",
            [
                "000003.png (#3) is submitted, its events end at new",
                "000003.png (#3) is submitted, but has no mask in review",
            ],
        ),
        (
            "UPDATE images SET state = 'accepted' WHERE id = 3",
            [
                "000003.png (#3) is accepted, its events end at new",
                "000003.png (#3) is accepted, but has no accepted mask",
            ],
        ),
        (
            "DELETE FROM acceptances",
            ["000001.png (#1) is accepted, but has no accepted mask"],
        ),
        (
            "INSERT INTO acceptances VALUES (3, 1)",
            ["000003.png (#3) is new, but has an accepted mask"],
        ),
        (
            "DELETE FROM submissions",
            ["000004.png (#4) is submitted, but has no mask in review"],
        ),
        (
            "INSERT INTO submissions VALUES (2, 1)",
            ["000002.png (#2) is skipped, but has a mask in review"],
        ),
        (
            "DELETE FROM events WHERE kind = 'submit' AND image_id = 1",
            ["image #1: event 6 starts from submitted, but the event before it ended at new"],
        ),
        (
            "DELETE FROM events WHERE image_id = 2",
            ["000002.png (#2) is skipped, its events end at None"],
        ),
    ],
)
def test_contradictions__tampered_row(worked: Catalogue, tampering: str, found: list[str]) -> None:
    with worked._database.write() as session:
        session.execute(text(tampering))
    assert worked.events.contradictions() == found


def test_record_and_last(catalogue: Catalogue) -> None:
    assert catalogue.events.last("export") is None
    catalogue.events.record("export", "anna", {"format": "coco"})
    catalogue.events.record("export", "anna", {"format": "png"})
    last = catalogue.events.last("export")
    assert last is not None
    assert last.detail == {"format": "png"}
    assert catalogue.events.count() == 2
