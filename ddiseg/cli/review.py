"""`ddiseg review`: a second person looks at every mask, in Label Studio or in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import (
    Command,
    Group,
    Settings,
    common_options,
    connection_of,
    pass_settings,
    progress_bar,
    progress_stages,
    report_outcomes,
    report_pull,
)
from ddiseg.cli.params import Percent, setting_options
from ddiseg.errors import DdisegError, InputError, WorkspaceError
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.catalogue.tables import Image, Mask
    from ddiseg.workspace.workspace import Workspace


@click.group("review", cls=Group, params=common_options())
def review() -> None:
    """Have a second person review submitted masks."""


@review.command("push", cls=Command)
@click.option(
    "--sample",
    "review_sample",
    type=Percent(),
    help="Spot check: only this share of the masks, the same of every tone.  [default: "
    "study.review-sample of 'ddiseg config show']",
)
@setting_options("study.seed")
@click.option("--strict", is_flag=True, help="Fail if any mask is refused.")
@pass_settings
def push(settings: Settings, review_sample: float | None, seed: int | None, strict: bool) -> None:
    """Send submitted masks to review in Label Studio, where each person has a tab without their own.

    Masks that a spot check leaves out stay submitted and are counted; a later run with --sample 100
    sends them too.
    """
    from ddiseg.labelstudio.review import push_reviews
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    study = workspace.study(review_sample=review_sample, seed=seed)
    connection = connection_of(workspace)
    with progress_stages() as stages:
        done = push_reviews(
            workspace, connection, study.review_sample, study.seed, default_actor(), stages
        )
    lines = [f"review as {person}: {url}" for person, url in done.tabs.items()]
    if done.unsampled:
        lines.insert(
            0, f"not sampled, so not reviewed; still submitted: {counted(done.unsampled, 'mask')}"
        )
    report_outcomes(
        settings,
        done.outcomes,
        "masks",
        strict=strict,
        extra={"unsampled": done.unsampled, "tabs": done.tabs, "project": done.project.url},
        lines=lines,
    )


@review.command("pull", cls=Command)
@click.option("--full", is_flag=True, help="Read every task again, not only what changed.")
@click.option("--strict", is_flag=True, help="Fail if any verdict is refused.")
@pass_settings
def pull(settings: Settings, full: bool, strict: bool) -> None:
    """Bring back verdicts from Label Studio.

    accept: the mask is accepted. fixed: the reviewer's mask is, with the annotator's as its parent.
    reject: the image goes back to its annotator, who finds the comment above the picture. What
    'ddiseg serve' or a round has taken since the last time is counted too.
    """
    from ddiseg.catalogue import Purpose
    from ddiseg.labelstudio.pull import pull_and_compare
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    connection = connection_of(workspace)
    with progress_bar("Reading reviews") as progress:
        done = pull_and_compare(
            workspace, connection, Purpose.REVIEW, default_actor(), full=full, progress=progress
        )
    report_pull(
        settings,
        done,
        "verdict",
        "ddiseg review pull",
        strict=strict,
        extra={"returned": done.returned},
        lines=[f"returned by the reviewer: {done.returned}"] if done.returned else [],
    )


@review.command("list", cls=Command)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a picture of each, photograph and masks side by side.",
)
@pass_settings
def list_reviews(settings: Settings, pictures: Path | None) -> None:
    """List the masks that wait for review, and who may not review them."""
    from ddiseg.report.contact_sheet import write_picture

    workspace = settings.open()
    waiting = workspace.catalogue.masks.in_review()
    people = workspace.catalogue.masks.people_behind([m.id for m in waiting.values()])
    images = workspace.catalogue.images.select(ids=list(waiting))
    rows: list[dict[str, Any]] = []
    for image in images:
        mask = waiting[image.id]
        row = {
            "id": image.id,
            "name": image.name,
            "tone": image.tone,
            "drawn_by": people[mask.id],
            "drawn_at": mask.created_at,
        }
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            path = pictures / f"{image.id}-{Path(image.name).stem}.png"
            path.unlink(missing_ok=True)
            try:
                write_picture(workspace, image, path)
                row["picture"] = str(path)
            except (InputError, WorkspaceError) as error:
                row["no_picture"] = str(error)
        rows.append(row)
    lines = [f"{counted(len(rows), 'mask')} to review"]
    lines += [
        f"  {r['name']} (#{r['id']}), tone {r['tone']}, drawn by {', '.join(r['drawn_by'])} "
        f"{str(r['drawn_at'])[:16].replace('T', ' ')} UTC"
        + (f": {r.get('picture') or r['no_picture']}" if pictures else "")
        for r in rows
    ]
    settings.emit({"waiting": rows}, "\n".join(lines))
    if pictures is not None and rows and not any("picture" in row for row in rows):
        raise DdisegError(f"no picture could be written, first: {rows[0]['no_picture']}")


@review.command("accept", cls=Command)
@click.argument("image")
@click.option("--reviewer", help="Who says so.  [default: your user name]")
@click.option("--comment", help="A remark.")
@pass_settings
def accept(settings: Settings, image: str, reviewer: str | None, comment: str | None) -> None:
    """Accept the mask of IMAGE that waits for review."""
    _decide(settings, image, reviewer, "accept", comment)


@review.command("reject", cls=Command)
@click.argument("image")
@click.option("--reviewer", help="Who says so.  [default: your user name]")
@click.option("--comment", required=True, help="What the annotator should correct.")
@pass_settings
def reject(settings: Settings, image: str, reviewer: str | None, comment: str) -> None:
    """Send IMAGE back to its annotator, who finds the comment above the picture after the next push."""
    _decide(settings, image, reviewer, "reject", comment)


def _decide(
    settings: Settings, name: str, reviewer: str | None, verdict: str, comment: str | None
) -> None:
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    image, mask = _waiting(workspace, name)
    who = reviewer or default_actor()
    comment = (comment or "").strip() or None
    if verdict == "reject" and comment is None:
        raise InputError("--comment is empty: say what the annotator should correct")
    workspace.catalogue.masks.review(mask.id, who, verdict, comment)
    state = workspace.catalogue.images.find(f"#{image.id}").state
    settings.emit(
        {"id": image.id, "name": image.name, "verdict": verdict, "state": state},
        f"{image.name} (#{image.id}): {state}",
    )


def _waiting(workspace: Workspace, name: str) -> tuple[Image, Mask]:
    image = workspace.catalogue.images.find(name)
    mask = workspace.catalogue.masks.in_review().get(image.id)
    if mask is None:
        raise InputError(
            f"{image.name} has no mask in review (it is {image.state}): 'ddiseg review list' shows "
            "what waits"
        )
    return image, mask
