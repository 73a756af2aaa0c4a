"""Errors of a labelling server, each as one line that says what to do."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from ddiseg.errors import ServerError

_AGAIN = "run the same command again: what was stored stays, nothing is sent twice"

#: Meaning of a response's status, and what to do about it.
_ADVICE = {
    400: "it refuses what was sent",
    401: (
        "the token is not valid there (any longer): make a new one (Account & Settings; legacy tokens "
        "may be switched off), then 'ddiseg label connect URL'"
    ),
    403: "this account may not do that there: use the token of a member of the project",
    404: "it has no such thing (any longer): 'ddiseg label status' shows where the projects are",
    413: "too much at once for the server or a proxy before it",
    429: f"it is asked too often: wait a minute and {_AGAIN}",
}


def response_error(
    url: str, what: str, status: int, body: str, *, signed: bool = True, location: str = ""
) -> ServerError:
    """Return the error of a response that is an error, or no JSON.

    Its status is None for a web page, which comes from a proxy or login page, not Label Studio.

    Args:
        signed: whether the request had a token.
        location: the address that a redirect leads to.
    """
    if _is_page(body):
        return ServerError(
            f"{url} answered with a web page instead of data ({status}, {what}): is the URL right, "
            "and is no login page or proxy in between?"
        )
    if 300 <= status < 400:
        to = urlsplit(location).hostname or "another page"
        text = (
            f"{url} redirects to {to} ({status}, {what}): give the address that answers itself, "
            "https:// if it has one, without a login page before it: 'ddiseg label connect URL'"
        )
    elif status < 300:
        text = f"{url} answered with data that can't be read ({what}); {_AGAIN}"
    elif status >= 500:
        text = f"{url} had an error of its own ({status}, {what}): see its log, then {_AGAIN}"
    elif status == 401 and not signed:
        text = f"{url} has another login before Label Studio ({what}): give an address without it"
    else:
        advice = _ADVICE.get(status, "it refuses that")
        text = f"{url}: {status} for {what}: {advice}{_detail(body)}"
    return ServerError(text, status)


def connection_error(url: str, what: str, error: Exception, *, sent: bool) -> ServerError:
    """Return the error of a request without response; with `sent` it may have been carried out."""
    text, kind = str(error), type(error).__name__.casefold()
    if "sslerror" in kind or "certificate" in text.casefold():
        return ServerError(
            f"{url} has a certificate that can't be trusted ({what}): with a certificate authority "
            "of your own, name its file in the environment variable REQUESTS_CA_BUNDLE"
        )
    if "proxyerror" in kind:
        return ServerError(
            f"{url}: the proxy does not let this through ({what}); check HTTPS_PROXY and NO_PROXY"
        )
    is_reached = not any(
        part in text for part in ("refused", "resolve", "Name or service", "getaddrinfo")
    )
    if "timed out" in text.casefold() or "timeout" in kind:
        problem = "does not answer in time"
    elif is_reached:
        problem = "broke the connection off"
    else:
        problem = "can't be reached"
    hint = ""
    if sent and is_reached:
        hint = " It may have done what it was asked; the next run looks before it sends."
    return ServerError(
        f"{url} {problem} ({what}): is it running? 'ddiseg label status'; then {_AGAIN}.{hint}"
    )


def _is_page(body: str) -> bool:
    return body.lstrip()[:1] == "<"


def _detail(body: str) -> str:
    """Return what Label Studio says of an error, in brackets; "" if it says nothing."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    if isinstance(content, dict):
        content = content.get("validation_errors") or content.get("detail")
    return f" (it says: {' '.join(str(content).split())[:200]})" if content else ""
