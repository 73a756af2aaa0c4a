"""`ddiseg restore`: replace the catalogue by a backup."""

from __future__ import annotations

from pathlib import Path

import click

from ddiseg.cli.common import Command, Settings, pass_settings


@click.command("restore", cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pass_settings
def restore(settings: Settings, file: Path) -> None:
    """Replace the catalogue by a backup.

    FILE is checked first. A backup of an older schema is upgraded. The catalogue that is replaced is kept in the
    workspace's folder backups. After any error the catalogue is as it was.
    """
    from ddiseg.workspace.restore import restore as replace

    done = replace(settings.root(), file)
    kept = f"; the one before is kept as {done.kept}" if done.kept else ""
    settings.emit(
        {
            "file": str(file),
            "schema": done.schema,
            "kept": str(done.kept) if done.kept else None,
            "images": done.images,
            "masks": done.masks,
            "key": done.key,
            "warning": done.warning,
        },
        f"restored {done.images} images and {done.masks} masks from {file}{kept}\n"
        + "  the secret of the pseudonyms, too\n" * done.key
        + (f"  WARNING: {done.warning}\n" if done.warning else "")
        + "  next: 'ddiseg verify', then 'ddiseg label pull --full' if you use Label Studio",
    )
