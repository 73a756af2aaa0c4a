"""`ddiseg audit`: search what is to be passed on."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddiseg.cli.common import (
    LISTED,
    Command,
    Group,
    Settings,
    common_options,
    pass_settings,
    progress_bar,
)
from ddiseg.errors import DdisegError
from ddiseg.outcomes import counted, escaped

if TYPE_CHECKING:
    from ddiseg.release.audit import Audit, Hit
    from ddiseg.release.identifiers import Identifiers


@click.group("audit", cls=Group, params=common_options())
def audit() -> None:
    """Search a release for what should not be passed on."""


@audit.command("privacy", cls=Command)
@click.argument("release", type=click.Path(path_type=Path, file_okay=False))
@pass_settings
def privacy(settings: Settings, release: Path) -> None:
    """Search a release for names, ids and dates of the catalogue, and for metadata of pictures.

    Searched are the names of files and folders, JSON, tables, texts, and EXIF, GPS, XMP and text
    blocks of pictures; for the file names, patients, lesions and people of the whole catalogue and for
    the times at which somebody worked. Ids of less than three letters or six digits are compared with
    the whole value of fields such as patient and name. Names of people count in any order, with and
    without accents, in HTML and in addresses. Exits with 1 where anything was found. What a
    photograph itself shows is not searched. Files that can't be searched, such as archives, are listed and
    exit with 1, too. Licences and sources of datasets are public: names in them are told, and no hit.
    """
    from ddiseg.release.audit import audit_privacy
    from ddiseg.release.identifiers import Identifiers

    identifiers = Identifiers.of(settings.open())
    with progress_bar("audit") as progress:
        found = audit_privacy(identifiers, release, progress)
    data = {
        "ok": not (found.hits or found.unread),
        "identifiers": {kind.value: n for kind, n in identifiers.counts.items()},
        "ordinary_words": sorted(identifiers.words),
        "searched": dict(found.searched),
        "values": found.values,
        "unread": found.unread,
        "hits": [vars(hit) for hit in found.hits],
        "public": [vars(hit) for hit in found.public],
    }
    settings.emit(data, "\n".join(_as_text(found, identifiers)))
    if found.hits:
        files = len({hit.file for hit in found.hits})
        raise DdisegError(f"{counted(len(found.hits), 'hit')} in {counted(files, 'file')}")
    if found.unread:
        raise DdisegError(
            f"no hit, but {counted(len(found.unread), 'file')} not searched: look yourself, or remove "
            f"{'it' if len(found.unread) == 1 else 'them'}"
        )


def _as_text(found: Audit, identifiers: Identifiers) -> list[str]:
    looked_for = ", ".join(counted(n, kind.value) for kind, n in identifiers.counts.items())
    searched = ", ".join(counted(n, kind) for kind, n in sorted(found.searched.items()))
    lines = [
        f"looked for {looked_for}",
        f"searched {searched}; {counted(found.values, 'value')}: {counted(len(found.hits), 'hit')}",
    ]
    if identifiers.words:
        lines.append(
            f"not looked for, since they are ordinary words: {counted(len(identifiers.words), 'name')} "
            f"({', '.join(map(escaped, sorted(identifiers.words)[:3]))})"
        )
    if found.unread:
        lines.append(
            f"not searched: {counted(len(found.unread), 'file')}; look yourself, or remove it: "
            f"{', '.join(map(escaped, found.unread[:LISTED]))}"
            + (f" and {len(found.unread) - LISTED} more" if len(found.unread) > LISTED else "")
        )
    if found.public:
        public = list(dict.fromkeys(hit.value for hit in found.public))
        lines.append(
            f"public, no hit: {', '.join(map(escaped, public[:3]))} in the licence or source of a "
            f"dataset ({counted(len(found.public), 'place')})"
        )
    groups: dict[tuple[str, str, str], list[Hit]] = defaultdict(list)
    for hit in found.hits:
        groups[hit.kind, _place(hit), re.sub(r"\d+$", "...", hit.field)].append(hit)
    for (kind, place, field), hits in list(groups.items())[:LISTED]:
        values = ", ".join(list(dict.fromkeys(hit.value for hit in hits))[:3])
        lines.append(escaped(f"  {kind}  {place}, {field}: {counted(len(hits), 'hit')}, {values}"))
    if len(groups) > LISTED:
        lines.append(f"  ... and {len(groups) - LISTED} more; --output json lists all")
    return lines


def _place(hit: Hit) -> str:
    """Return the file of a hit; the folder, where each of its files has such hits."""
    many = hit.field == "file name" or hit.kind == "metadata"
    return f"{Path(hit.file).parent.as_posix()}/" if many else hit.file
