"""`ddiseg show`, `skip` and `reopen`: one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotation_protocol import load_protocol
from ddiseg.cli.common import Command, Settings, pass_settings
from ddiseg.errors import InputError

_REASONS = load_protocol().skip_reasons


@click.command("show", cls=Command)
@click.argument("image")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Write photograph, accepted mask and prediction side by side; no file is overwritten.",
)
@pass_settings
def show(settings: Settings, image: str, picture: Path | None) -> None:
    """Show all that is known of IMAGE: details, masks, reviews, skips and events.

    IMAGE is a file name with or without its ending, DATASET:NAME, or '#ID' (in quotes).
    """
    from ddiseg.report.side_by_side import write_picture
    from ddiseg.workspace.image_record import describe

    workspace = settings.open()
    found = workspace.catalogue.images.find(image)
    data = describe(workspace, found)
    if picture is not None:
        write_picture(workspace, found, picture)
        data["picture"] = str(picture)
    settings.emit(data, "\n".join(_lines(data)))


@click.command("skip", cls=Command)
@click.argument("image")
@click.option(
    "--reason",
    type=click.Choice([reason.key for reason in _REASONS]),
    required=True,
    help="; ".join(f"{reason.key}: {reason.label}" for reason in _REASONS) + ".",
)
@click.option("--note", help="What should be known besides; needed where the reason is 'other'.")
@click.option("--annotator", help="Who says so.  [default: your user name]")
@pass_settings
def skip(
    settings: Settings, image: str, reason: str, note: str | None, annotator: str | None
) -> None:
    """Set IMAGE aside: it can't be labelled, for a reason of the protocol.

    A skipped image is neither painted, drawn nor exported; 'ddiseg reopen' takes it back.
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


@click.command("reopen", cls=Command)
@click.argument("image")
@click.option("--annotator", help="Who says so.  [default: your user name]")
@pass_settings
def reopen(settings: Settings, image: str, annotator: str | None) -> None:
    """Take IMAGE back to work: a skipped one to the queue, or to review where it
    was painted on the labelling server; an accepted one to rework.

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


#: Details in the order in which they are printed.
_SHOWN = (
    *("dataset", "tone", "tone_source", "fitzpatrick", "malignant", "malignant_source"),
    *("diagnosis", "patient", "lesion", "content_hash", "perceptual_hash"),
)


def _lines(data: dict[str, Any]) -> list[str]:
    lines = [f"{data['name']} (#{data['id']}): {data['state']}"]
    lines += [f"  {key.replace('_', ' ')}: {_said(data[key])}" for key in _SHOWN]
    if data["in_place"]:
        lines.append(f"  in place: {data['in_place']}")
    lines.append(f"  size: {data['width']} x {data['height']}")
    lines.append(f"  files: {', '.join(data['files'])}")
    for mask in data["masks"]:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in (mask["shares"] or {}).items())
        mark = ", accepted" if mask["accepted"] else ""
        lines.append(
            f"  mask #{mask['id']} by {mask['author']}{mark}: "
            f"{mask['width']} x {mask['height']} {mask['mapping']}, {shares or 'file damaged'}"
        )
    for estimate in data["malignancy_estimates"]:
        learned = ", which learned from this image" if estimate["learned_from"] else ""
        lines.append(
            f"  malignant with probability {estimate['probability']:.2f} by {estimate['model']}"
            f"{learned}: {estimate['note']}"
        )
    for review in data["reviews"]:
        comment = f": {review['comment']}" if review["comment"] else ""
        lines.append(
            f"  review of mask #{review['mask_id']}: {review['verdict']} by {review['reviewer']}{comment}"
        )
    for skipped in data["skips"]:
        note = f": {skipped['note']}" if skipped["note"] else ""
        lines.append(f"  skipped by {skipped['annotator']}, {skipped['reason']}{note}")
    for event in data["events"]:
        change = ""
        if event["state_after"]:
            change = f" {event['state_before'] or 'nothing'} -> {event['state_after']}"
        lines.append(f"  {event['at'][:19]}Z  {event['kind']} by {event['actor']}{change}")
    if "picture" in data:
        lines.append(f"  picture: {data['picture']}")
    return lines


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)


COMMANDS: tuple[click.Command, ...] = (show, skip, reopen)
