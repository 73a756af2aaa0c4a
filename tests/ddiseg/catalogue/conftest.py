"""One image at work on a labelling server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ddiseg.catalogue.desk import Desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Image #1 in the hands of annotators; see `Desk`."""
    made = Desk.in_memory()
    yield made
    made.catalogue.close()
