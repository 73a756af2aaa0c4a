"""`ddiseg batch`: the images to label next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import Command, Group, Settings, common_options, pass_settings, sizes_by_tone
from ddiseg.cli.params import Percent, tone_option

if TYPE_CHECKING:
    from ddiseg.catalogue.batches import Member


@click.group("batch", cls=Group, params=common_options())
def batch() -> None:
    """Choose the images to label next; list, show and close batches."""


@batch.command("draw", cls=Command)
@click.argument("name")
@click.option(
    "--size",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    metavar="N",
    help="Number of images.",
)
@click.option(
    "--strategy",
    type=click.Choice(["mixed", "random", "quality", "uncertainty", "diversity"]),
    default="mixed",
    show_default=True,
    help="Within a tone: the predictions with the lowest expected IoU, those whose members disagree "
    "most, what is farthest from all that is labelled, or, mixed, the farthest among those with the "
    "lowest expected IoU.",
)
@click.option(
    "--focus",
    type=click.Choice(["worst-tone"]),
    help="Move a third of the other tones' images to the tone whose lesion IoU has the lowest "
    "lower bound, by the newest scores of the model in use; one with too few counts as lowest.",
)
@click.option("--towards", type=click.Choice(["worst"]), hidden=True)
@click.option(
    "--random-share",
    type=Percent(),
    default=20.0,
    metavar="PERCENT",
    help="Share chosen at random whatever the strategy: these images test the model without bias.  "
    "[default: 20]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other images.")
@tone_option
@click.option("--strict", is_flag=True, help="Refuse where a tone can't be filled.")
@pass_settings
def draw(
    settings: Settings,
    name: str,
    size: int,
    strategy: str,
    focus: str | None,
    towards: str | None,
    random_share: float,
    seed: int,
    tones: tuple[str, ...],
    strict: bool,
) -> None:
    """Choose the batch NAME among images that nobody has begun, as many of each tone group.

    Images that annotators have already are taken only where the others are too few, and only those
    that nobody has begun. What a tone lacks goes to the others. Of a patient and of near-duplicates at most one image is
    taken, and none that is related to one that is labelled or in an open batch, as long as there
    are others. New images are queued. The same request again is unchanged.
    """
    from ddiseg.sampling.batches import BatchRequest, draw_batch
    from ddiseg.sampling.strategies import Strategy
    from ddiseg.workspace.workspace import default_actor

    request = BatchRequest(
        size, Strategy(strategy), bool(focus or towards), random_share, seed, tones
    )
    workspace = settings.open()
    drawn = draw_batch(workspace.catalogue, name, request, default_actor(), strict=strict)
    outcome = "added" if drawn.new else "unchanged"
    lines = [f"{name}: {outcome}, {sizes_by_tone(drawn.by_tone)}"]
    lines += [f"  note     {note}" for note in drawn.notes]
    lines += [f"  lacking  {lack}" for lack in drawn.lacking]
    lines += [_line(member) for member in drawn.members]
    step = _next_step(name, [member.image.state for member in drawn.members])
    lines += [f"next: {step}"] if step else []
    data = {
        "batch": name,
        "outcome": outcome,
        "n": len(drawn.members),
        "by_tone": drawn.by_tone,
        "notes": drawn.notes,
        "lacking": drawn.lacking,
        "images": [_as_dict(member) for member in drawn.members],
        "next": step,
    }
    settings.emit(data, "\n".join(lines))


@batch.command("list", cls=Command)
@pass_settings
def list_batches(settings: Settings) -> None:
    """List the batches: their sizes, whether open, and how much of them is settled."""
    from ddiseg.catalogue import SETTLED

    catalogue = settings.open().catalogue
    counts = catalogue.batches.counts()
    rows: list[dict[str, Any]] = []
    for each in catalogue.batches.all():
        by_tone: Counter[str] = Counter()
        settled = 0
        for (tone, state), n in counts[each.name].items():
            by_tone[tone] += n
            settled += n if state in SETTLED else 0
        rows.append(
            {
                "name": each.name,
                "n": sum(by_tone.values()),
                "by_tone": dict(by_tone),
                "settled": settled,
                "origin": each.origin,
                "drawn_at": each.created_at,
                "closed_at": each.closed_at,
            }
        )
    lines = [
        f"{row['name']}: {sizes_by_tone(row['by_tone'])}, {'closed' if row['closed_at'] else 'open'}, "
        f"{row['settled']} accepted or skipped"
        for row in rows
    ]
    settings.emit({"batches": rows}, "\n".join(lines) or "no batches yet: 'ddiseg batch draw'")


@batch.command("show", cls=Command)
@click.argument("name")
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Show how the batch NAME was chosen, and why each image is in it."""
    catalogue = settings.open().catalogue
    drawn = catalogue.batches.get(name)
    members = catalogue.batches.members(name)
    closed = f"closed {drawn.closed_at}" if drawn.closed_at else "open"
    by_tone = Counter(member.image.tone for member in members)
    request = drawn.drawn_by["request"]
    asked = ", ".join(f"{key} {_plain(value)}" for key, value in request.items() if value)
    lines = [
        f"{name}: {sizes_by_tone(by_tone)}, drawn by a {drawn.origin} {drawn.created_at}, {closed}",
        f"  request  {asked}",
    ]
    lines += [f"  model    {model}" for model in [drawn.drawn_by["model"]] if model]
    lines += [f"  note     {note}" for note in drawn.drawn_by["notes"]]
    lines += [f"  lacking  {lack}" for lack in drawn.drawn_by["lacking"]]
    lines += [_line(member) for member in members]
    data = {
        "name": name,
        "origin": drawn.origin,
        "drawn_at": drawn.created_at,
        "closed_at": drawn.closed_at,
        "drawn_by": drawn.drawn_by,
        "images": [_as_dict(member) for member in members],
    }
    settings.emit(data, "\n".join(lines))


@batch.command("close", cls=Command)
@click.argument("name")
@pass_settings
def close(settings: Settings, name: str) -> None:
    """Close the batch NAME: its images that nobody has begun may be chosen again."""
    from ddiseg.workspace.workspace import default_actor

    new = settings.open().catalogue.batches.close(name, default_actor())
    text = "closed" if new else "unchanged: it was closed before"
    settings.emit({"batch": name, "outcome": "closed" if new else "unchanged"}, f"{name}: {text}")


def _next_step(name: str, states: Sequence[str]) -> str | None:
    """What to do with a batch whose images are in `states`; None: nothing is left to do."""
    from ddiseg.catalogue import SETTLED

    if set(states) <= set(SETTLED):
        return None
    with_annotators = "in_labelling" in states
    what = "make its tab for the annotators" if with_annotators else "give it to annotators"
    return f"{what}: ddiseg label push --batch {name}"


def _line(member: Member) -> str:
    image = member.image
    how = "at random" if member.random else "chosen"
    return f"#{image.id}  {image.name}  {image.tone}  {image.state}  {how}: {member.reason}"


def _as_dict(member: Member) -> dict[str, Any]:
    image = member.image
    return {
        "id": image.id,
        "name": image.name,
        "tone": image.tone,
        "state": image.state,
        "random": member.random,
        "reason": member.reason,
    }


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
