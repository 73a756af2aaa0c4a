"""Masks of two styles among those of a training: one annotator's lesions are clearly larger than others'.

Where two people masked the same photographs, their masks are compared. Elsewhere each annotator's masks
are compared with predictions of members that did not learn from them, which are the same model for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from annotation_protocol import load_protocol
from annotation_protocol.estimates import Sample, difference
from annotation_protocol.intervals import Scale
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from fedd.probes.own_masks import OwnMask

#: A smaller ratio of areas is no other style.
SMALLEST_RATIO = 1.2

#: Photographs that are compared of two people.
MOST_READ = 60


@dataclass(frozen=True)
class Style:
    """How much larger one annotator draws the lesion than the others do, as a ratio of areas."""

    annotator: str
    ratio: float
    interval: tuple[float, float]  #: 95 %, over patients
    n: tuple[int, int]  #: masks of this annotator and of the others
    read_by_both: bool  #: compared on the same photographs

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "interval": list(self.interval), "n": list(self.n)}


def style_text(stored: Mapping[str, Any], who: str) -> str:
    """Return a stored style as a sentence about `who`."""
    low, high = stored["interval"]
    own, others = stored["n"]
    how = (
        f"on n = {own} photographs that another annotator masked, too"
        if stored["read_by_both"]
        else f"beside predictions that did not learn from them (n = {own} masks, {others} of others; "
        "their photographs may differ, too)"
    )
    return (
        f"masks of two styles: {who} draws lesions {stored['ratio']:.2f} times [{low:.2f}, {high:.2f}] "
        f"as large as others do, {how}; the model learns something between, so agree on how wide a "
        "lesion is drawn"
    )


def find_styles(
    workspace: Workspace,
    pairs: Sequence[tuple[Image, Mask]],
    groups: Groups,
    own: Mapping[int, OwnMask],
) -> list[Style]:
    """Return the clearest difference of style between annotators of accepted masks; empty without any.

    Args:
        pairs: the images of a training with their accepted masks.
        own: predictions beside accepted masks, by image id.
    """
    annotators = sorted({mask.annotator for _, mask in pairs if mask.annotator is not None})
    if len(annotators) < 2:
        return []
    found = _read_by_both(workspace, annotators, groups) or _unseen(pairs, annotators, groups, own)
    return sorted(found, key=lambda style: -abs(math.log(style.ratio)))[:1]


def _read_by_both(workspace: Workspace, annotators: Sequence[str], groups: Groups) -> list[Style]:
    lesion = load_protocol().class_named("lesion").index
    readings = workspace.catalogue.tasks.readings()
    images = {image.id: image for image in workspace.catalogue.images.select(ids=list(readings))}
    styles = []
    for one, other in combinations(annotators, 2):
        both: list[tuple[Image, float]] = []
        for image_id, masks in readings.items():
            by_name = {mask.annotator: mask for mask in masks}
            if one not in by_name or other not in by_name or len(both) == MOST_READ:
                continue
            image = images[image_id]
            areas = [
                np.count_nonzero(workspace.mask_over(image, by_name[name]) == lesion)
                for name in (one, other)
            ]
            if all(areas):
                both.append((image, math.log(areas[0] / areas[1])))
        keys = groups.keys([image for image, _ in both])
        estimate = Sample([value for _, value in both], keys, scale=Scale.SIGNED).estimate()
        sizes = len(both), len(both)
        styles += _style(one, estimate.value, estimate.interval, sizes, read_by_both=True)
    return styles


def _unseen(
    pairs: Sequence[tuple[Image, Mask]],
    annotators: Sequence[str],
    groups: Groups,
    own: Mapping[int, OwnMask],
) -> list[Style]:
    compared = [
        (image, mask.annotator, math.log(each.accepted / each.predicted))
        for image, mask in pairs
        if (each := own.get(image.id)) is not None and each.accepted and each.predicted
    ]
    keys = groups.keys([image for image, _, _ in compared])
    styles = []
    # Of two annotators, each differs from the other alike.
    for name in annotators if len(annotators) > 2 else annotators[:1]:
        samples = []
        for is_own in (True, False):
            rows = [at for at, row in enumerate(compared) if (row[1] == name) is is_own]
            values = [compared[at][2] for at in rows]
            samples.append(Sample(values, [keys[at] for at in rows], scale=Scale.SIGNED))
        found = difference(samples[0], samples[1])
        sizes = samples[0].n, samples[1].n
        styles += _style(name, found.value, found.interval, sizes, read_by_both=False)
    return styles


def _style(
    annotator: str,
    logarithm: float | None,
    interval: tuple[float, float] | None,
    n: tuple[int, int],
    *,
    read_by_both: bool,
) -> list[Style]:
    """Return the style of a ratio's logarithm where it is clear and large enough, else nothing."""
    if logarithm is None or interval is None or interval[0] <= 0 <= interval[1]:
        return []
    if abs(logarithm) < math.log(SMALLEST_RATIO):
        return []
    low, high = (math.exp(end) for end in interval)
    return [Style(annotator, math.exp(logarithm), (low, high), n, read_by_both)]
