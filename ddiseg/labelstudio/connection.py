"""Connection of a workspace with a Label Studio: its own embedded server, or a team's.

A team's server is remembered by its URL. Its token is never written into the workspace: it comes
from the environment, the user's keyring or a prompt.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ddiseg.errors import InputError, WorkspaceError
from ddiseg.labelstudio.embedded.accounts import read_accounts
from ddiseg.labelstudio.embedded.server import find_running
from ddiseg.labelstudio.folder import Folder, damaged, read_json, write_json
from ddiseg.labelstudio.http import HttpClient

if TYPE_CHECKING:
    from types import ModuleType

#: Environment variable with the token of a team's server.
TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"

#: Names a file with the token, such as a container's secret.
TOKEN_FILE_VARIABLE = "LABEL_STUDIO_API_KEY_FILE"

#: Asks a person for the token of the server at a URL.
Ask = Callable[[str], str]

#: The catalogue's name of a workspace's own server.
EMBEDDED = "embedded"

#: Seconds to wait for the first answer of a team's server.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Connection:
    """A Label Studio server and a token for it."""

    url: str  #: without a trailing slash
    token: str = field(repr=False)  #: a legacy token, or a personal access token (a JWT)
    embedded: bool
    media: Path | None  #: document root of the embedded server's local files

    @property
    def server(self) -> str:
        """The catalogue's name of the server: the embedded one's port, and so its URL, may change."""
        return EMBEDDED if self.embedded else self.url


@dataclass(frozen=True)
class Team:
    """A team's server whose version and token were checked."""

    connection: Connection
    version: str
    user: str  #: e-mail address of the token's owner


def find(root: Path, ask: Ask | None = None) -> Connection:
    """Return the server of a workspace: a connected team's, or else its own if that runs.

    Args:
        ask: called if the token of a team's server is stored nowhere.

    Raises:
        WorkspaceError: there is no server or no token. The network is not used.
    """
    url = team_url(root)
    if url is not None:
        return Connection(url, team_token(url, ask), embedded=False, media=None)
    running = find_running(root)
    if running is None:
        raise WorkspaceError(
            f"no Label Studio runs for {root}: 'ddiseg label up' starts one, "
            "'ddiseg label connect URL' uses a team's"
        )
    if not running.ready:
        raise WorkspaceError(
            "Label Studio has not finished starting: 'ddiseg label up' waits until it has"
        )
    token = read_accounts(root)["admin"].token
    return Connection(running.url, token, embedded=True, media=Folder(root).media)


def connect_team(root: Path, url: str, token: str) -> Team:
    """Check a team's server and token, and use that server from now on.

    The version is checked before the token is sent: what is no Label Studio must not see it.

    Raises:
        InputError: the URL or the token is malformed.
        ServerError: no Label Studio 1.x that knows the token answers; an earlier connection stays.
    """
    url = checked_url(url)
    connection = Connection(url, _checked_token(token), embedded=False, media=None)
    with HttpClient(url, connection.token, timeout=TIMEOUT, retries=0) as client:
        team = Team(connection, client.version(), client.user())
    folder = Folder(root)
    folder.make()
    write_json(folder.team, {"url": url})
    return team


def forget_team(root: Path) -> str | None:
    """Disconnect the team's server and drop its token from the keyring; returns its URL."""
    url = team_url(root)
    if url is not None:
        _drop_from_keyring(url)
        Folder(root).team.unlink()
    return url


def server_of(root: Path) -> str:
    """Return the catalogue's name of a workspace's server: a team's URL, or EMBEDDED."""
    return team_url(root) or EMBEDDED


def team_url(root: Path) -> str | None:
    """Return the URL of the team's server; None if the workspace is connected to none."""
    path = Folder(root).team
    content = read_json(path)
    if content is None:
        return None
    if not isinstance(content.get("url"), str):
        raise damaged(path)
    return str(content["url"])


