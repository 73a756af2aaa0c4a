"""`ddiseg restore`: replace the catalogue by a backup."""

from __future__ import annotations

from pathlib import Path

import click

from ddiseg.cli.common import Command, Settings, pass_settings


@click.command("restore", cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--force", is_flag=True, help="Also a catalogue of which most photographs are not in the store."
)
@pass_settings
def restore(settings: Settings, file: Path, force: bool) -> None:
    """Replace the catalogue by a backup.

    FILE is checked first: a catalogue whose photographs are mostly not in the store is another workspace's. A backup of an older schema is upgraded. The catalogue that is replaced is kept in the
    workspace's folder backups. After any error the catalogue is as it was.
    """
    from ddiseg.workspace.restore import restore as replace

    done = replace(settings.root(), file, force=force)
    kept = f"; the one before is kept as {done.kept}" if done.kept else ""
    lacking = ""
    if done.stored < done.expected:
        lacking = (
            f"  {done.stored} of {done.expected} photographs of this catalogue are in the store: copy the "
            "store back, or import the originals again\n"
        )
    settings.emit(
        {
            "file": str(file),
            "schema": done.schema,
            "kept": str(done.kept) if done.kept else None,
            "images": done.images,
            "masks": done.masks,
            "key": done.key,
            "warning": done.warning,
            "photographs_in_store": done.stored,
            "photographs_expected": done.expected,
        },
        f"restored {done.images} images and {done.masks} masks from {file}{kept}\n"
        + lacking
        + "  the secret of the pseudonyms, too\n" * done.key
        + (f"  WARNING: {done.warning}\n" if done.warning else "")
        + "  next: 'ddiseg verify', then 'ddiseg label pull --full' if you use Label Studio",
    )
