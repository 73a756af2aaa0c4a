"""A `WorkReport` in words and tables: the same on the command line and on the report page.

No number stands here without its n and its interval; one that has none is "too few".
"""

from __future__ import annotations

from ddiseg.work import WorkReport
from ddiseg.work_summary.findings import Finding, Line, Part, overview, parts
from ddiseg.work_summary.tables import Row, Table, tables

#: How the numbers are to be read.
LEGEND = (
    "Square brackets hold 95 % intervals, from a bootstrap over patients. Where fewer masks than the "
    "row has could be measured, n=9/8 says that 9 images of 8 patients were."
)


def sentences(report: WorkReport) -> list[str]:
    """What the report comes to, a sentence a finding, and what is missing or was left out."""
    found = overview(report)
    for part in parts(report):
        found.append(f"{part.title}:")
        found += [
            f"  {finding.heading}, {line.scope}: {line.text}"
            for finding in part.findings
            for line in finding.lines
        ]
        found += [f"  {line}" for line in (*part.missing, *part.notes)]
    return found


__all__ = [
    "LEGEND",
    "Finding",
    "Line",
    "Part",
    "Row",
    "Table",
    "overview",
    "parts",
    "sentences",
    "tables",
]
