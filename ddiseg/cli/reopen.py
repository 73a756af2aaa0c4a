"""`ddiseg reopen`: take an image back to work."""

from __future__ import annotations

import click

from ddiseg.cli.common import Command, Settings, pass_settings


@click.command("reopen", cls=Command)
@click.argument("image")
@click.option("--annotator", help="Who says so.  [default: your user name]")
@pass_settings
def reopen(settings: Settings, image: str, annotator: str | None) -> None:
    """Take a skipped or an accepted image back to work.

    A skipped IMAGE goes back to the queue, or to review where it was annotated on the labelling
    server; an accepted one goes to rework.

    Its masks and reviews stay on record; until another mask is accepted it counts for no training.
    """
    from ddiseg.workspace.workspace import default_actor

    images = settings.open().catalogue.images
    found = images.find(image)
    images.reopen(found.id, annotator or default_actor())
    now = images.find(f"#{found.id}")
    settings.emit(
        {"id": now.id, "name": now.name, "state": now.state}, f"{now.name} (#{now.id}): {now.state}"
    )
