"""The labelling server of a workspace, for commands that talk to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ddiseg.labelstudio.connection import Connection
    from ddiseg.labelstudio.pull import Pulled
    from ddiseg.workspace.workspace import Workspace


def connection_of(workspace: Workspace) -> Connection:
    """The server that the workspace works with; its token is asked for on a terminal if need be."""
    from ddiseg.labelstudio.connection import find

    return find(workspace.root, ask_token if sys.stdin.isatty() else None)


def taken_lines(done: Pulled, what: str, command: str) -> list[str]:
    """Say what others had taken before a pull, lest "0 annotations" look as if nothing was done."""
    if not done.taken:
        return []
    since = f"since the last '{command}' ({done.since[:16]} UTC)" if done.since else "before"
    return [f"already taken {since} by 'ddiseg serve' or a round: {done.taken} {what}"]


def ask_token(url: str) -> str:
    token: str = click.prompt(f"Token for {url} (it is not shown)", hide_input=True, err=True)
    return token
