"""`ddiseg label push`: give images to annotators."""

from __future__ import annotations

from typing import Any

import click

from ddiseg.cli.common import (
    Command,
    Settings,
    connection_of,
    pass_settings,
    progress_stages,
    report_outcomes,
    sizes_by_tone,
)
from ddiseg.cli.params import setting_options


@click.command("push", cls=Command)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--subset", help="Only images of this subset.")
@click.option("--batch", help="Only images of this batch.")
@setting_options("study.control", "study.readers", "study.sample", "study.seed", "study.hide-tone")
@click.option(
    "--longest",
    type=click.IntRange(64, 8192),
    default=1600,
    show_default=True,
    help="Longest side in pixels of the copies that people see; masks scale back exactly.",
)
@click.option("--strict", is_flag=True, help="Fail if any image is refused.")
@pass_settings
def push(
    settings: Settings,
    /,
    images: tuple[str, ...],
    subset: str | None,
    batch: str | None,
    longest: int,
    strict: bool,
    **given: Any,
) -> None:
    """Give images to annotators in Label Studio, with the newest prediction as a draft.

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
    workspace = settings.open()
    study = workspace.study(**given)
    options = PushOptions(
        study.control, study.readers, study.sample, not study.hide_tone, longest, study.seed
    )
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
    if study.control and done.given_before:
        lines.append(
            f"with annotators before: {done.given_before}, which stay as they are: a control arm takes "
            "new images only"
        )
    report_outcomes(
        settings,
        done.outcomes,
        "images",
        strict=strict,
        extra={
            "project": done.project.url,
            "arms": done.arms,
            "returned": done.returned,
            "given_before": done.given_before,
            "tab": done.tab,
        },
        lines=[
            *lines,
            f"annotate: {done.project.url}",
            *([f"annotate {batch} alone: {done.tab}"] if done.tab else []),
            *([f"returned by the reviewer: {done.returned}"] if done.returned else []),
        ],
    )
