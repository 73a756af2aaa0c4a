"""Reproduction of the FEDD paper's experiments: tables and figures, ours compared with the paper's.

A `Plan` lists the cells, `split` divides the photographs, a `Workbench` computes a cell, `run_cells`
computes the missing ones and `write_report` writes tables and figures.
"""

from fedd.reproduce.cells import PlanOutcome, Workbench, run_cells
from fedd.reproduce.plan import Cell, Plan, Starts, paper_plan
from fedd.reproduce.report import write_report
from fedd.reproduce.small import small_plan, write_phantoms
from fedd.reproduce.split import ImageSet, PaperSplit, split

__all__ = [
    "Cell",
    "ImageSet",
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
