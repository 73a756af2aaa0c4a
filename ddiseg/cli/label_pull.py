"""`ddiseg label pull`: bring back the work of annotators."""

from __future__ import annotations

import click

from ddiseg.cli.common import (
    Command,
    Settings,
    connection_of,
    pass_settings,
    progress_bar,
    report_pull,
)


@click.command("pull", cls=Command)
@click.option(
    "--full",
    is_flag=True,
    help="Read every task again, not only what changed; finds tasks that were deleted there.",
)
@click.option("--strict", is_flag=True, help="Fail if any annotation is refused.")
@pass_settings
def pull(settings: Settings, full: bool, strict: bool) -> None:
    """Bring back masks and skips from Label Studio.

    Every version of every annotation is kept as a mask of its own. What can't be understood is
    refused, with the link of its task, and nothing else waits for it. Run it as often as you like.
    What 'ddiseg serve' or a round has taken since the last time is counted too.
    """
    from annotation_protocol import load_protocol
    from ddiseg.catalogue import REASON_MISSING, Purpose
    from ddiseg.labelstudio.pull import pull_and_compare
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    connection = connection_of(workspace)
    with progress_bar("Reading tasks") as progress:
        done = pull_and_compare(
            workspace, connection, Purpose.ANNOTATION, default_actor(), full=full, progress=progress
        )
    needs_note = {reason.key for reason in load_protocol().skip_reasons if reason.needs_note}
    skips = [
        skip
        for skip in workspace.catalogue.images.skips()
        if skip.reason == REASON_MISSING or (skip.reason in needs_note and not skip.note)
    ]
    rows = workspace.catalogue.images.select(ids=[skip.image_id for skip in skips])
    names = {image.id: image.name for image in rows}
    unexplained = [f"{names[skip.image_id]} by {skip.annotator}" for skip in skips]
    report_pull(
        settings,
        done,
        "annotation",
        "ddiseg label pull",
        strict=strict,
        extra={"unexplained_skips": unexplained},
        lines=[f"skipped without saying why: {s}; ask, then 'ddiseg skip'" for s in unexplained],
    )
