"""`ddiseg init`: make a workspace, or upgrade one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ddiseg.cli.common import Command, Settings, pass_settings
from ddiseg.locate import SETTINGS, enclosing, place_to_make


@click.command("init", cls=Command)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option(
    "--catalogue",
    metavar="URL",
    help="Place of the catalogue: postgresql+psycopg://USER@HOST/DATABASE without a password, or env:NAME or "
    "file:PATH that holds the URL.  [default: env:DDISEG_CATALOGUE_URL where that is set, else "
    "catalogue.sqlite in the workspace]",
)
@click.option(
    "--store",
    metavar="URL",
    help="Folder, or s3://BUCKET/PREFIX (gs://, abfs://), for images, masks and models.  "
    "[default: store in the workspace]",
)
@click.option(
    "--shared-group",
    metavar="GROUP",
    help="Let the members of this group of the machine read and write the workspace, too.",
)
@pass_settings
def init(
    settings: Settings,
    directory: Path | None,
    catalogue: str | None,
    store: str | None,
    shared_group: str | None,
) -> None:
    """Make a workspace, or upgrade one to this version.

    Where DIRECTORY is left out, that is --workspace, or else the current folder; inside another
    workspace it must be named. An older catalogue is upgraded and keeps all its rows; run again,
    this changes nothing. ddiseg.toml never holds a password. A workspace is closed to other users of the machine (mode 0700, or 2770 with
    --shared-group); one that is open is closed by this. Releases are written as any other file.

    An object store takes its credentials from the environment. It is checked first: a small file is
    written, read, listed and deleted there. Several workspaces may use one store.
    """
    from ddiseg.errors import WorkspaceError
    from ddiseg.workspace.catalogue_location import ENVIRONMENT, VARIABLE
    from ddiseg.workspace.workspace import Workspace

    root = place_to_make(directory, settings.workspace, settings.named_by)
    outcome = "made"
    if (root / SETTINGS).exists():
        try:
            Workspace.open(root).catalogue.close()
            outcome = "unchanged"
        except WorkspaceError:  # of an older schema, or without its catalogue
            outcome = "upgraded"
    elif catalogue is None and os.environ.get(VARIABLE):
        catalogue = ENVIRONMENT + VARIABLE
    workspace = Workspace.create(root, catalogue, store, shared_group=shared_group)
    workspace.catalogue.close()
    around = enclosing(root.parent)
    data = {
        "workspace": str(root),
        "outcome": outcome,
        "catalogue": str(workspace.location),
        "store": workspace.store.url,
        "inside": str(around) if around else None,
    }
    place = f"\n  catalogue: {workspace.location}" if workspace.location.setting else ""
    note = f"\n  it is inside the workspace {around}" if around else ""
    settings.emit(data, f"workspace {root}: {outcome}{place}{note}")
