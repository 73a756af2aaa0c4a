"""`fedd weights`: fetching backbones."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fedd.cli import options

#: Seconds between two lines of progress of a slow transfer.
SILENCE = 15.0


@click.group(cls=options.Group)
def weights() -> None:
    """Backbones that are fetched rather than shipped."""


@weights.command("fetch")
@click.argument("name")
@click.option(
    "--from",
    "file",
    type=options.NEW_FILE,
    help="Checkpoint on this machine, instead of the network.",
)
@click.option("--url", help="Another place to fetch the checkpoint from.")
@click.option("--sha256", help="SHA-256 of another checkpoint of the same network.")
@click.option(
    "--to",
    "folder",
    type=options.NEW_FOLDER,
    help="Folder to store it in, instead of the user's cache.",
)
@click.option(
    "--blocks",
    metavar="LIST",
    callback=options.numbers,
    help="Decoder blocks to store the network for, such as 6,8; by default all that the paper uses.",
)
@click.option("--half", is_flag=True, help="Store in float16: half the size, slightly rounded.")
def fetch_command(
    name: str,
    file: Path | None,
    url: str | None,
    sha256: str | None,
    folder: Path | None,
    blocks: tuple[int, ...] | None,
    half: bool,
) -> None:
    """Fetch the backbone NAME (imagenet-256: OpenAI's, 2.2 GB, the one of the paper).

    If it is interrupted, the same command resumes it. The checkpoint is checked by its SHA-256, and the
    layers that no chosen block needs are left out. Afterwards every command knows the backbone by NAME;
    with --to, by its path.
    """
    from fedd.weights.fetch import fetch
    from fedd.weights.sources import source

    chosen = source(name).elsewhere(url, sha256)
    found = fetch(chosen, folder, file, blocks or (), half, _Progress())
    if found.bytes_before is None:
        click.echo(f"{found.path} is already stored, to decoder block {found.last_block}")
        return
    share = found.bytes_after / found.bytes_before
    click.echo(
        f"{found.path}: {found.bytes_before:,} bytes fetched, {found.bytes_after:,} kept ({share:.1%}), "
        f"to decoder block {found.last_block}"
    )


class _Progress:
    """A line on stderr every 5% of a transfer (100 MB if its size is unknown), or every 15 s."""

    def __init__(self) -> None:
        self._next, self._shown = 0.0, time.monotonic()

    def __call__(self, done: int, whole: int | None) -> None:
        if done < self._next and time.monotonic() - self._shown < SILENCE:
            return
        self._shown = time.monotonic()
        of = f" of {whole / 1e6:,.0f}" if whole else ""
        click.echo(f"{done / 1e6:,.0f}{of} MB", err=True)
        self._next = done + (whole / 20 if whole else 1e8)
