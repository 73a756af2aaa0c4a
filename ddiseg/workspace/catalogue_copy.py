"""Copy of a workspace's catalogue to another database, and the switch of the workspace to the copy."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from annotation_protocol.files import PRIVATE, locked
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.transfer import Copied, Move, transfer
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.locate import SETTINGS, expanded
from ddiseg.outcomes import Outcome, Progress, counted, silent
from ddiseg.workspace.access import tighten
from ddiseg.workspace.catalogue_location import ENVIRONMENT, FILE, CatalogueLocation, to_store
from ddiseg.workspace.settings import as_toml, write_line
from ddiseg.workspace.workspace import catalogue_location, default_actor

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CatalogueCopy:
    """A copy of a catalogue, whose rows were compared with the original's."""

    copied: Copied
    source: CatalogueLocation
    target: CatalogueLocation
    workspace: Path | None  #: whose catalogue was copied
    switched: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.copied.outcome.value,
            "from": str(self.source),
            "to": str(self.target),
            "rows": self.copied.rows,
            "total": self.copied.total,
            "sha256": self.copied.digest,
            "already_there": self.copied.found,
            "restarted": self.copied.restarted,
            "switched": self.switched,
        }

    def in_words(self) -> list[str]:
        """Return what was copied, and what to do next."""
        line = f"catalogue = {as_toml(self.target.setting)}"
        if not self.copied.digest:
            return [f"{self.source} was moved to {self.target} before", self._switched(line)]
        what = f"{counted(self.copied.total, 'row')} of {self.source}"
        done = "are all in" if self.copied.outcome is Outcome.UNCHANGED else "copied to"
        lines = [f"{what} {done} {self.target}, each compared (SHA-256 {self.copied.digest[:16]})"]
        if self.switched:
            return [*lines, self._switched(line)]
        where = (self.workspace or Path()) / SETTINGS
        again = " or run the same command again with --switch, which keeps others from the old one"
        return [
            *lines,
            f"  to use the copy, write {line} into {where}{again if self.workspace else ''}; what is written "
            "to the old one from now on is not in the copy",
        ]

    def _switched(self, line: str) -> str:
        where = (self.workspace or Path()) / SETTINGS
        kept = f"the old one is kept as it was in {self.source}, and no command opens it"
        return (
            f"  {where} has {line} now; {kept}. Other workspaces that shared it need that line, too"
        )


def copy_catalogue(
    source: str, target: str, *, switch: bool = False, progress: Progress = silent
) -> CatalogueCopy:
    """Copy a catalogue to another database; each may be a workspace, a file, a URL, env:NAME or file:PATH.

    Args:
        switch: let the workspace `source` use the copy; its old catalogue is marked as moved.

    Raises:
        InputError: there is no catalogue to copy, the target holds another one, or `switch` without a workspace.
        WorkspaceError: as `transfer`; nothing was switched.
    """
    root, old = _location(source)
    target_root, new = _location(target)
    if switch and root is None:
        raise InputError(
            f"--switch changes {SETTINGS} of a workspace, and {source} is none: give the workspace as FROM"
        )
    if old.file is not None and not (old.file.is_file() and old.file.stat().st_size):
        raise InputError(f"{old.file} is no catalogue: give FROM a workspace or a catalogue.sqlite")
    if (
        target_root is not None
    ):  # its line may be empty, or a path that means another file from elsewhere
        new = CatalogueLocation(new.setting or _as_line(new.url), new.url)
    if new.file is not None and not new.file.parent.is_dir():
        raise InputError(f"{new.file.parent} is no folder: create it, or give another TO")
    move = Move(default_actor(), {"old": str(old), "new": str(new)}) if switch else None
    with _databases(old, new) as (origin, copy):
        copied = transfer(origin, copy, move=move, progress=progress)
    if switch and root is not None:
        _switch(root, new)
    return CatalogueCopy(copied, old, new, root, switch)


@contextlib.contextmanager
def _databases(
    old: CatalogueLocation, new: CatalogueLocation
) -> Iterator[tuple[Database, Database]]:
    """Open both databases; a new SQLite file is closed to other users of the machine."""
    file, made = new.file, False
    if file is not None and not file.exists():
        with contextlib.suppress(OSError):  # SQLite says what is wrong with the place
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
            made = True
    origin, copy = Database(old.url), Database(new.url)
    try:
        yield origin, copy
    finally:
        origin.engine.dispose()
        copy.engine.dispose()
        if made and file is not None and file.exists() and not file.stat().st_size:
            file.unlink()  # nothing was copied


def _location(given: str) -> tuple[Path | None, CatalogueLocation]:
    """Return the place of a catalogue, and its workspace where a person named that.

    Raises:
        WorkspaceError: a folder that is no workspace, a URL that can't be used, an unset variable.
    """
    if given.startswith((ENVIRONMENT, FILE)) or "://" in given:
        return None, CatalogueLocation.read(Path.cwd(), to_store(given))
    path = Path(os.path.abspath(expanded(Path(given))))
    if not path.is_dir():
        url = URL.create("sqlite", database=str(path))
        return None, CatalogueLocation(_as_line(url), url)
    if not (path / SETTINGS).exists():
        raise WorkspaceError(
            f"{path} is no workspace: it has no {SETTINGS}; give a workspace, or the file of a catalogue"
        )
    return path, catalogue_location(path)


def _as_line(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _switch(root: Path, new: CatalogueLocation) -> None:
    """Write the place of the catalogue into ddiseg.toml."""
    path = root / SETTINGS
    busy = f"process {{holder}} is changing {SETTINGS}: waiting for it"
    default = CatalogueLocation.read(root, "")
    with locked(path.with_name(f".{SETTINGS}.lock"), busy, wait=_logger.info):
        write_line(path, "catalogue", "" if new.file == default.file else new.setting)
    if new.file is not None:
        tighten(root, [new.file])
