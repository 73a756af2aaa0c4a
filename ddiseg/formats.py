"""Formats by name, ours and those of other packages, found through entry points.

A package adds its own with an entry point in one of the groups

    ddiseg.mask_formats           like `ddiseg.ingest.png_masks.read_masks`: values in pixels
    ddiseg.labelled_mask_formats  like `ddiseg.ingest.coco_masks.read_masks`: regions with labels
    ddiseg.release_formats        like `ddiseg.release.coco.export`

The first line of the module's docstring describes the format in a list of formats. A function
`fits(path) -> bool` in the module of a mask format tells whether a file or folder looks like it; a
format without one is never guessed. `MASK_ENDINGS` in that module names the endings of its files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from importlib.metadata import entry_points
from inspect import getdoc, getmodule
from pathlib import Path
from typing import Any

from ddiseg.errors import InputError
from ddiseg.locate import RELEASE_MANIFEST

MASKS, RELEASES = "ddiseg.mask_formats", "ddiseg.release_formats"
LABELLED_MASKS = "ddiseg.labelled_mask_formats"


def format_names(*groups: str) -> list[str]:
    """Return the names of all formats of some groups."""
    return sorted({e.name for group in groups for e in entry_points(group=group)})


def group_of(name: str, *groups: str) -> str:
    """Return the first of `groups` that has a format; raises InputError naming those that there are."""
    for group in groups:
        if entry_points(group=group, name=name):
            return group
    raise _unknown(name, *groups)


def load_format(group: str, name: str) -> Callable[..., Any]:
    """Return the function of a format; raises InputError naming the formats that there are."""
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
    if (own := _release_format(path)) in format_names(*groups):
        return own
    modules = {
        name: getmodule(load_format(group, name))
        for group in groups
        for name in format_names(group)
    }
    fitting = sorted(n for n, m in modules.items() if getattr(m, "fits", lambda _: False)(path))
    if len(fitting) == 1:
        return fitting[0]
    endings = {ending for m in modules.values() for ending in getattr(m, "MASK_ENDINGS", ())}
    found = _endings(path)
    if not fitting and endings and not endings & found.keys():
        *others, last = sorted(endings)
        wanted = f"{', '.join(others)} or {last}" if others else last
        advice = "give the folder of the masks, or save them as such files"
        if path.is_dir():
            raise InputError(
                f"{path} has no masks: there are no {wanted} files: {describe_files(path)}; {advice}"
            )
        raise InputError(f"{path} is no {wanted} file; {advice}")
    fit = f"fits {' and '.join(fitting)}" if fitting else "fits no format"
    listed = [f"  {name:<12} {_first_line(modules[name])}" for name in sorted(modules)]
    raise InputError("\n".join([f"{path} {fit}; give its format with --as FORMAT:", *listed]))


def _release_format(path: Path) -> str:
    """Return the format that a release of ddiseg says it has; "" for any other folder or file."""
    try:
        manifest = json.loads((path / RELEASE_MANIFEST).read_bytes())
        return str(manifest["format"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def describe_files(folder: Path) -> str:
    """Return the endings of a folder's files in words, with how many there are of each."""
    found = sorted(_endings(folder).items(), key=lambda each: (-each[1], each[0]))
    named = ", ".join(f"{n} {ending or 'without an ending'}" for ending, n in found[:3])
    more = ", ..." if len(found) > 3 else ""
    return f"only {named}{more}" if found else "the folder is empty"


def _endings(path: Path) -> Counter[str]:
    """Number of files by ending, at a path or under it; hidden ones are left out."""
    files = [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())
    return Counter(file.suffix.lower() for file in files if not file.name.startswith("."))


def _first_line(module: object) -> str:
    return (getdoc(module) or "").partition("\n")[0]


def _unknown(name: str, *groups: str) -> InputError:
    return InputError(f"no format called '{name}'; there are: {', '.join(format_names(*groups))}")
