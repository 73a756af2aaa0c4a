"""What can go wrong between here and a labelling server, each as one line that says what to do."""

from __future__ import annotations

from ddiseg.errors import ServerError

_AGAIN = "run the same command again: what was stored stays, nothing is sent twice"

#: What an answer's status means and what to do about it.
_ADVICE = {
    400: "it refuses what was sent",
    401: "the token is not valid there (any longer): 'ddiseg label connect URL' takes a new one",
    403: "this account may not do that there: use the token of a member of the project",
    404: "it has no such thing (any longer): 'ddiseg label status' shows where the projects are",
    413: "too much at once for the server or a proxy before it",
    429: f"it is asked too often: wait a minute and {_AGAIN}",
}


def response_error(url: str, what: str, status: int, body: str) -> ServerError:
    """An answer that is an error, or no JSON; the status of a web page is not Label Studio's word."""
    return ServerError(_said(url, what, status, body), None if _is_page(body) else status)


def connection_error(url: str, what: str, error: Exception, *, sent: bool) -> ServerError:
    """No answer at all. `sent`: the request may have happened."""
    text = str(error)
    reached = not any(
        sign in text for sign in ("refused", "resolve", "Name or service", "getaddrinfo")
    )
    if "timed out" in text.casefold() or "timeout" in type(error).__name__.casefold():
        why = "does not answer in time"
    elif reached:
        why = "broke the connection off"
    else:
        why = "can't be reached"
    happened = ""
    if sent and reached:
        happened = " It may have done what it was asked; the next run looks before it sends."
    return ServerError(
        f"{url} {why} ({what}): is it running? 'ddiseg label status'; then {_AGAIN}.{happened}"
    )


def _said(url: str, what: str, status: int, body: str) -> str:
    if _is_page(body):
        return (
            f"{url} answered with a web page instead of data ({status}, {what}): is the URL right, "
            "and is no login page or proxy in between?"
        )
    if 300 <= status < 400:
        return (
            f"{url} sends elsewhere ({status}, {what}): give the address that it leads to, "
            "'ddiseg label connect URL'"
        )
    if status < 300:
        return f"{url} answered with data that can't be read ({what}); {_AGAIN}"
    if status >= 500:
        return f"{url} had an error of its own ({status}, {what}): see its log, then {_AGAIN}"
    return f"{url}: {status} for {what}: {_ADVICE.get(status, 'it refuses that')}{_detail(body)}"


def _is_page(body: str) -> bool:
    return body.lstrip()[:1] == "<"


def _detail(body: str) -> str:
    import json

    try:
        found = json.loads(body)
    except ValueError:
        return ""
    detail = (
        found.get("validation_errors") or found.get("detail") if isinstance(found, dict) else found
    )
    return f" (it says: {' '.join(str(detail).split())[:200]})" if detail else ""
