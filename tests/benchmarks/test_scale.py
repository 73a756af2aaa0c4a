"""Made-up catalogues of a size."""

from __future__ import annotations

import pytest

from benchmarks.scale import Measured, _exponent
from ddiseg.catalogue import State
from ddiseg.catalogue.tables import Base
from ddiseg.sampling.leaks import find_leaks
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.scale import SCALE


@pytest.mark.slow
def test_make_workspace__rows_are_consistent(scale_workspace: Workspace) -> None:
    catalogue = scale_workspace.catalogue
    checked = verify(scale_workspace)
    assert not checked.problems
    with catalogue._database.read() as session:
        broken = session.connection().exec_driver_sql("PRAGMA foreign_key_check").all()
        empty = [
            table.name
            for table in Base.metadata.sorted_tables
            if not session.execute(table.select().limit(1)).all()
        ]
    assert not broken
    assert not {"images", "masks", "events", "thumbnails", "descriptors", "annotations"} & {*empty}
    assert not find_leaks(catalogue)
    accepted = sum(
        n for (_, state), n in catalogue.images.counts().items() if state == State.ACCEPTED
    )
    assert accepted == len(catalogue.masks.accepted()) == SCALE // 10
    assert [v.name for v in catalogue.models.all()] == ["fedd-1", "fedd-2", "fedd-3"]


def test_exponent__linear_and_flat() -> None:
    small, large = Measured(1, 1, 1, 0), Measured(9, 10, 1, 0)
    assert _exponent((10, small), (100, large)) == "1.00"
    assert _exponent((10, small), (100, small)) == "0.00"
    assert _exponent((10, small), (100, Measured(300, 300, 1, None))) == ""
    assert _exponent(None, (10, small)) == ""
