"""Which Label Studio a workspace works with: its own embedded one, or a team's.

A team's server is remembered by its URL. Its token is never written into the workspace: it comes
from the environment, from the user's keyring or from a prompt.
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
from ddiseg.labelstudio.first_contact import first_contact
from ddiseg.labelstudio.folder import Folder, damaged, read_json, write_json

if TYPE_CHECKING:
    from types import ModuleType

#: Environment variable with the token of a team's server.
TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"

#: Asks a person for the token of the server at a URL.
Ask = Callable[[str], str]


#: What the catalogue calls a workspace's own server.
EMBEDDED = "embedded"


@dataclass(frozen=True)
class Connection:
    """A Label Studio and the right to use it."""

    url: str  #: without a slash at its end
    token: str = field(repr=False)  #: a legacy token, or a personal access token (a JWT)
    embedded: bool
    media: Path | None  #: document root of the embedded server's local files

    @property
    def server(self) -> str:
        """What the catalogue calls the server: the port of the embedded one may be another each day."""
        return EMBEDDED if self.embedded else self.url


@dataclass(frozen=True)
class Team:
    """A team's server that answered as it should."""

    connection: Connection
    version: str
    user: str  #: e-mail address of the token's owner


def find(root: Path, ask: Ask | None = None) -> Connection:
    """The server of a workspace: the team's where one was connected, else its own that runs.

    `ask` is called where the token of a team's server is nowhere else. Raises WorkspaceError where
    there is no server or no token; the network is not used.
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

    Raises InputError for a URL or token that can't be one, ServerError where the server does not
    answer as a Label Studio 1.x that knows the token; what was connected before then stays.
    """
    url = checked_url(url)
    connection = Connection(url, _checked_token(token), embedded=False, media=None)
    team = Team(connection, *first_contact(url, connection.token))
    folder = Folder(root)
    folder.make()
    write_json(folder.team, {"url": url})
    return team


def forget_team(root: Path) -> str | None:
    """Use the team's server no longer, and drop its token from the keyring; returns its URL."""
    url = team_url(root)
    if url is not None:
        _drop_from_keyring(url)
        Folder(root).team.unlink()
    return url


def server_of(root: Path) -> str:
    """Return what the catalogue calls the server of a workspace: a team's URL, or EMBEDDED."""
    return team_url(root) or EMBEDDED


def team_url(root: Path) -> str | None:
    """URL of the team's server; None where the workspace is connected to none."""
    path = Folder(root).team
    content = read_json(path)
    if content is None:
        return None
    if not isinstance(content.get("url"), str):
        raise damaged(path)
    return str(content["url"])


def team_token(url: str, ask: Ask | None = None) -> str:
    """The token of a team's server: where it is stored, or by asking.

    Raises WorkspaceError where it is nowhere, InputError where it can be none.
    """
    token = stored_token(url) or (ask(url) if ask else None)
    if token is None:
        raise WorkspaceError(
            f"no token for {url}: put it into the environment variable {TOKEN_VARIABLE} "
            "(in Label Studio: Account & Settings), or run the command in a terminal to be asked"
        )
    return _checked_token(token)


def stored_token(url: str) -> str | None:
    """The token of a team's server in the environment, or else in the keyring."""
    return os.environ.get(TOKEN_VARIABLE) or _read_keyring(url)


def keep_in_keyring(url: str, token: str) -> None:
    """Let later commands find the token; raises WorkspaceError where the keyring refuses."""
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
    """Whether a keyring is installed that can hold a token."""
    keyring = _keyring()
    return keyring is not None and keyring.get_keyring().priority > 0


def checked_url(url: str) -> str:
    """A server's address as it is kept; raises InputError where it can't be one."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        usable = False
    if not usable or re.search(r"\s", url):
        raise InputError(
            f"'{url}' is no address of a server: give it as https://label-studio.example.org"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"give the address of {parts.hostname} alone, without user, password, '?' and '#'"
        )
    page = re.search(r"/(projects|user|organization|api)(/|$)", parts.path)
    if page:
        start = url.index(parts.path, len(parts.scheme) + 3) + page.start()
        raise InputError(f"{url} is a page on the server: give {url[:start]}")
    return url


def travels_openly(url: str) -> bool:
    """Whether a token sent there can be read on the way: http:// to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not here


def _checked_token(token: str) -> str:
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        # Not shown: most of it may be right.
        raise InputError("the token is empty, or holds what no token does: copy it once more")
    return token


_SERVICE = "ddiseg"


def _keyring() -> ModuleType | None:
    try:
        return importlib.import_module("keyring")
    except ImportError:  # it is an extra
        return None


def _read_keyring(url: str) -> str | None:
    keyring = _keyring()
    if keyring is None:
        return None
    try:
        token: str | None = keyring.get_password(_SERVICE, url)
    except keyring.errors.KeyringError:  # none on this machine, or locked: there are other ways
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
