"""Objects outside the store of a workspace: s3://, gs:// and abfs:// through fsspec.

Imports read from them and exports write to them. Every error is one line that names the URL, without
what is secret in it, and says what to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ddiseg.errors import DdisegError, InputError

#: Packages by the scheme of a URL: the extra of ddiseg that installs what reads it.
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "abfs"),
}

#: Seconds to wait for a connection and for each part of an answer, and tries of a request.
TIMEOUT, TRIES = (10, 60), 4


class RemoteError(DdisegError):
    """A server that can't be used at all: what was finished is kept."""


def scheme(place: str) -> str:
    """Return the scheme of a URL in small letters, "" for a path."""
    return place.partition("://")[0].lower() if "://" in place else ""


def is_object_store(place: str) -> bool:
    """Return whether a place is a URL of an object store."""
    return scheme(place) in EXTRAS


def without_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment: signatures stand in the query."""
    if not scheme(url):
        return url
    parts = urlsplit(url)
    account, at, host = parts.netloc.rpartition("@")
    if scheme(url) in ("abfs", "abfss") and at and ":" not in account:
        host = parts.netloc  # container@account, which are no secrets
    # In the key of an object, ? and # are letters.
    path = url.partition("://")[2].partition("/")[2] if is_object_store(url) else parts.path
    slash = "/" if is_object_store(url) and path else ""
    return urlunsplit((parts.scheme, host, "", "", "")) + slash + path


def parent(url: str) -> str:
    """Return the URL one level up."""
    return url.rstrip("/").rpartition("/")[0]


def last_part(url: str) -> str:
    """Return the last part of a URL's path, decoded; the bucket or host where it has none."""
    host, _, path = without_secrets(url).partition("://")[2].partition("/")
    path = path if is_object_store(url) else unquote(path)
    return path.rstrip("/").rpartition("/")[2].lstrip(".") or host


@dataclass(frozen=True)
class Entry:
    """An object under a prefix."""

    path: str  #: relative to the prefix
    key: str  #: what fsspec calls it
    size: int
    modified_ns: int  #: 0 where the server does not say
    etag: str = ""  #: S3's, often the MD5 of the content


