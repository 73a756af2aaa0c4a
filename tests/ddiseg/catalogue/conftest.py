"""One image at work on a labelling server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ddiseg.catalogue.masks import ACCEPT
from tests.ddiseg.catalogue.desk import ANNOTATOR, REVIEWER, Desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Image #1 in the hands of annotators; see `Desk`."""
    made = Desk.in_memory()
    yield made
    made.catalogue.close()


@pytest.fixture
def submitted(desk: Desk) -> int:
    """The number of an annotation whose mask is in review."""
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    return number


@pytest.fixture
def accepted(desk: Desk, submitted: int) -> int:
    """The number of an annotation whose mask is accepted."""
    desk.review(REVIEWER, ACCEPT)
    return submitted
