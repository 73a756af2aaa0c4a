"""Palette PNG masks beside their photographs, with a table of all that is known.

masks/NAME.png    class ids as palette indices, at the photograph's size
images/NAME.png   the photograph, where photographs go out
metadata.csv      one row an image
classes.json      what each class id means
"""

from __future__ import annotations

import json
from pathlib import Path

from ddiseg import masks
from ddiseg.outcomes import Progress
from ddiseg.release.metadata import write_metadata
from ddiseg.release.release import ExportSummary, Release, ReleaseItem


def export(release: Release, target: Path, *, images: bool, progress: Progress) -> ExportSummary:
    """Write the release into `target`, an existing empty folder."""
    palette = release.protocol.palette()
    (target / "masks").mkdir()
    if images:
        (target / "images").mkdir()

    def write(item: ReleaseItem, mask: masks.Mask) -> tuple[ReleaseItem, dict[str, str]]:
        files = {"mask": f"masks/{item.stem}.png", "image": item.file_name(images=images)}
        encoded = masks.encode_png(release.over(item, mask), palette)
        if images:
            files["image"] = f"images/{files['image']}"
            (target / files["image"]).write_bytes(release.photograph_png(item))
        (target / files["mask"]).write_bytes(encoded)
        return item, files

    rows, summary = release.each(write, progress)
    write_metadata(target, rows)
    (target / "classes.json").write_text(_classes(release))
    return summary


def _classes(release: Release) -> str:
    protocol = release.protocol
    return json.dumps(
        {
            "protocol": protocol.version,
            "background": protocol.hole_fill,
            "classes": [
                {"id": c.index, "name": c.name, "colour": c.colour, "definition": c.definition}
                for c in protocol.classes
            ],
        },
        indent=1,
    )