class ObjectStore:
    """The objects under a URL, with errors explained."""

    def __init__(self, url: str) -> None:
        """Prepare the connection; nothing is sent yet.

        Raises:
            InputError: the package for such URLs is missing, or no bucket is named.
        """
        import fsspec

        if not url.partition("://")[2].strip("/"):
            raise InputError(f"{url} names no bucket: write {scheme(url)}://BUCKET/PREFIX")
        self.url = url.rstrip("/")
        self.shown = without_secrets(self.url)
        options = _options(scheme(url))
        try:
            self._fs, self.root = fsspec.core.url_to_fs(self.url, **options)
        except ImportError as error:
            extra = EXTRAS[scheme(url)]
            raise InputError(
                f"{self.shown}: what reads such URLs is not installed: pip install 'ddiseg[{extra}]'"
            ) from error
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.shown} can't be used: {_first_line(error)}") from error

    def entries(self) -> Iterator[Entry]:
        """Yield the objects under the prefix; what ends in / stands for an empty folder and is left out.

        Raises:
            InputError, RemoteError: it can't be listed.
        """
        with self.explained():
            found = self._fs.find(self.root, detail=True)
        for key, facts in found.items():
            path = key.removeprefix(self.root).strip("/")
            if path and not key.endswith("/"):
                yield _entry(path, key, facts)

    def facts(self, key: str | None = None) -> Entry | None:
        """Return size and time of one object (default: the one that the URL names), None where there is none."""
        key = key or self.root
        try:
            with self.explained(key):
                facts = self._fs.info(key)
        except MissingObjectError:
            return None
        if facts["type"] != "file":
            return None
        return _entry(key.rpartition("/")[2], key, facts)

    def read(self, key: str | None = None) -> bytes:
        """Return the bytes of an object.

        Raises:
            MissingObjectError: there is none.
            InputError, RemoteError: it can't be read.
        """
        key = key or self.root
        with self.explained(key):
            content: bytes = self._fs.cat_file(key)
        return content

    def chunks(self, key: str, size: int = 1 << 22) -> Iterator[bytes]:
        """Yield an object's bytes in parts, so that a large one takes little memory."""
        with self.explained(key), self._fs.open(key, "rb", block_size=size) as file:
            while part := file.read(size):
                yield part

    def download(self, key: str, path: str) -> None:
        """Write an object to a file."""
        with self.explained(key):
            self._fs.get_file(key, path)

    def upload(self, path: str, key: str) -> None:
        """Write a file to an object, which is there whole or as it was before."""
        with self.explained(key):
            self._fs.put_file(path, key)

    def write(self, key: str, content: bytes, *, new: bool = False) -> bool:
        """Write an object; returns False where it is `new` and there is one already."""
        try:
            with self.explained(key):
                self._fs.pipe_file(key, content, **({"mode": "create"} if new else {}))
        except ExistingObjectError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Remove an object."""
        with self.explained(key):
            self._fs.rm_file(key)

    def shown_key(self, key: str) -> str:
        """Return the URL of an object as messages write it."""
        inside = key.removeprefix(self.root)
        return self.shown + inside if inside != key else key

    @contextlib.contextmanager
    def explained(self, key: str | None = None) -> Iterator[None]:
        """Raise errors of the object store, of whatever package, as ours."""
        try:
            yield
        except DdisegError:
            raise
        except Exception as error:
            explained = explain(error, self.shown_key(key) if key else self.shown)
            if explained is None:
                raise
            raise explained from error


class MissingObjectError(InputError):
    """An object that is not there."""


class ExistingObjectError(InputError):
    """An object that is there, and should not."""


def explain(error: Exception, shown: str) -> DdisegError | None:
    """Return an error of an object store in our words, None for one of another kind.

    s3fs, gcsfs and adlfs raise OSError where they know the answer, and errors of the packages below
    them (botocore, aiohttp, azure) elsewhere: those are told by their names.
    """
    again = "what was finished is kept: run the same command again"
    causes = [e for e in (error, error.__cause__) if e is not None]
    kinds = {kind.__name__ for e in causes for kind in type(e).__mro__}
    said = " ".join([_first_line(e) for e in causes] + [_code(e) for e in causes])
    if kinds & {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}:
        return RemoteError(f"{shown}: there are no credentials: set those of your provider, for "
                           "example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")  # fmt: skip
    if any(word in said for word in ("ExpiredToken", "expired")):
        return RemoteError(f"{shown}: the credentials have expired: get new ones; {again}")
    if "NoSuchBucket" in said + " ".join(kinds) or "bucket does not exist" in said:
        return RemoteError(f"{shown}: there is no such bucket: check its name and the endpoint")
    if isinstance(error, FileNotFoundError):
        return MissingObjectError(f"{shown} is not there: check the address")
    if isinstance(error, FileExistsError):
        return ExistingObjectError(f"{shown} is there already")
    if isinstance(error, PermissionError) or any(
        word in said for word in ("AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch")
    ):  # fmt: skip
        return RemoteError(f"{shown}: access was denied ({_first_line(error)}): check the credentials "
                           "and what they may do in this bucket")  # fmt: skip
    if kinds & {"TimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "FSTimeoutError"}:
        return RemoteError(f"{shown}: the server did not answer in time; {again}")
    if kinds & {
        "EndpointConnectionError", "ClientConnectorError", "ConnectionClosedError", "ConnectionError",
        "ClientError", "HTTPClientError", "ServiceRequestError", "ClientPayloadError",
        "ResponseStreamingError", "IncompleteReadError", "FlexibleChecksumError",
    }:  # fmt: skip
        return RemoteError(
            f"{shown}: the server can't be reached or broke off ({_first_line(error)}); {again}"
        )
    if isinstance(error, OSError):
        return RemoteError(f"{shown}: {_first_line(error)}; {again}")
    return None


def _options(scheme_of_url: str) -> dict[str, Any]:
    if EXTRAS.get(scheme_of_url) != "s3":
        return {}
    connect, read = TIMEOUT
    retries = {"max_attempts": TRIES, "mode": "standard"}
    bounds = {"connect_timeout": connect, "read_timeout": read, "retries": retries}
    # Listings are asked for anew each time: an import must not see an old one.
    return {"config_kwargs": bounds, "use_listings_cache": False, "skip_instance_cache": False}


def _code(error: BaseException) -> str:
    """Return the code of an error of botocore, such as ExpiredToken."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _entry(path: str, key: str, facts: dict[str, Any]) -> Entry:
    etag = str(facts.get("ETag") or "").strip('"')
    return Entry(path, key, int(facts.get("size") or 0), _modified_ns(facts), etag)


def _modified_ns(facts: dict[str, Any]) -> int:
    """Return when an object was written, in nanoseconds, by whatever name its server gives it; else 0."""
    names = ("LastModified", "last_modified", "updated", "mtime", "modified")
    value = next((facts[name] for name in names if facts.get(name)), None)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return 0
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000) * 1000


def _first_line(error: BaseException) -> str:
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return text[:200]
