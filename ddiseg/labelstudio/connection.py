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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ddiseg.errors import InputError, ServerError, WorkspaceError
from ddiseg.labelstudio.accounts import read_accounts
from ddiseg.labelstudio.folder import Folder, damaged, read_json, write_json
from ddiseg.labelstudio.server import find_running

if TYPE_CHECKING:
    from types import ModuleType

    import requests

#: Environment variable with the token of a team's server.
TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"
#: Major version of Label Studio that is spoken to.
MAJOR = "1"
#: Seconds that the check of a server waits for an answer.
TIMEOUT = 10

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
    team = _check(Connection(url, _checked_token(token), embedded=False, media=None))
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


def _check(connection: Connection) -> Team:
    """Ask the server for its version first, for what is no Label Studio must not see the token."""
    url = connection.url
    release = _get(url, "/api/version").get("release")
    if not isinstance(release, str):
        raise ServerError(f"{url} is no Label Studio: it tells no version; check the address")
    if release.split(".")[0] != MAJOR:
        raise ServerError(
            f"{url} is Label Studio {release}, and this ddiseg works with {MAJOR}.x: "
            "connect another server, or upgrade ddiseg"
        )
    user = _get(url, "/api/current-user/whoami", _authorization(connection)).get("email")
    if not isinstance(user, str):
        raise ServerError(f"{url} does not tell whose token this is; check the address")
    return Team(connection, release, user)


def _authorization(connection: Connection) -> str:
    """The header of a token; a personal access token is exchanged for one that lives 300 s."""
    if connection.token.count(".") != 2:
        return f"Token {connection.token}"
    answer = _request(
        "POST", connection.url, "/api/token/refresh/", json={"refresh": connection.token}
    )
    access = answer.get("access")
    if not isinstance(access, str):
        raise ServerError(
            f"{connection.url} gave nothing for the personal access token: make a new one there"
        )
    return f"Bearer {access}"


def _get(url: str, path: str, authorization: str | None = None) -> dict[str, Any]:
    return _request("GET", url, path, authorization)


def _request(
    method: str,
    url: str,
    path: str,
    authorization: str | None = None,
    json: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON object of an answer; raises ServerError, one line, for anything else."""
    import requests

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, not as a header: that one gives way to what ~/.netrc says of the host.
        if authorization is not None:
            request.headers["Authorization"] = authorization
        return request

    try:
        # No redirect is followed: the token is for the server that was named.
        answer = requests.request(
            method, url + path, json=json, auth=sign, timeout=TIMEOUT, allow_redirects=False
        )
    except requests.RequestException as error:
        raise ServerError(f"{url}: {_line_fault(error)}") from error
    if answer.status_code != 200:
        fault = _status_fault(answer, with_token=bool(authorization or json))
        raise ServerError(f"{url}: {fault}")
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        kind = answer.headers.get("Content-Type", "nothing")
        raise ServerError(
            f"{url} is no Label Studio, or a login page stands before it: it answers with {kind} "
            "instead of JSON; check the address"
        )
    return content


def _line_fault(error: requests.RequestException) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s; check the address, and whether the server runs"
    if isinstance(error, requests.exceptions.SSLError):
        return (
            "its certificate can't be trusted; with a certificate authority of your own, "
            "name its file in the environment variable REQUESTS_CA_BUNDLE"
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let this through; check HTTPS_PROXY and NO_PROXY"
    return (
        f"can't be reached ({_cause(error)}); check the address, the network, "
        "and whether the server runs"
    )


def _cause(error: BaseException) -> str:
    """What the system said, deep below what the libraries made of it."""
    reason = type(error).__name__
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            reason = below.strerror
        below = below.__cause__ or below.__context__
    return reason


_ADVICE = {
    401: "it does not know this token; make a new one there (Account & Settings), legacy tokens may be switched off",
    403: "it does not let this token's user in; ask who runs the server",
    404: "there is no Label Studio at this address; give it as in the browser, up to /projects",
    429: "it has too much to do; wait a minute and run the same command again",
}


def _status_fault(answer: requests.Response, *, with_token: bool) -> str:
    code = answer.status_code
    if code == 401 and not with_token:
        return "another login stands before Label Studio; give an address without it (401)"
    if 300 <= code < 400:
        to = urlsplit(answer.headers.get("Location", "")).hostname or "another page"
        return (
            f"it sends on to {to} ({code}); give the address that answers itself, "
            "https:// if it has one, without a login page before it"
        )
    if code >= 500:
        return f"the server failed ({code}); see its log, or try again later"
    return f"{_ADVICE.get(code, 'it refuses the request; check the address')} ({code})"
