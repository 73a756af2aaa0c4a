"""`ddiseg backup`: write a backup of the catalogue."""

from __future__ import annotations

from pathlib import Path

import click

from ddiseg.cli.common import Command, Settings, pass_settings


@click.command("backup", cls=Command)
@click.option(
    "--to",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A new file.  [default: a file named by the time, in the workspace's folder backups]",
)
@pass_settings
def backup(settings: Settings, to: Path | None) -> None:
    """Write a backup of the catalogue.

    Other commands and a server may run meanwhile. The catalogue holds what people did: images, masks, reviews, events. The photographs and masks
    themselves are files in the store that never change once written; copy that folder too. Before an
    upgrade 'ddiseg init' writes a backup by itself, and 'ddiseg loop run' and 'ddiseg serve' write one
    a day and keep the last seven (backup.keep and backup.hours of 'ddiseg config').
    """
    from ddiseg.workspace.backup import backup as write

    workspace = settings.open()
    file = write(workspace, to)
    size = file.stat().st_size
    settings.emit(
        {"file": str(file), "bytes": size, "store": workspace.store.url},
        f"{file}: {size / 1e6:.1f} MB, checked\n  the store is not in it; copy it too: "
        f"{workspace.store.url}",
    )
