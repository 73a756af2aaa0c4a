"""The accounts of the embedded Label Studio: generated once, kept in secrets.json."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ddiseg.errors import ServerError, WorkspaceError
from ddiseg.labelstudio.embedded.settings import environment_variables
from ddiseg.labelstudio.folder import Folder, damaged, read_json, write_json

SCRIPT = Path(__file__).with_name("django_accounts.py")
ROLES = ("admin", "annotator", "reviewer")


@dataclass(frozen=True)
class Account:
    """A person's way into the embedded server; `token` is for its API."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def read_accounts(root: Path) -> dict[str, Account]:
    """The accounts of a workspace by role; raises WorkspaceError where there are none."""
    path = Folder(root).secrets
    content = read_json(path)
    if content is None:
        raise WorkspaceError(f"{path} is missing: 'ddiseg label up' makes the accounts")
    try:
        return {role: Account(**content[role]) for role in ROLES}
    except (KeyError, TypeError) as error:
        raise damaged(path) from error


def generate_accounts(folder: Folder) -> None:
    """Write secrets.json, where it is not there yet; the server does not know them by that."""
    if folder.secrets.exists():
        return
    new = {
        role: Account(f"{role}@ddiseg.local", secrets.token_urlsafe(12), secrets.token_hex(20))
        for role in ROLES
    }
    write_json(folder.secrets, {role: asdict(account) for role, account in new.items()})


def put_into_database(folder: Folder, environment: Path) -> None:
    """Make Label Studio's database agree with secrets.json, while its server runs.

    Its own Python does it (`environment`). Secrets go by standard input, where `ps` does not see
    them. Raises ServerError where it fails.
    """
    accounts = read_accounts(folder.root)
    wanted = [{**asdict(a), "superuser": role == "admin"} for role, a in accounts.items()]
    with open(folder.log, "ab") as log:
        done = subprocess.run(
            [str(environment / "bin" / "python"), "-I", str(SCRIPT)],
            input=json.dumps(wanted).encode(),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment_variables(folder),
            check=False,
        )
    if done.returncode:
        raise ServerError(
            f"Label Studio's accounts can't be made: {folder.last_words()}; run 'ddiseg label up' again"
        )
