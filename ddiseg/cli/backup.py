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
    The secret of the pseudonyms, if releases were made, is written beside the backup as FILE.key; 'ddiseg
    restore' puts it back.
    """
    from ddiseg.workspace.backup import backup as write
    from ddiseg.workspace.pseudonym_key import key_of_backup

    workspace = settings.open()
    file = write(workspace, to)
    size, key = file.stat().st_size, key_of_backup(file)
    settings.emit(
        {
            "file": str(file),
            "bytes": size,
            "key": str(key) if key.exists() else None,
            "store": workspace.store.url,
        },
        f"{file}: {size / 1e6:.1f} MB, checked\n"
        + f"  {key}: the secret of the pseudonyms; keep both together\n" * key.exists()
        + f"  the store is not in it; copy it too: "
        f"{workspace.store.url}",
    )