def server_version(url: str) -> str:
    """Return the version of the Label Studio at `url`, without a token.

    Raises:
        ServerError: there is no Label Studio, or one of another major version.
    """
    with HttpClient(url, timeout=TIMEOUT, retries=0) as client:
        return client.version()


def team_token(url: str, ask: Ask | None = None) -> str:
    """Return the token of a team's server, stored or asked for.

    Raises:
        WorkspaceError: there is no token.
        InputError: the token is malformed.
    """
    token = stored_token(url) or (ask(url) if ask else None)
    if token is None:
        raise WorkspaceError(
            f"no token for {url}: put it into the environment variable {TOKEN_VARIABLE} "
            "(in Label Studio: Account & Settings), or run the command in a terminal to be asked"
        )
    return _checked_token(token)


def stored_token(url: str) -> str | None:
    """Return the token of a team's server from the environment, a file that it names, or the keyring.

    Raises:
        WorkspaceError: that file can't be read.
    """
    return os.environ.get(TOKEN_VARIABLE) or _read_token_file() or _read_keyring(url)


def _read_token_file() -> str | None:
    path = os.environ.get(TOKEN_FILE_VARIABLE)
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise WorkspaceError(
            f"{TOKEN_FILE_VARIABLE} names {path}, which can't be read "
            f"({getattr(error, 'strerror', None) or 'not text'}): correct the path, or unset the variable"
        ) from error


def keep_in_keyring(url: str, token: str) -> None:
    """Store the token for later commands; raises WorkspaceError if the keyring refuses."""
    keyring = _keyring()
    if keyring is None:
        raise WorkspaceError("no keyring is there: 'pip install ddiseg[keyring]'")
    try:
        keyring.set_password(_SERVICE, url, token)
    except keyring.errors.KeyringError as error:
        raise WorkspaceError(
            f"the keyring did not take the token ({error}): put it into {TOKEN_VARIABLE} instead"
        ) from error


def has_keyring() -> bool:
    """Whether a working keyring is installed."""
    keyring = _keyring()
    return keyring is not None and keyring.get_keyring().priority > 0


def checked_url(url: str) -> str:
    """Return a server's address as it is stored; raises InputError if it is malformed."""
    url = url.strip().rstrip("/")
    if not host_of(url) or re.search(r"\s", url):
        raise InputError(
            f"'{url}' is no address of a server: give it as https://label-studio.example.org"
        )
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"give the address of {parts.hostname} alone, without user, password, '?' and '#'"
        )
    page = re.search(r"/(projects|user|organization|api)(/|$)", parts.path)
    if page:
        start = url.index(parts.path, len(parts.scheme) + 3) + page.start()
        raise InputError(f"{url} is a page on the server: give {url[:start]}")
    return url


def host_of(url: str) -> str | None:
    """Return the host of an http(s) address; None if the address is invalid."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # an invalid port or IPv6 address
        return None
    return parts.hostname if usable else None


def travels_openly(url: str) -> bool:
    """Whether a token would be sent unencrypted: http:// to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not is_local


def _checked_token(token: str) -> str:
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        # The message does not show it: most of it may be right.
        raise InputError("the token is empty, or holds what no token does: copy it once more")
    return token


_SERVICE = "ddiseg"


def _keyring() -> ModuleType | None:
    try:
        return importlib.import_module("keyring")
    except ImportError:  # an optional dependency
        return None


def _read_keyring(url: str) -> str | None:
    keyring = _keyring()
    if keyring is None:
        return None
    try:
        token: str | None = keyring.get_password(_SERVICE, url)
    except keyring.errors.KeyringError:  # missing or locked: there are other sources
        return None
    return token


def _drop_from_keyring(url: str) -> None:
    keyring = _keyring()
    if keyring is not None and _read_keyring(url) is not None:
        try:
            keyring.delete_password(_SERVICE, url)
        except keyring.errors.KeyringError as error:
            raise WorkspaceError(
                f"the keyring keeps the token of {url} ({error}): delete it there, "
                "then run the same command again"
            ) from error
