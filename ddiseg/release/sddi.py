"""The layout of sDDI, the published FEDD masks: one `.npy` an image, named after it.

    labels/NAME.npy   (256, 256) int32 class ids; the photograph stretched to a square
    images/NAME.png   the photograph at its own size, where photographs are exported
    metadata.csv      one row an image

Class ids are those of sDDI: 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin. A mask that is
256 x 256 is exported unchanged; any other is stretched, each pixel taking its nearest class. An image
with unlabelled pixels is left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddiseg import masks
from ddiseg.errors import InputError
from ddiseg.outcomes import Progress
from ddiseg.release.items import ReleaseItem
from ddiseg.release.layout import export_pairs
from ddiseg.release.release import Release
from ddiseg.release.summary import ExportSummary

SIDE = 256


def export(release: Release, target: Path, *, images: bool, progress: Progress) -> ExportSummary:
    """Write the release into `target`, an existing empty folder."""

    def write_mask(path: Path, item: ReleaseItem, mask: masks.Mask) -> None:
        if item.mask.unlabelled:
            raise InputError(
                "some of its pixels are unlabelled, which sDDI has no value for: give them a class, or "
                "export it with --format png or coco"
            )
        np.save(path, masks.stretch(mask, (SIDE, SIDE)).astype(np.int32), allow_pickle=False)

    return export_pairs(
        release, target, "labels/{}.npy", write_mask, images=images, progress=progress
    )
