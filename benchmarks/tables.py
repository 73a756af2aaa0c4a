"""Tables of figures with their intervals, on the screen and in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from annotation_protocol.csv_files import csv_text


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The table as Markdown (`.md`) or as CSV, whole or not at all."""
    if path.suffix == ".md":
        rule = ["---"] * len(header)
        text = "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))
    else:
        text = csv_text([header, *rows])
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.replace(temporary, path)
