"""The layout that `png` and `sddi` share: one file a mask, its photograph, and `metadata.csv`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from annotation_protocol.csv_files import csv_text
from ddiseg import masks
from ddiseg.outcomes import Progress
from ddiseg.release.release import ExportSummary, Release, ReleaseItem

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
        mask_name: Path of a mask in the release; `{}` becomes the stem of its image.
        write_mask: Writes one mask, given at its own size, to a path.
        images: Write the photographs to `images/`, too.
    """
    (target / mask_name).parent.mkdir()
    if images:
        (target / "images").mkdir()

    def write(item: ReleaseItem, mask: masks.Mask) -> tuple[ReleaseItem, dict[str, str]]:
        files = {"mask": mask_name.format(item.stem), "image": item.file_name(images=images)}
        if images:
            files["image"] = f"images/{files['image']}"
            photograph = release.photograph_png(item)
        write_mask(target / files["mask"], item, mask)  # may refuse the image
        if images:
            (target / files["image"]).write_bytes(photograph)
        return item, files

    rows, summary = release.each(write, progress)
    write_metadata(target, rows)
    return summary


def write_metadata(folder: Path, rows: Iterable[tuple[ReleaseItem, dict[str, str]]]) -> None:
    """Write the metadata of each item after the names of its files; lists are joined by ';'."""
    records = [{**files, **item.facts()} for item, files in rows]
    header = list(records[0]) if records else []
    text = csv_text([header, *([_cell(record[name]) for name in header] for record in records)])
    (folder / METADATA_FILE).write_text(text, "utf-8", newline="")


def _cell(value: Any) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ";".join(map(str, value)) if isinstance(value, list) else value
