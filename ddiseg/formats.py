"""Formats by name, ours and those of other packages, found through entry points.

A package adds its own with an entry point in the group `ddiseg.mask_formats` (a function like
`ddiseg.ingest.png_masks.read_masks`) or `ddiseg.release_formats` (like `ddiseg.release.coco.export`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from ddiseg.errors import InputError

MASKS, RELEASES = "ddiseg.mask_formats", "ddiseg.release_formats"


def format_names(group: str) -> list[str]:
    return sorted({e.name for e in entry_points(group=group)})


def load_format(group: str, name: str) -> Callable[..., Any]:
    """The function behind a format; raises InputError naming the formats that there are."""
    for entry in entry_points(group=group, name=name):
        function: Callable[..., Any] = entry.load()
        return function
    raise InputError(f"no format called '{name}'; there are: {', '.join(format_names(group))}")
