"""Running a plan: every cell that is not done yet."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from fedd.baselines.packages import baselines_problem
from fedd.errors import FeddError
from fedd.reproduce.cells import Workbench
from fedd.reproduce.plan import FEDD, Cell, chosen
from fedd.reproduce.results import Result, Results

#: Called with a cell, its number from 1, how many there are, and what becomes of it.
Report = Callable[[Cell, int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """What became of the cells of a plan."""

    done: list[Result]  #: of this run and earlier ones
    ran: list[Cell]  #: in this run
    left_out: dict[Cell, str]  #: not asked for
    unavailable: dict[Cell, str]  #: asked for, but a package that they need is missing or broken
    failed: dict[Cell, str]  #: run without a result, with the reason

    @property
    def missing(self) -> dict[Cell, str]:
        """All cells without a result, with the reason."""
        return {**self.left_out, **self.unavailable, **self.failed}


def run_cells(
    workbench: Workbench,
    folder: Path,
    only: Collection[str] = (),
    report: Report = lambda cell, number, total, what: None,
) -> Outcome:
    """Run the cells of the plan that `folder` lacks, those named in `only`.

    Writes `cells/CELL.json` as each is done. A cell that can't be run does not stop the others;
    without the extra `[baselines]` FEDD's cells are run. Raises ReproductionError where `folder`
    holds cells that were made with other settings, photographs or weights.
    """
    cells = workbench.plan.cells
    asked = set(chosen(cells, only))
    store = Results(folder / "cells")
    # All are looked at before any is run: a refusal comes at once, not after hours.
    found = {cell: store.get(cell, workbench.made_with(cell)) for cell in cells}
    lacking = baselines_problem()
    outcome = Outcome([result for result in found.values() if result is not None], [], {}, {}, {})
    for number, cell in enumerate(cells, 1):
        if found[cell] is not None:
            report(cell, number, len(cells), "done before")
        elif cell not in asked:
            outcome.left_out[cell] = "not asked for (--only)"
        elif lacking and cell.model != FEDD:
            outcome.unavailable[cell] = lacking
        else:
            report(cell, number, len(cells), "running")
            try:
                result = workbench.run(cell)
            except FeddError as error:
                outcome.failed[cell] = str(error)
                report(cell, number, len(cells), f"failed: {error}")
                continue
            store.put(result, workbench.made_with(cell))
            outcome.done.append(result)
            outcome.ran.append(cell)
    return outcome
