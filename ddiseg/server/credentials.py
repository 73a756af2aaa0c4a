"""Who may talk to the server: one account for the labelling server, one secret for its webhooks."""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ddiseg.errors import InputError
from ddiseg.labelstudio.folder import Folder, damaged, read_json, write_json

#: Environment variables that take the place of what the file says.
VARIABLES = {
    "user": "DDISEG_SERVER_USER",
    "password": "DDISEG_SERVER_PASSWORD",
    "webhook_secret": "DDISEG_WEBHOOK_SECRET",
}


#: What a webhook's secret is made of: letters that stand in an address as they are (RFC 3986, 2.3).
_IN_ADDRESSES = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True)
class Credentials:
    """What a request must bring. Compared in constant time, and never printed."""

    user: str
    password: str = field(repr=False)  #: also the token of `Authorization: Bearer`
    webhook_secret: str = field(repr=False)  #: may stand in an address, see `_IN_ADDRESSES`

    def allow(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header, Basic or Bearer, is this account's."""
        scheme, _, rest = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(rest.strip(), self.password)
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(rest, validate=True).partition(b":")
        except (binascii.Error, ValueError):  # ValueError: letters that no base64 has
            return False
        # Both are compared whatever the first one says: the time must not tell which is wrong.
        return _same(user, self.user) & _same(password, self.password)

    def knows(self, secret: str | None) -> bool:
        """Whether a webhook's secret is the right one."""
        return _same(secret or "", self.webhook_secret)


def credentials_file(root: Path) -> Path:
    """Where a workspace keeps them, readable by its owner alone."""
    return Folder(root).path / "backend.json"


def ensure_credentials(root: Path) -> Credentials:
    """The credentials of a workspace, made the first time; the environment goes before the file.

    Raises WorkspaceError where the file is damaged, InputError where a variable is set to nothing,
    or to a webhook's secret that no address can hold.
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
    if secret is not None and (not _IN_ADDRESSES.fullmatch(secret) or set(secret) == {"."}):
        raise InputError(
            f"{VARIABLES['webhook_secret']} can't stand in an address as it is: "
            "make it of A-Z a-z 0-9 - _ . ~, for example with 'openssl rand -hex 24'"
        )
    return replace(found, **given)


def _same(given: str | bytes, wanted: str) -> bool:
    if isinstance(given, str):
        given = given.encode("utf-8", "surrogatepass")
    return secrets.compare_digest(given, wanted.encode())
