"""The experiments of the FEDD paper, run anew: every table and figure, ours beside the paper's.

A `Plan` says which cells there are, `split` which photographs each sees, a `Workbench` runs them,
`run_cells` runs what is not done yet and `write_report` makes the tables and figures.
"""

from fedd.reproduce.cells import Workbench
from fedd.reproduce.parts import Parts, split
from fedd.reproduce.plan import Cell, Plan, Starts, paper_plan
from fedd.reproduce.report import write_report
from fedd.reproduce.run import Outcome, run_cells
from fedd.reproduce.small import small_plan, write_phantoms

__all__ = [
    "Cell",
    "Outcome",
    "Parts",
    "Plan",
    "Starts",
    "Workbench",
    "paper_plan",
    "run_cells",
    "small_plan",
    "split",
    "write_phantoms",
    "write_report",
]
