"""`metadata.csv`: one row an image with all that is known, for formats that have no place for it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddiseg.release.release import ReleaseItem

METADATA_FILE = "metadata.csv"


def write_metadata(folder: Path, rows: Iterable[tuple[ReleaseItem, dict[str, str]]]) -> None:
    """Write the facts of each item after the names of its files; lists are joined by ';'."""
    records = [{**files, **item.facts()} for item, files in rows]
    with open(folder / METADATA_FILE, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else [], lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({name: _cell(value) for name, value in record.items()})


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ";".join(map(str, value)) if isinstance(value, list) else str(value)
