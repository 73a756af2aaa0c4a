"""Masks that are labelled in part: how much of them, and for which images overlaps are not defined."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from annotation_protocol import load_protocol, metrics
from ddiseg import masks
from ddiseg.outcomes import counted


@dataclass
class PartialMasks:
    """The masks labelled in part, of those that are compared."""

    compared: int = 0  #: all that were compared
    shares: list[float] = field(
        default_factory=list
    )  #: labelled pixels of each partial mask, 0 to 1
    one_class: dict[str, set[int]] = field(
        default_factory=dict
    )  #: image ids by the class labelled alone

    def count(self, mask: masks.Mask) -> None:
        self.compared += 1
        if unlabelled := masks.count_unlabelled(mask):
            self.shares.append(1 - unlabelled / mask.size)

    def defines_overlaps(
        self, image_id: int, mask: masks.Mask, other: masks.Mask | None = None
    ) -> bool:
        """Return whether IoU and Dice with a mask are defined, and count its image where not.

        They are not where the pixels that are compared hold one class only, as all others are unlabelled.

        Args:
            image_id: the image of the masks.
            mask: (H, W) uint8 class ids.
            other: the mask that it is compared with, where that may be partial too: (H, W).
        """
        if not metrics.labels_one_class(mask, other):
            return True
        found = masks.classes_in(mask)
        name = load_protocol().classes[found[0]].name if len(found) == 1 else ""
        self.one_class.setdefault(name, set()).add(image_id)
        return False

    def notes(self) -> list[str]:
        """Return what share of the pixels is labelled, and how many images have no overlaps."""
        lines = []
        if self.shares:
            are = "is" if len(self.shares) == 1 else "are"
            lines.append(
                f"{len(self.shares)} of {counted(self.compared, 'mask')} {are} labelled in part, on average "
                f"{np.mean(self.shares):.0%} of the pixels; the others are not compared"
            )
        for name, ids in sorted(self.one_class.items()):
            why = f"{name} alone is labelled" if name else "one class at most is compared"
            lines.append(
                f"{counted(len(ids), 'image')}: {why}, so its IoU is not defined (a false positive can't count)"
            )
        return lines
