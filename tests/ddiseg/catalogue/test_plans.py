"""What SQLite looks at for a command: no row of the many, unless an index holds all that is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from ddiseg.catalogue import Catalogue
from ddiseg.workspace.image_record import describe
from ddiseg.workspace.status import lacks_photographs, status
from ddiseg.workspace.workspace import Workspace

#: Reading all rows of a table that has some for each image.
_SCAN = re.compile(
    r"SCAN (images|masks|events|thumbnails|sources|image_groups|descriptors|tasks|annotations)(_\d+)?"
    r"(?! USING COVERING INDEX)"
)


@contextmanager
def scans(catalogue: Catalogue) -> Iterator[list[str]]:
    """Collect the queries that read all rows of a large table."""
    engine, found = catalogue._database.engine, []

    def explain(
        _connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        if not many and statement.startswith(("SELECT", "WITH")):
            plan = cursor.connection.cursor()
            plan.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.extend(f"{row[3]}: {statement}" for row in plan if _SCAN.search(row[3]))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", explain)


#: What commands ask, by their names.
ASKED: dict[str, Callable[[Workspace], object]] = {
    "status": lambda w: (status(w.catalogue, "embedded"), lacks_photographs(w)),
    "show by name": lambda w: w.catalogue.images.find("clinic-a_0000007.png"),
    "show by path": lambda w: w.catalogue.images.find("part-07/clinic-a_0000007.png"),
    "show by name without ending": lambda w: w.catalogue.images.find("clinic-a_0000007"),
    "show in a dataset": lambda w: w.catalogue.images.find("clinic-a:clinic-a_0000007.png"),
    "record": lambda w: describe(w, w.catalogue.images.find("#7")),
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", ASKED)
def test_plan__reads_no_large_table(scale_workspace: Workspace, asked: str) -> None:
    with scans(scale_workspace.catalogue) as found:
        ASKED[asked](scale_workspace)
    assert found == []


@pytest.mark.slow
def test_scans__finds_one(scale_workspace: Workspace) -> None:
    with scans(scale_workspace.catalogue) as found:
        scale_workspace.catalogue.images.select()
    assert len(found) == 1


@pytest.mark.slow
def test_most_doubtful__in_the_order_of_the_index(scale_workspace: Workspace) -> None:
    """The first of a version are read off the index: nothing is sorted, and no other row is looked at."""
    catalogue = scale_workspace.catalogue
    with catalogue._database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE masks SET quality = uncertainty WHERE model_version_id IS NOT NULL"
        )
    plans: list[str] = []

    def explain(
        _connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> None:
        if "ORDER BY masks.quality" in statement:
            plan = cursor.connection.cursor()
            plan.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append("; ".join(row[3] for row in plan))

    event.listen(catalogue._database.engine, "before_cursor_execute", explain)
    try:
        assert len(catalogue.masks.most_doubtful(12)) == 12
    finally:
        event.remove(catalogue._database.engine, "before_cursor_execute", explain)
    [plan] = plans
    assert "ix_masks_by_quality (model_version_id=? AND quality>?)" in plan
    assert "TEMP B-TREE" not in plan
