"""Formats by name, ours and those of other packages, found through entry points.

A package adds its own with an entry point in one of the groups

    ddiseg.mask_formats           like `ddiseg.ingest.png_masks.read_masks`: values in pixels
    ddiseg.labelled_mask_formats  like `ddiseg.ingest.coco_masks.read_masks`: regions with labels
    ddiseg.release_formats        like `ddiseg.release.coco.export`

The first line of the module's docstring describes the format in a list of formats. A function
`fits(path) -> bool` beside that of a mask format says whether a file or folder looks like it; a
format without one is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from inspect import getdoc, getmodule
from pathlib import Path
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


def guess_format(path: Path, *groups: str) -> str:
    """Return the name of the only format of `groups` that a file or folder fits.

    Raises:
        InputError: `path` does not exist, or none or several formats fit; lists those that there are.
    """
    if not path.exists():
        raise InputError(f"{path.absolute()} does not exist")
    modules = {
        name: getmodule(load_format(group, name))
        for group in groups
        for name in format_names(group)
    }
    fitting = sorted(n for n, m in modules.items() if getattr(m, "fits", _never)(path))
    if len(fitting) == 1:
        return fitting[0]
    fit = f"fits {' and '.join(fitting)}" if fitting else "fits no format"
    listed = [f"  {name:<12} {_first_line(modules[name])}" for name in sorted(modules)]
    raise InputError("\n".join([f"{path} {fit}; say which it has with --as FORMAT:", *listed]))


def _never(_path: Path) -> bool:
    return False


def _first_line(module: object) -> str:
    return (getdoc(module) or "").partition("\n")[0]


def _unknown(name: str, *groups: str) -> InputError:
    return InputError(f"no format called '{name}'; there are: {', '.join(format_names(*groups))}")
