"""What stands before the application: no body is read for strangers, and none without end.

A plain ASGI layer, since frameworks read a body before they ask who sent it.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ddiseg.server.credentials import Credentials

#: A header, or else the last part of the path, holds a webhook's secret.
SECRET_HEADER = "x-ddiseg-secret"
WEBHOOK = "/webhook"
HEALTH = "/health"


class RequestGuard:
    """Refuses strangers with 401, and bodies of more than `max_body` bytes with 413."""

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
            if self._credentials.knows(secret):
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
