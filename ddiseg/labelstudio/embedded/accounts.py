"""Accounts of the embedded Label Studio, generated once and stored in secrets.json."""

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
    """A login of the embedded server, and its API token."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def read_accounts(root: Path) -> dict[str, Account]:
    """Return the accounts of a workspace by role; raises WorkspaceError if there are none."""
    path = Folder(root).secrets
    content = read_json(path)
    if content is None:
        raise WorkspaceError(f"{path} is missing: 'ddiseg label up' makes the accounts")
    try:
        return {role: Account(**content[role]) for role in ROLES}
    except (KeyError, TypeError) as error:
        raise damaged(path) from error


def generate_accounts(folder: Folder) -> None:
    """Write secrets.json if it is missing; `put_into_database` tells the server."""
    if folder.secrets.exists():
        return
    new = {
        role: Account(f"{role}@ddiseg.local", secrets.token_urlsafe(12), secrets.token_hex(20))
        for role in ROLES
    }
    write_json(folder.secrets, {role: asdict(account) for role, account in new.items()})


def put_into_database(folder: Folder, environment: Path) -> None:
    """Write the accounts of secrets.json into Label Studio's database, while its server runs.

    A script of its own Python (`environment`) does this. Secrets are passed by standard input, where
    `ps` does not show them.

    Raises:
        ServerError: the script failed.
    """
    accounts = read_accounts(folder.root)
    content = [{**asdict(a), "superuser": role == "admin"} for role, a in accounts.items()]
    with open(folder.log, "ab") as log:
        result = subprocess.run(
            [str(environment / "bin" / "python"), "-I", str(SCRIPT)],
            input=json.dumps(content).encode(),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment_variables(folder),
            check=False,
        )
    if result.returncode:
        raise ServerError(
            f"Label Studio's accounts can't be made: {folder.log_excerpt()}; run 'ddiseg label up' again"
        )
