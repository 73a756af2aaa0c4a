"""The experiments of the FEDD paper, run anew: every table and figure, ours beside the paper's.

A `Plan` says which cells there are, `split` which photographs each sees, a `Workbench` runs them,
`run_cells` runs what is not done yet and `write_report` makes the tables and figures.
"""

from fedd.reproduce.cells import PlanOutcome, Workbench, run_cells
from fedd.reproduce.plan import Cell, Plan, Starts, paper_plan
from fedd.reproduce.report import write_report
from fedd.reproduce.small import small_plan, write_phantoms
from fedd.reproduce.split import PaperSplit, split

__all__ = [
    "Cell",
    "PaperSplit",
    "Plan",
    "PlanOutcome",
    "Starts",
    "Workbench",
    "paper_plan",
    "run_cells",
    "small_plan",
    "split",
    "write_phantoms",
    "write_report",
]
