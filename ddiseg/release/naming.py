"""File names of a release: unique and valid on every file system."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

#: Longest stem in bytes: leaves room for a prefix and an ending in the usual 255.
_LONGEST = 110

#: Characters that some file system or shell of a reader refuses.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')

#: Names that Windows keeps for devices, whatever their ending.
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def unique_stems(images: Sequence[tuple[int, str, str]]) -> list[str]:
    """Return a file name without ending for each (id, name, dataset), unique even in lower case.

    The image's own stem where it is unique; else with the dataset as prefix; where that is not unique
    either, with its id as suffix.
    """
    plain = [_safe(name.rsplit(".", 1)[0] or name) for _, name, _ in images]
    doubled = _doubled(plain)
    stems = [
        f"{_safe(dataset)}_{stem}" if stem.casefold() in doubled else stem
        for stem, (_, _, dataset) in zip(plain, images, strict=True)
    ]
    # Again and again, since a longer name may be another image's own.
    while doubled := _doubled(stems):
        stems = [
            f"{stem}_{image_id}" if now.casefold() in doubled else now
            for now, stem, (image_id, _, _) in zip(stems, plain, images, strict=True)
        ]
    return stems


def _doubled(stems: Sequence[str]) -> set[str]:
    return {stem for stem, n in Counter(s.casefold() for s in stems).items() if n > 1}


def _safe(name: str) -> str:
    name = _UNSAFE.sub("_", name).strip(" .")
    name = name.encode()[:_LONGEST].decode(errors="ignore").rstrip(" .")
    if not name or name.startswith("-") or _DEVICES.fullmatch(name):
        name = f"_{name}"
    return name
