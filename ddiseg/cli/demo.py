"""`ddiseg demo`: the whole job on rendered phantoms, through the commands that a user would type."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from pathlib import Path

import click

from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar, run
from ddiseg.errors import DdisegError


@click.command("demo", cls=Command)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Where everything is written.",
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=60),
    default=300,
    show_default=True,
    help="Number of phantoms.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the phantoms and of the sample."
)
@pass_settings
def demo(settings: Settings, folder: Path, count: int, seed: int) -> None:
    """Run every step on rendered phantoms, and show how it is typed.

    Renders a folder in DDI's layout (drawings made by code, no person), imports it, samples 10% of it
    balanced by tone, takes the rendered masks of that part as accepted, trains the model, predicts
    the rest, scores it by tone against the renderer's truth, exports COCO and writes the report.
    Running it again changes nothing.
    """
    from ddiseg.ingest.rendered import LICENCE, SOURCE, render_ddi

    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    started = time.monotonic()
    photographs, truth, work = folder / "photographs", folder / "truth", folder / "workspace"
    per_tone = max(2, count // 30)
    with progress_bar(f"Rendering {count} phantoms") as progress:
        render_ddi(photographs, truth, count, seed, progress)
    common = ["--workspace", str(work)]
    people = ["--annotator", "phantom renderer", "--reviewer", "phantom checker"]
    steps = [
        ["init", str(work)],
        [
            *common,
            "import",
            str(photographs),
            "--dataset",
            "phantoms",
            "--licence",
            LICENCE,
            "--source",
            SOURCE,
            "--synthetic",
        ],
        [
            *common,
            "subset",
            "draw",
            "demo-10-percent",
            "--per-tone",
            str(per_tone),
            "--seed",
            str(seed),
        ],
        [
            *common,
            "masks",
            "import",
            str(truth),
            "--as",
            "png",
            "--subset",
            "demo-10-percent",
            *people,
        ],
        [*common, "refresh", "--seed", str(seed)],
        [*common, "prelabel"],
        [*common, "evaluate", "--truth", str(truth)],
        [*common, "export", "--format", "coco", "--to", str(folder / "coco")],
        [
            *common,
            "export",
            "--format",
            "coco",
            "--include-predictions",
            "--to",
            str(folder / "coco-with-predictions"),
        ],
        [*common, "report", "--to", str(folder / "report.html")],
    ]
    for step in steps:
        _run_step(group, step)
    seconds = round(time.monotonic() - started, 1)
    page = (folder / "report.html").absolute()
    settings.emit(
        {
            "commands": [shlex.join(["ddiseg", *step]) for step in steps],
            "report": str(page),
            "coco": str((folder / "coco" / "annotations.json").absolute()),
            "seconds": seconds,
        },
        f"\nDone in {seconds} s. Open the report in a browser:\n  {page.as_uri()}\n"
        f"The reviewed masks as COCO: {folder / 'coco' / 'annotations.json'}\n"
        "Every line above that starts with $ can be typed as it stands.",
    )


def _run_step(group: click.Group, args: list[str]) -> None:
    """One command, its line first; what it prints is not the demo's result, so it goes to stderr."""
    click.secho(f"\n$ {shlex.join(['ddiseg', *args])}", bold=True, err=True)
    with contextlib.redirect_stdout(sys.stderr):
        status = run(group, args)
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise DdisegError(
            "the step above failed: correct what it says, then run 'ddiseg demo' again to go on from there"
        )
