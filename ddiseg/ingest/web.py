"""Files on web servers: one file, or those of a list of URLs.

The web has no folders: `ddiseg import https://...` takes a photograph, or a list of URLs. A list is
text with one URL a line, or a CSV file with a column `url` and, if wanted, a column `name`.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urljoin, urlsplit

from ddiseg.errors import InputError
from ddiseg.ingest.csv_table import read_table
from ddiseg.object_stores import is_object_store, without_secrets
from ddiseg.workspace.store_url import protocol_of

if TYPE_CHECKING:
    import requests

#: Seconds to wait for a connection, for each part of an answer, and for a whole file.
CONNECT, READ, WHOLE = 10.0, 30.0, 1800.0

#: Tries of a request, and redirects that are followed.
TRIES, REDIRECTS = 3, 5

#: Files that fail to reach a host before it is taken for down; the rest of its files are refused at once.
DOWN_AFTER = 3

#: The largest file taken from the web, in bytes.
MAX_BYTES = 500_000_000

_BUSY = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class WebFile:
    """A file as a server sent it, whole."""

    data: bytes
    modified_ns: int  #: 0 where the server does not say


def is_web(place: str) -> bool:
    """Return whether a place is a URL of a web server."""
    return protocol_of(place) in ("https", "http")


def fetch(url: str, max_bytes: int = MAX_BYTES) -> WebFile:
    """Return a file; answers that a server may give later are asked for again.

    Raises:
        InputError: there is none, it is too large, it did not come whole, or it is a web page.
    """
    _refuse_plain(url)
    host = urlsplit(url).netloc.rpartition("@")[2]
    if _Hosts.failures[host] >= DOWN_AFTER:
        raise InputError(
            f"its server {host} could not be reached before: run the same command again later"
        )
    for attempt in range(1, TRIES + 1):
        try:
            return _fetch_once(url, max_bytes)
        except _LaterError as error:
            if attempt == TRIES:
                if error.unreachable:
                    with _Hosts.lock:
                        _Hosts.failures[host] += 1
                raise InputError(
                    f"{error}, {TRIES} times: run the same command again later"
                ) from error
            time.sleep(min(error.wait if error.wait is not None else 0.5 * 2**attempt, 20))
    raise AssertionError("unreachable")


def forget_hosts() -> None:
    """Try every host again, also those that could not be reached before."""
    with _Hosts.lock:
        _Hosts.failures.clear()


def modified(url: str) -> tuple[int, int] | None:
    """Return size and time of a file without fetching it; None where the server does not say."""
    import requests

    try:
        with _session() as session, _ask(session, "HEAD", url) as answer:
            pass
    except (requests.RequestException, InputError):
        return None
    size = answer.headers.get("Content-Length", "")
    if answer.status_code != 200 or not size.isdigit() or not _modified_ns(answer):
        return None
    return int(size), _modified_ns(answer)


def name_of(url: str) -> str:
    """Return host and path of an address: what a photograph from a list is called."""
    if not protocol_of(url):  # relative to its list
        return unquote(url.partition("?")[0])
    return unquote(without_secrets(url).partition("://")[2])


@dataclass(frozen=True)
class Listed:
    """A line of a list."""

    path: str  #: what the photograph is called
    url: str
    fault: str | None = None


def read_list(path: Path, base: str | None) -> list[Listed]:
    """Read a list of URLs.

    Args:
        path: the list, a file of this machine.
        base: where it came from; relative addresses in it are relative to that.

    Raises:
        InputError: it is no list.
    """
    rows = list(_rows(path, relative=base is not None))
    names = Counter(name for name, _ in rows)
    listed = []
    for name, address in rows:
        url = urljoin(base, address) if base else address
        fault = None
        if not (is_web(url) or is_object_store(url)):
            fault = "is no address: write https://..., or one of an object store"
        elif names[name] > 1:
            fault = "several addresses of the list have this name: give each another one, in a column 'name'"
        listed.append(Listed(name, url, fault))
    if not listed:
        raise InputError(
            f"{path} lists no URLs: write one a line, or a CSV file with a column 'url'"
        )
    return listed


def _rows(path: Path, *, relative: bool) -> Iterator[tuple[str, str]]:
    """Yield name and address of each line."""
    table = read_table(path)
    heads = [head.strip().lower() for head in table.header]
    if "url" in heads:
        at, named = heads.index("url"), heads.index("name") if "name" in heads else None
        for line, cells in table.rows:
            if len(cells) <= at or not cells[at].strip():
                raise InputError(f"{path}, line {line}: the column 'url' is empty: fill it in")
            url = cells[at].strip()
            name = cells[named].strip() if named is not None and len(cells) > named else ""
            yield name or name_of(url), url
        return
    for text in path.read_text("utf-8-sig", errors="replace").splitlines():
        url = text.strip()
        if not url or url.startswith("#"):
            continue
        if not protocol_of(url) and (not relative or re.search("[ ,;]", url)):
            raise InputError(
                f"{path} is neither a photograph nor a list of URLs ('{url[:40]}'): write one a line, or "
                "a CSV file with a column 'url'"
            )
        yield name_of(url), url


class _LaterError(Exception):
    """An answer that may be another one later."""

    def __init__(self, what: str, *, wait: float | None = None, unreachable: bool = False) -> None:
        super().__init__(what)
        self.wait, self.unreachable = wait, unreachable


class _Hosts:
    """How often each host could not be reached, in this process."""

    lock = threading.Lock()
    failures: ClassVar[Counter[str]] = Counter()


def _fetch_once(url: str, max_bytes: int) -> WebFile:
    import requests

    try:
        with (
            _session() as session,
            session.get(url, stream=True, timeout=(CONNECT, READ)) as answer,
        ):
            _refuse_status(answer)
            _refuse_plain(answer.url)
            return WebFile(_body(answer, max_bytes), _modified_ns(answer))
    except requests.exceptions.SSLError as error:
        raise InputError("its certificate can't be verified: ask who runs the server") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _LaterError("ended before its last byte") from error
    except requests.Timeout as error:
        raise _LaterError("its server did not answer in time", unreachable=True) from error
    except requests.ConnectionError as error:
        slow = "timed out" in str(error)
        what = "its server stopped sending" if slow else "its server could not be reached"
        raise _LaterError(what, unreachable=not slow) from error
    except requests.RequestException as error:
        raise InputError(f"is no address that can be asked ({type(error).__name__})") from error


def _ask(session: requests.Session, method: str, url: str) -> requests.Response:
    """Return the answer of the address that `url` leads to; each one on the way is checked first."""
    for _ in range(REDIRECTS + 1):
        _refuse_plain(url)
        answer = session.request(
            method, url, stream=True, timeout=(CONNECT, READ), allow_redirects=False
        )
        if not answer.is_redirect:
            return answer
        answer.close()
        url = urljoin(url, answer.headers["Location"])
        if not is_web(url):
            raise InputError("leads to an address that is none of the web")
    raise InputError(f"leads to more than {REDIRECTS} other addresses, one after another")


def _body(answer: requests.Response, max_bytes: int) -> bytes:
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise InputError(_too_large(max_bytes))
    parts, size, end = [], 0, time.monotonic() + WHOLE
    for part in answer.iter_content(1 << 20):
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise InputError(_too_large(max_bytes))
        if time.monotonic() > end:
            raise InputError(f"took longer than {WHOLE / 60:.0f} minutes: fetch it another way")
    data = b"".join(parts)
    if length.isdigit() and "Content-Encoding" not in answer.headers and size != int(length):
        raise _LaterError(f"ended after {size:,} of {int(length):,} bytes")
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        raise InputError(
            "is a web page, no file: give the address of the file itself, or a list of addresses; a "
            "page to log in on can't be passed"
        )
    return data


def _refuse_status(answer: requests.Response) -> None:
    status = answer.status_code
    if status == 200:
        return
    said = f"{status} {answer.reason}".strip()
    if status in _BUSY:
        wait = answer.headers.get("Retry-After", "")
        raise _LaterError(
            f"its server answers {said}", wait=float(wait) if wait.isdigit() else None
        )
    if status in (404, 410):
        raise InputError(f"is not there ({said}): check the address")
    if status in (400, 401, 403):
        raise InputError(
            f"may not be read ({said}): a signed address may have expired, get a new one"
        )
    raise InputError(f"its server answers {said}: check the address")


def _refuse_plain(url: str) -> None:
    """Raise InputError for http: anyone on the way could read photographs, or change them."""
    if protocol_of(url) != "http":
        return
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        if ip_address(host).is_loopback:
            return
    if host != "localhost":
        raise InputError(
            f"{without_secrets(url)} is not encrypted: give its https:// address, or fetch it yourself"
        )


def _session() -> requests.Session:
    import requests

    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"  # so that Content-Length is that of the file
    session.headers["User-Agent"] = "ddiseg"
    return session


def _modified_ns(answer: Any) -> int:
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return int(parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()) * 10**9
    return 0


def _too_large(max_bytes: int) -> str:
    return f"is larger than {max_bytes / 1e6:,.0f} MB: fetch it another way, and import the file"
