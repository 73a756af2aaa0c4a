"""Who a request comes from."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tests.fake_label_studio.routing import RefusedError

if TYPE_CHECKING:
    from tests.fake_label_studio.rows import User

#: How long an access token lives, and how long the personal one that buys it.
ACCESS_SECONDS = 300
_PERSONAL_SECONDS = 200 * 365 * 86_400


class Tokens:
    """Legacy tokens, personal access tokens, and the access tokens that these are exchanged for."""

    def __init__(self) -> None:
        self.legacy_enabled = True
        self._key = secrets.token_bytes(16)
        self._personal: dict[str, User] = {}
        self._access: dict[str, tuple[User, datetime]] = {}

    def personal(self, user: User, now: datetime) -> str:
        token = self._sign(user, "refresh", now, _PERSONAL_SECONDS)
        self._personal[token] = user
        return token

    def access(self, personal: str, now: datetime) -> str:
        """Raises RefusedError 401 for a personal access token that is none or revoked."""
        if personal not in self._personal:
            raise RefusedError(
                401, "Token is invalid", headers={"WWW-Authenticate": 'Bearer realm="api"'}
            )
        user = self._personal[personal]
        token = self._sign(user, "access", now, ACCESS_SECONDS)
        self._access[token] = (user, now + timedelta(seconds=ACCESS_SECONDS))
        return token

    def revoke(self) -> None:
        """Revoke every personal access token; what was bought with it lives on."""
        self._personal.clear()

    def expire(self) -> None:
        """Let every access token run out now."""
        self._access.clear()

    def owner(self, authorization: str, users: dict[int, User], now: datetime) -> User:
        """Who sends this Authorization header; raises RefusedError 401 where nobody does."""
        scheme, _, token = authorization.partition(" ")
        if scheme == "Bearer" and token in self._access and self._access[token][1] > now:
            return self._access[token][0]
        if scheme != "Token":
            raise _unauthorized("Authentication credentials were not provided.")
        for user in users.values():
            if user.token == token:
                if not self.legacy_enabled:
                    raise _unauthorized(
                        "Authentication token no longer valid: legacy token authentication has "
                        "been disabled for this organization"
                    )
                return user
        raise _unauthorized("Invalid token.")

    def _sign(self, user: User, kind: str, now: datetime, seconds: int) -> str:
        """A JSON Web Token: the SDK tells a personal token from a legacy one by reading it."""
        issued = int(now.timestamp())
        claims = {
            "token_type": kind,
            "exp": issued + seconds,
            "iat": issued,
            "jti": secrets.token_hex(16),
            "user_id": str(user.id),
        }
        signed = ".".join(
            _base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)
        )
        return f"{signed}.{_base64(hmac.digest(self._key, signed.encode(), hashlib.sha256))}"


def _unauthorized(detail: str) -> RefusedError:
    return RefusedError(401, detail, headers={"WWW-Authenticate": "Token"})


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
