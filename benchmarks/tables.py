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
    text = markdown(header, rows) if path.suffix == ".md" else csv_text([header, *rows])
    _replace(path, text)


def fill(path: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the table of this name in a page: what is between its two markers.

    Raises ValueError if the page has no such markers, `<!-- table NAME -->` and `<!-- end of NAME -->`.
    """
    page, start, end = path.read_text(), f"<!-- table {name} -->", f"<!-- end of {name} -->"
    if page.count(start) != 1 or page.count(end) != 1:
        raise ValueError(f"{path} has no place for the table {name}: put {start} and {end} there")
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    _replace(path, f"{before}{start}\n\n{markdown(header, rows)}\n{end}{after}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    rule = ["---"] * len(header)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.replace(temporary, path)
