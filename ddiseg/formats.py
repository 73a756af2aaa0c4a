"""Formats by name, ours and those of other packages, found through entry points.

A package adds its own with an entry point in one of the groups

    ddiseg.mask_formats           like `ddiseg.ingest.png_masks.read_masks`: values in pixels
    ddiseg.labelled_mask_formats  like `ddiseg.ingest.coco_masks.read_masks`: regions with labels
    ddiseg.release_formats        like `ddiseg.release.coco.export`
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from ddiseg.errors import InputError

MASKS, RELEASES = "ddiseg.mask_formats", "ddiseg.release_formats"
LABELLED_MASKS = "ddiseg.labelled_mask_formats"


def format_names(*groups: str) -> list[str]:
    return sorted({e.name for group in groups for e in entry_points(group=group)})


def group_of(name: str, *groups: str) -> str:
    """The first of `groups` that has a format; raises InputError naming those that there are."""
    for group in groups:
        if entry_points(group=group, name=name):
            return group
    raise _unknown(name, *groups)


def load_format(group: str, name: str) -> Callable[..., Any]:
    """The function behind a format; raises InputError naming the formats that there are."""
    for entry in entry_points(group=group, name=name):
        function: Callable[..., Any] = entry.load()
        return function
    raise _unknown(name, group)


def _unknown(name: str, *groups: str) -> InputError:
    return InputError(f"no format called '{name}'; there are: {', '.join(format_names(*groups))}")
