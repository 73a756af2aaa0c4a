"""`ddiseg show`: the record of one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddiseg.cli.common import Command, Settings, pass_settings


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
    """Show the record of one image: details, masks, reviews, events.

    IMAGE is a file name with or without its ending, DATASET:NAME, or '#ID' (in quotes).
    """
    from ddiseg.workspace.image_record import describe

    workspace = settings.open()
    found = workspace.catalogue.images.find(image)
    data = describe(workspace, found)
    if picture is not None:
        from ddiseg.report.contact_sheet import write_picture  # slow to import

        write_picture(workspace, found, picture)
        data["picture"] = str(picture)
    settings.emit(data, "\n".join(_lines(data)))


#: Details in the order in which they are printed.
_SHOWN = (
    *("dataset", "tone", "tone_source", "fitzpatrick", "malignant", "malignant_source"),
    *("diagnosis", "patient", "lesion", "content_hash", "perceptual_hash"),
)


def _lines(data: dict[str, Any]) -> list[str]:
    lines = [f"{data['name']} (#{data['id']}): {data['state']}"]
    lines += [f"  {key.replace('_', ' ')}: {_text(data[key])}" for key in _SHOWN]
    if data["in_place"]:
        lines.append(f"  in place: {data['in_place']}")
    lines.append(f"  size: {data['width']} x {data['height']}")
    lines.append(f"  files: {', '.join(data['files'])}")
    for mask in data["masks"]:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in (mask["shares"] or {}).items())
        mark = ", accepted" if mask["accepted"] else ""
        mark += ", drawn independently" if mask["independent"] else ""
        lines.append(
            f"  mask #{mask['id']} by {mask['author']}{mark}: "
            f"{mask['width']} x {mask['height']} {mask['mapping']}, {shares or 'file damaged'}"
        )
        lines += _doubt(mask)
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
        if precision := event["detail"].get("precision"):
            change += f", in {precision}"
        lines.append(f"  {event['at'][:19]}Z  {event['kind']} by {event['actor']}{change}")
    if "picture" in data:
        lines.append(f"  picture: {data['picture']}")
    return lines


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)


def _doubt(mask: dict[str, Any]) -> list[str]:
    """Return a line on how good a prediction is expected to be; none for a person's mask."""
    from ddiseg.masks import in_words  # slow to import

    if mask["quality"] is not None:
        by_class = ", ".join(f"{name} {value:.2f}" for name, value in mask["expected_iou"].items())
        return [f"    {in_words(mask['quality'])} ({by_class})"]
    if mask["uncertainty"] is not None:
        return [f"    uncertainty {mask['uncertainty']:.3g}: its model tells no expected IoU"]
    return []
