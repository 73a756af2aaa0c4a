"""Where a store may be: a folder, or a URL of an object store or a file server."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from ddiseg.errors import WorkspaceError
from ddiseg.locate import expanded

#: Object stores, by the extra of ddiseg that installs their package. They show a file only when it is whole.
OBJECT_STORES = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "abfs"),
}

FOLDERS = ("", "file", "local")

#: Places that end with the process.
_UNLASTING = ("memory", "data", "reference")

#: Places that can't be written.
_READ_ONLY = ("http", "https", "zip", "tar", "libarchive", "github", "git", "gist", "jupyter", "cached",
              "blockcache", "filecache", "simplecache", "dir")  # fmt: skip


def protocol_of(url: str) -> str:
    """Return what stands before ://, in small letters; "" for a path."""
    return url.partition("://")[0].lower() if "://" in url else ""


def checked_store(url: str) -> str:
    """Return the URL of a store as settings keep it: a folder as an absolute path, no slash at the end.

    Raises:
        WorkspaceError: no store can be there, or the URL holds a secret, which is in no message.
    """
    protocol = protocol_of(url)
    if not protocol:
        return os.path.abspath(expanded(Path(url))) if url else url
    refuse_unusable(url)
    if protocol in FOLDERS:
        return url
    return f"{protocol}://{url.partition('://')[2].rstrip('/')}"


def refuse_unusable(url: str) -> None:
    """Raise WorkspaceError as `checked_store` does."""
    protocol, rest = protocol_of(url), url.partition("://")[2]
    if protocol in FOLDERS:
        return
    _refuse_secret(url, protocol)
    if protocol in _UNLASTING:
        raise WorkspaceError(
            f"store {url}: it would be gone when the command ends; give a folder or an object store, "
            "such as s3://BUCKET/PREFIX"
        )
    if protocol in _READ_ONLY or "::" in url.partition("://")[2]:
        raise WorkspaceError(
            f"store {url}: ddiseg can't write there; give a folder or an object store, such as "
            "s3://BUCKET/PREFIX"
        )
    parts = rest.rstrip("/").split("/")
    odd = any(part in ("", ".", "..") for part in parts) or not rest.isprintable()
    if odd and protocol in OBJECT_STORES:
        raise WorkspaceError(
            f"store {protocol}://{ascii(rest)[1:-1]}: write {protocol}://BUCKET or {protocol}://BUCKET/PREFIX, "
            "without empty parts, '.', '..' and control characters"
        )


def _refuse_secret(url: str, protocol: str) -> None:
    """Refuse a password, a key or a signature in a URL: it would stand in ddiseg.toml and in messages."""
    authority = url.partition("://")[2].partition("/")[0]
    account, at, host = authority.rpartition("@")
    port = host.partition(":")[2]  # or a secret with a slash in it
    of_bucket = protocol in OBJECT_STORES and (
        (at and not protocol.startswith("abfs"))
        or (":" in authority and not authority.startswith("arn:"))
        or "?" in url
    )
    if (
        of_bucket
        or ":" in account
        or not (port.isdigit() or not port or authority.startswith("arn:"))
    ):
        raise WorkspaceError(
            f"store {protocol}://... was given with a key, a password or a query in its URL, which would "
            "stand in ddiseg.toml and in messages: leave them out, and set the credentials in the "
            "environment, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def endpoint() -> str:
    """Return the endpoint for S3 in the environment, without user and password; "" where there is none."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
