"""`ddiseg catalogue`: where the catalogue is, and how it gets to another database."""

from __future__ import annotations

import click

from ddiseg.cli.common import (
    Command,
    Group,
    Settings,
    common_options,
    pass_settings,
    progress_bar,
    stopped_like_ctrl_c,
)


@click.group("catalogue", cls=Group, params=common_options())
def catalogue() -> None:
    """Copy the catalogue to another database, such as PostgreSQL."""


@catalogue.command("copy", cls=Command)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--switch",
    is_flag=True,
    help="Let the workspace FROM use the copy from now on. The old catalogue is kept, and nobody can open it.",
)
@pass_settings
def copy(settings: Settings, source: str, target: str, switch: bool) -> None:
    """Copy the catalogue FROM, from SQLite to PostgreSQL or back.

    FROM and TO are a workspace, an SQLite file, a URL such as postgresql+psycopg://USER@HOST/DATABASE without
    a password, or env:NAME or file:PATH that holds the URL. TO must be empty. People read on meanwhile, and
    whoever writes waits; stop 'ddiseg serve' and the loop first. Each row is compared with its copy at
    the end. A copy that was broken off goes on when the same command runs again, and until then no
    command opens TO.
    """
    from ddiseg.workspace.catalogue_copy import copy_catalogue

    with progress_bar("copy and compare rows") as progress, stopped_like_ctrl_c():
        done = copy_catalogue(source, target, switch=switch, progress=progress)
    settings.emit(done.as_dict(), "\n".join(done.in_words()))
