"""`ddiseg report`: the page that shows where the work stands."""

from __future__ import annotations

from pathlib import Path

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar
from ddiseg.outcomes import counted


@click.command(cls=Command)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    help="File to write.  [default: report.html in the workspace]",
)
@pass_settings
def report(settings: Settings, target: Path | None) -> None:
    """Write one HTML page about the work, to read or to print.

    Counts by tone and state, diagnoses, the last evaluation with its n and intervals, skip reasons
    and subsets; and a contact sheet, on which each photograph stands next to a copy with the
    outlines of its prediction and of its accepted mask, or the true mask of the last evaluation,
    the lowest lesion IoU of each tone first. The page holds its pictures and needs no network. It
    shows photographs of patients: keep it as you keep these. An earlier report is replaced, any
    other file is not.
    """
    from ddiseg.report.page import write_report

    workspace = settings.open()
    with progress_bar("report") as progress:
        summary = write_report(workspace, target, progress=progress)
    for reason in summary.unreadable:
        click.echo(f"not shown: {reason}", err=True)
    size = summary.path.stat().st_size
    settings.emit(
        {
            "report": str(summary.path),
            "images": summary.images,
            "shown": summary.shown,
            "unreadable": list(summary.unreadable),
            "bytes": size,
        },
        f"report of {counted(summary.images, 'image')}, {summary.shown} of them shown "
        f"({size / 1e6:.1f} MB): {summary.path}",
    )
