"""What the model's painting does to people: what they keep of it, their time, whether they still look.

Counted are accepted masks that were drawn on a labelling server. Prediction and accepted mask are
compared at the accepted mask's size, to which the prediction is stretched: so people saw it.
Intervals are 95 % bootstrap intervals over patients; a figure that has none is not given at all.
"""

from ddiseg.work.arms import Arms, Group
from ddiseg.work.drift import SHOWN, WITHHELD, Drift, Halves, Period
from ddiseg.work.report import WorkReport, work_report
from ddiseg.work.rows import COMPARED, EDITS, SECONDS, Measure
from ddiseg.work.samples import RESAMPLES, Difference, Figure

__all__ = [
    "COMPARED",
    "EDITS",
    "RESAMPLES",
    "SECONDS",
    "SHOWN",
    "WITHHELD",
    "Arms",
    "Difference",
    "Drift",
    "Figure",
    "Group",
    "Halves",
    "Measure",
    "Period",
    "WorkReport",
    "work_report",
]
