"""Location of the catalogue: the line `catalogue` of ddiseg.toml, which holds no password.

It is empty (a file in the workspace), a URL without a password, `env:NAME` (the URL is in an
environment variable) or `file:PATH` (it is in a file, such as a container's secret).
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from ddiseg.catalogue.url import has_password, parse_url, shown, without_password
from ddiseg.errors import WorkspaceError
from ddiseg.locate import CATALOGUE, SETTINGS, expanded

_logger = logging.getLogger(__name__)

#: The environment variable that 'ddiseg init' reads the URL from, where no other place is given.
VARIABLE = "DDISEG_CATALOGUE_URL"

#: What a line says whose URL is elsewhere.
ENVIRONMENT, FILE = "env:", "file:"

#: Where containers mount secrets, readable by all: there is nobody else in a container.
_CONTAINER_SECRETS = "/run/secrets/"

#: Where a password belongs.
WHERE_PASSWORDS_GO = (
    "leave it out and write it into ~/.pgpass (HOST:PORT:DATABASE:USER:PASSWORD, mode 0600), or put the "
    f"whole URL into an environment variable or a file of mode 0600 and give 'env:{VARIABLE}' or 'file:PATH'"
)


@dataclass(frozen=True)
class CatalogueLocation:
    """The place of a catalogue: a file, or a database on a server."""

    setting: str  #: the line of ddiseg.toml
    url: URL

    @classmethod
    def read(cls, root: Path, setting: str) -> CatalogueLocation:
        """Return the place that a line of ddiseg.toml names.

        Raises:
            WorkspaceError: it names a variable or a file without a URL, or is no URL.
        """
        if not setting:
            # Not a string: the folder's name may hold characters with a meaning in URLs.
            return cls("", URL.create("sqlite", database=str((root / CATALOGUE).absolute())))
        try:
            url = parse_url(_resolved(root, setting))
        except WorkspaceError as error:
            raise WorkspaceError(f"{_source(setting)}: {error}") from error
        if has_password(url) and not _is_elsewhere(setting):
            _logger.warning(
                f"{root / SETTINGS} holds the catalogue's password: {WHERE_PASSWORDS_GO}"
            )
        return cls(setting, url)

    @property
    def file(self) -> Path | None:
        """The file of an SQLite catalogue; None if it is on a server."""
        if self.url.get_backend_name() != "sqlite" or not self.url.database:
            return None
        return Path(self.url.database).absolute()

    def __str__(self) -> str:
        """The place without a password, for people."""
        place = shown(without_password(self.url)) if self.file is None else str(self.file)
        return f"{place} (from {self.setting})" if _is_elsewhere(self.setting) else place


def to_store(given: str) -> str:
    """Return the line that ddiseg.toml gets for a place that a person gave: it means the same from any folder.

    Raises:
        WorkspaceError: it is no URL, names no lasting file, or has a password.
    """
    if not given or given.startswith(ENVIRONMENT):
        return given
    if given.startswith(FILE):
        return FILE + os.path.abspath(_path(given))
    url = parse_url(given)
    if has_password(url):
        raise WorkspaceError(f"{SETTINGS} takes no password of the catalogue: {WHERE_PASSWORDS_GO}")
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise WorkspaceError(f"catalogue URL {given} names no file: give sqlite:///FILE")
        url = url.set(database=os.path.abspath(expanded(Path(url.database))))
    return url.render_as_string(hide_password=False)


def _is_elsewhere(setting: str) -> bool:
    return setting.startswith((ENVIRONMENT, FILE))


def _source(setting: str) -> str:
    return f"catalogue = {setting}" if _is_elsewhere(setting) else f"catalogue in {SETTINGS}"


def _path(setting: str) -> Path:
    """Return the path of a `file:` line; `file:///run/secrets/url` is accepted, too."""
    name = setting.removeprefix(FILE)
    return expanded(Path(name[2:] if name.startswith("//") else name))


def _resolved(root: Path, setting: str) -> str:
    """Return the URL that a line gives or refers to."""
    if setting.startswith(ENVIRONMENT):
        name = setting.removeprefix(ENVIRONMENT)
        if not (value := os.environ.get(name, "").strip()):
            raise WorkspaceError(
                f"the environment variable {name} is not set: set it to the URL of the catalogue, "
                f"such as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
            )
        return value
    return _read(root / _path(setting)) if setting.startswith(FILE) else setting


def _read(path: Path) -> str:
    try:
        text, mode = path.read_text(encoding="utf-8").strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise WorkspaceError(
            f"{path} can't be read ({why}): write the URL of the catalogue into it, mode 0600"
        ) from error
    if not text or "\n" in text:
        raise WorkspaceError(f"{path} must hold one line, the URL of the catalogue")
    others = mode & (stat.S_IRWXG | stat.S_IRWXO)
    if os.name == "posix" and others and not str(path).startswith(_CONTAINER_SECRETS):
        _logger.warning(
            f"{path} can be read by others, and may hold the catalogue's password: chmod 600"
        )
    return text
