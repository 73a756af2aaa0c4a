"""Recognise a folder that ddiseg exported, see `ddiseg.release.folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotation_protocol import UNLABELLED, UNLABELLED_NAME
from ddiseg.errors import InputError
from ddiseg.ingest.folder import read_json
from ddiseg.locate import RELEASE_MANIFEST

#: What a PNG release says of its class ids.
CLASSES_FILE = "classes.json"


def is_release(folder: Path) -> bool:
    """Return whether a folder is a release of ddiseg."""
    return "files" in _read_object(folder / RELEASE_MANIFEST)


def has_own_masks(folder: Path, top: Path) -> bool:
    """Return whether masks in a folder are of a PNG release: its manifest or table of classes is near.

    Args:
        top: the folder that is imported; they lie in it, below it or one above.
    """
    for place in (folder, *folder.parents):
        if is_release(place):
            return True
        if _read_object(place / CLASSES_FILE).get(UNLABELLED_NAME) == UNLABELLED:
            return True
        if place == top.parent:
            break
    return False


def _read_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; {} where there is none or it is something else."""
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}
