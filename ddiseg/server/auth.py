"""Authentication: one account for the labelling server, one secret for its webhooks.

`RequestGuard` is a plain ASGI layer, because a framework would read a body before it checks the
sender.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ddiseg.errors import InputError
from ddiseg.labelstudio.folder import Folder, damaged, read_json, write_json

#: A header, or else the last part of the path, holds a webhook's secret.
SECRET_HEADER = "x-ddiseg-secret"
WEBHOOK = "/webhook"
HEALTH = "/health"

#: Environment variables that override the file.
VARIABLES = {
    "user": "DDISEG_SERVER_USER",
    "password": "DDISEG_SERVER_PASSWORD",
    "webhook_secret": "DDISEG_WEBHOOK_SECRET",
}


#: Characters that a URL holds unescaped (RFC 3986, 2.3).
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True)
class Credentials:
    """The account and the webhook secret. Compared in constant time, and never printed."""

    user: str
    password: str = field(repr=False)  #: also the token of `Authorization: Bearer`
    webhook_secret: str = field(repr=False)  #: part of a URL, see `_UNRESERVED`

    def allow(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header (Basic or Bearer) is valid for this account."""
        scheme, _, rest = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(rest.strip(), self.password)
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(rest, validate=True).partition(b":")
        except (binascii.Error, ValueError):  # ValueError: not ASCII
            return False
        # Always compare both: the time must not tell which one is wrong.
        return _same(user, self.user) & _same(password, self.password)

    def allow_webhook(self, secret: str | None) -> bool:
        """Whether `secret` is the webhook secret."""
        return _same(secret or "", self.webhook_secret)


def credentials_file(root: Path) -> Path:
    """Return the path of a workspace's credentials; only the owner can read the file."""
    return Folder(root).path / "backend.json"


def ensure_credentials(root: Path) -> Credentials:
    """Return the credentials of a workspace, generated on first use; the environment overrides the file.

    Raises:
        WorkspaceError: the file is damaged.
        InputError: a variable is empty, or holds a webhook secret that cannot be part of a URL.
    """
    Folder(root).make()
    path = credentials_file(root)
    content = read_json(path)
    if content is None:
        new = Credentials("ddiseg", secrets.token_urlsafe(24), secrets.token_urlsafe(24))
        write_json(path, asdict(new))
        return _from_environment(new)
    texts = {name: content.get(name) for name in VARIABLES}
    if not all(isinstance(text, str) and text for text in texts.values()):
        raise damaged(path)
    return _from_environment(Credentials(**{name: str(text) for name, text in texts.items()}))


def _from_environment(found: Credentials) -> Credentials:
    given = {name: os.environ[v] for name, v in VARIABLES.items() if v in os.environ}
    for name, text in given.items():
        if not text.strip():
            raise InputError(f"{VARIABLES[name]} is set to nothing: give it a value, or unset it")
    secret = given.get("webhook_secret")
    if secret is not None and (not _UNRESERVED.fullmatch(secret) or set(secret) == {"."}):
        raise InputError(
            f"{VARIABLES['webhook_secret']} can't stand in an address as it is: "
            "make it of A-Z a-z 0-9 - _ . ~, for example with 'openssl rand -hex 24'"
        )
    return replace(found, **given)


def _same(given: str | bytes, expected: str) -> bool:
    if isinstance(given, str):
        given = given.encode("utf-8", "surrogatepass")
    return secrets.compare_digest(given, expected.encode())


class RequestGuard:
    """Refuse requests without credentials (401) and bodies of more than `max_body` bytes (413)."""

    def __init__(self, app: ASGIApp, credentials: Credentials, max_body: int) -> None:
        self._app, self._credentials, self._max_body = app, credentials, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._allowed(scope["path"], headers):
            refusal = JSONResponse(
                {"detail": "wrong or no credentials"}, 401, {"WWW-Authenticate": "Basic"}
            )
            await refusal(scope, receive, send)
        elif int(_digits(headers.get("content-length"))) > self._max_body:
            refused = self._too_large()
            await JSONResponse({"detail": refused.detail}, 413)(scope, receive, send)
        else:
            await self._app(scope, self._counted(receive), send)

    def _allowed(self, path: str, headers: Headers) -> bool:
        authorization = headers.get("authorization")
        if path == HEALTH and authorization is None:
            return True
        if path == WEBHOOK or path.startswith(f"{WEBHOOK}/"):
            secret = headers.get(SECRET_HEADER) or path[len(WEBHOOK) + 1 :]
            if self._credentials.allow_webhook(secret):
                return True
        return self._credentials.allow(authorization)

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_body:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> HTTPException:
        most = self._max_body / 1e6
        return HTTPException(
            413, f"the body is over {most:g} MB: see --max-body-mb of ddiseg serve"
        )


def _digits(text: str | None) -> str:
    return text if text is not None and text.isascii() and text.isdigit() else "0"
