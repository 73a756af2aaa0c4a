"""`ddiseg label push` and `ddiseg label pull`: give images to annotators, bring their work back."""

from __future__ import annotations

import click

from ddiseg.cli.common import (
    Command,
    Settings,
    pass_settings,
    progress_bar,
    progress_stages,
    report_outcomes,
)
from ddiseg.cli.connecting import connection_of, taken_lines
from ddiseg.cli.tones import sizes_by_tone
from ddiseg.errors import DdisegError


@click.command("push", cls=Command)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--subset", help="Only images of this subset.")
@click.option("--batch", help="Only images of this batch.")
@click.option(
    "--control",
    default=0.0,
    metavar="PERCENT",
    help="Withhold the prediction from this share of the new images, the same of every tone: it "
    "measures what the painting does to people.  [default: 0]",
)
@click.option(
    "--readers",
    default=1,
    metavar="N",
    help="People who annotate each image, each without seeing the others' work.  [default: 1]",
)
@click.option(
    "--sample",
    default=100.0,
    metavar="PERCENT",
    help="Only this share of the new images, the same of every tone, gets --readers N.  [default: all, new or not]",
)
@click.option("--seed", default=0, show_default=True, help="Seed of both draws.")
@click.option(
    "--hide-tone",
    is_flag=True,
    help="Leave the tone out of the tasks: annotators work blind to it.",
)
@click.option(
    "--longest",
    default=1600,
    show_default=True,
    help="Longest side in pixels of the copies that people see; masks scale back exactly.",
)
@click.option("--strict", is_flag=True, help="Fail if any image is refused.")
@pass_settings
def push(
    settings: Settings,
    images: tuple[str, ...],
    subset: str | None,
    batch: str | None,
    control: float,
    readers: int,
    sample: float,
    seed: int,
    hide_tone: bool,
    longest: int,
    strict: bool,
) -> None:
    """Give images to annotators in Label Studio, the newest prediction painted on each.

    Without arguments: every image that is neither submitted, accepted nor skipped. What is there
    already stays; where nobody has begun, a newer prediction replaces the old one. With --batch,
    the images of the batch also get a tab of its name. A returned image shows its reviewer's
    comment. Run again after anything went wrong: no image is sent twice.
    """
    from ddiseg.labelstudio.push import OPEN, PushOptions
    from ddiseg.labelstudio.push import push as give
    from ddiseg.workspace.workspace import default_actor

    if images and (subset or batch):
        raise click.UsageError("Give images by name, or --subset and --batch, not both.")
    options = PushOptions(control, readers, sample, not hide_tone, longest, seed)
    workspace = settings.open()
    catalogue = workspace.catalogue
    if images:
        chosen = catalogue.images.select(ids=[catalogue.images.find(name).id for name in images])
    else:
        ids = None if batch is None else catalogue.batches.image_ids(batch)
        chosen = catalogue.images.select(subset=subset, states=OPEN, ids=ids)
    connection = connection_of(workspace)
    with progress_stages() as stages:
        done = give(workspace, connection, chosen, options, default_actor(), stages, batch=batch)
    lines = [f"new, {arm}: {sizes_by_tone(tones)}" for arm, tones in done.arms.items()]
    if tests := catalogue.evaluations.test_images() & {image.id for image in chosen}:
        lines.append(
            f"{len(tests)} of these are test images of 'ddiseg evaluate --truth': once their masks are "
            "accepted, the model learns from them and they test it no longer"
        )
    if control and done.given_before:
        lines.append(
            f"with annotators before: {done.given_before}, which stay as they are: --control reaches "
            "new images only"
        )
    report_outcomes(
        settings,
        done.outcomes,
        "images",
        strict=strict,
        extra={
            "project": done.place.url,
            "arms": done.arms,
            "returned": done.returned,
            "given_before": done.given_before,
            "tab": done.tab,
        },
        lines=[
            *lines,
            f"annotate: {done.place.url}",
            *([f"annotate {batch} alone: {done.tab}"] if done.tab else []),
            *([f"returned by the reviewer: {done.returned}"] if done.returned else []),
        ],
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
    images = {i.id: i.name for i in workspace.catalogue.images.select()}
    needs_note = {reason.key for reason in load_protocol().skip_reasons if reason.needs_note}
    unexplained = [
        f"{images[s.image_id]} by {s.annotator}"
        for s in workspace.catalogue.images.skips()
        if s.reason == REASON_MISSING or (s.reason in needs_note and not s.note)
    ]
    report_outcomes(
        settings,
        done.outcomes,
        "annotations",
        strict=strict,
        extra={
            "full": done.full,
            "taken_before": done.taken,
            "problems": done.problems,
            "unexplained_skips": unexplained,
        },
        lines=[
            *taken_lines(done, "annotations", "ddiseg label pull"),
            *(f"still refused  {problem}" for problem in done.problems),
            *(
                f"skipped without saying why: {skip}; ask, then 'ddiseg skip'"
                for skip in unexplained
            ),
        ],
    )
    if strict and done.problems:
        raise DdisegError(f"--strict: {len(done.problems)} annotations are still refused")


COMMANDS: tuple[click.Command, ...] = (push, pull)
