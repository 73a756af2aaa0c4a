"""URLs of databases: read from text, and shown without their secrets."""

from __future__ import annotations

from importlib.util import find_spec

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ddiseg.errors import WorkspaceError

#: Options of a PostgreSQL URL that are secrets.
_SECRETS = ("password", "sslpassword")


def parse_url(text: str | URL) -> URL:
    """Return the URL of a database; `postgresql://` is served by psycopg 3.

    Raises:
        WorkspaceError: the text is no URL. The message does not repeat one that may hold a password.
    """
    try:
        url = make_url(text.strip() if isinstance(text, str) else text)
    except (ArgumentError, ValueError):
        raise _unreadable(str(text)) from None
    if "@" in (url.host or ""):  # the end of a password, which a message would show as the host
        raise _unreadable(str(text), "; inside a password, write @ as %40 and / as %2F")
    if url.drivername in ("postgresql", "postgres"):
        only_psycopg2 = find_spec("psycopg") is None and find_spec("psycopg2") is not None
        url = url.set(drivername=f"postgresql+psycopg{'2' if only_psycopg2 else ''}")
    return url


def _unreadable(text: str, advice: str = "") -> WorkspaceError:
    secret = "@" in text or any(name in text for name in _SECRETS)
    return WorkspaceError(
        f"catalogue URL {'(not shown: it may hold a password)' if secret else text} can't be used: give "
        f"sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE{advice}"
    )


def has_password(url: URL) -> bool:
    """Return whether a URL holds a secret."""
    return url.password is not None or any(name in url.query for name in _SECRETS)


def without_password(url: URL) -> URL:
    """Return a URL without its secrets."""
    # URL.set ignores a password of None.
    return url._replace(password=None).difference_update_query(_SECRETS)


def shown(url: URL) -> str:
    """Return a URL as messages show it; *** where it has a password."""
    public = without_password(url)
    if url.password is not None:
        public = public.set(password="***")
    try:
        return public.render_as_string(hide_password=True)
    except UnicodeEncodeError:  # the file's name is not UTF-8
        return f"{public.drivername}:///{public.database}"
