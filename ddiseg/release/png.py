"""Palette PNG masks and their photographs, with a table of all metadata.

masks/NAME.png    class ids as palette indices, at the photograph's size; 255 is unlabelled
images/NAME.png   the photograph, where photographs are exported
metadata.csv      one row an image
classes.json      what each class id means
"""

from __future__ import annotations

import json
from pathlib import Path

from annotation_protocol import UNLABELLED, UNLABELLED_NAME
from ddiseg import masks
from ddiseg.outcomes import Progress
from ddiseg.release.items import ReleaseItem
from ddiseg.release.layout import export_pairs
from ddiseg.release.release import Release
from ddiseg.release.summary import ExportSummary


def export(release: Release, target: Path, *, images: bool, progress: Progress) -> ExportSummary:
    """Write the release into `target`, an existing empty folder."""
    palette = release.protocol.palette()

    def write_mask(path: Path, item: ReleaseItem, mask: masks.Mask) -> None:
        path.write_bytes(masks.encode_png(release.over(item, mask), palette))

    (target / "classes.json").write_text(_classes(release), "utf-8")
    return export_pairs(
        release, target, "masks/{}.png", write_mask, images=images, progress=progress
    )


def _classes(release: Release) -> str:
    protocol = release.protocol
    return json.dumps(
        {
            "protocol": protocol.version,
            "background": protocol.hole_fill,
            UNLABELLED_NAME: UNLABELLED,
            "classes": [
                {"id": c.index, "name": c.name, "colour": c.colour, "definition": c.definition}
                for c in protocol.classes
            ],
        },
        indent=1,
    )
