"""Captions of the figures of a reproduction; they are the alternative texts of the page too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedd.malignancy.classifier import DISCLAIMER
from fedd.reproduce.plan import SEGMENTATION
from fedd.reproduce.scores import ModelScore

#: The axis of the fractions.
SHARE = "share of DDI used for training"

FIGURE1 = "The paper's figure 1: photographs by tone, and malignant ones by diagnosis. Bars: in your folder."
FIGURE4 = f"The paper's figure 4: IoU on the test by {SHARE}. Above, the mean over the classes; below, the lesion."
FIGURE5 = (
    "The paper's figure 5: photographs of each tone with their true masks, and the predicted ones of each "
    "fraction, first seed."
)
NEXT_BEST = (
    "{} has the highest mean IoU on the validation split of all but FEDD, at the largest fraction."
)
FIGURE7 = (
    f"The paper's figure 7, accuracy and ROC-AUC by {SHARE}: above, on the balanced test that it shows; "
    "below, on all remaining photographs."
)
BY_TONE = f"Accuracy at 0.5 and ROC-AUC on all remaining photographs, by {SHARE} and by tone."
ROC = f"ROC curves on the balanced test by {SHARE}, first seed."
SUPPLEMENT1 = (
    "The supplement's figure 1: activations of the blocks at t = 100 (above, mean over the channels) and "
    "their K-means clusters, K = 3 (below)."
)
SUPPLEMENT2 = "The supplement's figure 2: ROC curves on the balanced test, first seed."
F1 = "Supplementary table 2: F1 by tone at the threshold of Youden's J of the test."
COSTS = "Seconds and peak memory of a cell; each dot is one."
RESEARCH = f"Output of the classifiers is {DISCLAIMER}."

_ACCURACY6 = "The paper's figure 6: accuracy at probability 0.5 of each block at each timestep, {}."
_OTHER6 = "{} of each block at each timestep, {}; the paper's figure 6 shows accuracy only."
_BOLD6 = "Bold: the block that was best in the paper."


def marks(shown: Sequence[ModelScore]) -> str:
    """Return what the marks of these scores are, and whether they have intervals."""
    known = [s for s in shown if s.value is not None]
    without = sum(s.low is None for s in known)
    ours = "with 95 % intervals"
    if known and without == len(known):
        ours = "no interval: too few patients"
    elif without:
        ours += "; a mark without one has no interval: too few patients"
    if any(s.paper is not None for s in shown):
        return f"Filled: ours, {ours}. Hollow: the paper's."
    return f"Ours, {ours}."


def figure6(path: Path, *, paper: bool) -> str:
    """Return the caption of a heat map; with `paper`, the paper's blocks are marked where it has the metric."""
    where = "on the validation split"
    if path.stem.endswith("-test"):
        where = "on the balanced test, as in the paper"
    best = "The best block is derived on the validation split."
    if SEGMENTATION in path.stem:
        return f"{_OTHER6.format('IoU of the lesion', where)} {best}"
    if "roc-auc" in path.stem:
        return f"{_OTHER6.format('ROC-AUC', where.removesuffix(', as in the paper'))} {best} {RESEARCH}"
    bold = f" {_BOLD6}" if paper and not path.stem.endswith("by-tone") else ""
    return f"{_ACCURACY6.format(where)}{bold} {best} {RESEARCH}"
