"""Ask an address that nobody has vouched for whether a Label Studio answers there.

Unlike `plain`, which speaks to a server that answered once: no request is tried again, little time
is given, and whatever goes wrong is said as what may be wrong with the address or the token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ddiseg.errors import ServerError

if TYPE_CHECKING:
    import requests

#: Major version of Label Studio that is spoken to.
MAJOR = "1"
#: Seconds to wait for an answer.
TIMEOUT = 10


def first_contact(url: str, token: str) -> tuple[str, str]:
    """The server's version and the e-mail address of the token's owner.

    The version is asked for first, for what is no Label Studio must not see the token. Raises
    ServerError, one line, where the server does not answer as a Label Studio that knows the token.
    """
    release = server_version(url)
    user = _get(url, "/api/current-user/whoami", _authorization(url, token)).get("email")
    if not isinstance(user, str):
        raise ServerError(f"{url} does not tell whose token this is; check the address")
    return release, user


def server_version(url: str) -> str:
    """The version of the Label Studio at `url`, asked without a token.

    Raises ServerError, one line, where there is none, or one of another major version.
    """
    release = _get(url, "/api/version").get("release")
    if not isinstance(release, str):
        raise ServerError(f"{url} is no Label Studio: it tells no version; check the address")
    if release.split(".")[0] != MAJOR:
        raise ServerError(
            f"{url} is Label Studio {release}, and this ddiseg works with {MAJOR}.x: "
            "connect another server, or upgrade ddiseg"
        )
    return release


def _authorization(url: str, token: str) -> str:
    """The header of a token; a personal access token is exchanged for one that lives 300 s."""
    if token.count(".") != 2:
        return f"Token {token}"
    answer = _request("POST", url, "/api/token/refresh/", json={"refresh": token})
    access = answer.get("access")
    if not isinstance(access, str):
        raise ServerError(f"{url} gave nothing for the personal access token: make a new one there")
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
