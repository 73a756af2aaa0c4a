"""`ddiseg skip`: set an image aside that can't be labelled."""

from __future__ import annotations

import click

from annotation_protocol import load_protocol
from ddiseg.cli.common import Command, Settings, pass_settings
from ddiseg.errors import InputError

_REASONS = load_protocol().skip_reasons


@click.command("skip", cls=Command)
@click.argument("image")
@click.option(
    "--reason",
    type=click.Choice([reason.key for reason in _REASONS]),
    required=True,
    help="; ".join(f"{reason.key}: {reason.label}" for reason in _REASONS) + ".",
)
@click.option("--note", help="A remark; needed where the reason is 'other'.")
@click.option("--annotator", help="Who says so.  [default: your user name]")
@pass_settings
def skip(
    settings: Settings, image: str, reason: str, note: str | None, annotator: str | None
) -> None:
    """Set an image aside that can't be labelled.

    A skipped image is neither predicted, chosen nor exported; 'ddiseg reopen' takes it back.
    """
    from ddiseg.workspace.workspace import default_actor

    note = (note or "").strip() or None
    if note is None and load_protocol().skip_reason(reason).needs_note:
        raise InputError(f"reason '{reason}' needs a --note that says why")
    images = settings.open().catalogue.images
    found = images.find(image)
    outcome = images.skip(found.id, reason, note, annotator or default_actor())
    settings.emit(
        {"id": found.id, "name": found.name, "reason": reason, "outcome": outcome.value},
        f"{found.name} (#{found.id}): skipped, {reason}"
        + (" (unchanged)" if outcome.value == "unchanged" else ""),
    )
