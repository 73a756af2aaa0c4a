"""The layout that `png` and `sddi` share: one file a mask, its photograph, and `metadata.csv`.

A release of more than 10,000 images is divided into folders: `masks/part-00001/` and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotation_protocol.csv_files import csv_text
from ddiseg import masks
from ddiseg.outcomes import Progress
from ddiseg.release.items import ReleaseItem
from ddiseg.release.release import Release
from ddiseg.release.summary import ExportSummary

METADATA_FILE = "metadata.csv"


def export_pairs(
    release: Release,
    target: Path,
    mask_name: str,
    write_mask: Callable[[Path, ReleaseItem, masks.Mask], object],
    *,
    images: bool,
    progress: Progress,
) -> ExportSummary:
    """Write masks, photographs and `metadata.csv` into `target`, an existing empty folder.

    Args:
        mask_name: Path of a mask in the release; `{}` becomes the stem of its image, with its folder.
        write_mask: Writes one mask, given at its own size, to a path.
        images: Write the photographs to `images/`, too.
    """
    for folder in release.folders():
        (target / mask_name.format(f"{folder}_")).parent.mkdir(parents=True)
        if images:
            (target / "images" / folder).mkdir(parents=True)

    def work(item: ReleaseItem, mask: masks.Mask) -> dict[str, str]:
        files = {"mask": mask_name.format(item.path), "image": item.file_name(images=images)}
        if images:
            files["image"] = f"images/{files['image']}"
            photograph = release.photograph_png(item)
        write_mask(target / files["mask"], item, mask)  # may refuse the image
        if images:
            (target / files["image"]).write_bytes(photograph)
        return files

    with (target / METADATA_FILE).open("w", encoding="utf-8", newline="") as table:

        def take(item: ReleaseItem, files: dict[str, str]) -> None:
            record = {**files, **item.facts()}
            if table.tell() == 0:
                table.write(csv_text([list(record)]))
            table.write(csv_text([list(map(_cell, record.values()))]))

        return release.each(work, take, progress)


def _cell(value: Any) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ";".join(map(str, value)) if isinstance(value, list) else value
