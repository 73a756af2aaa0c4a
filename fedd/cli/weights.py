"""`fedd weights`."""

from __future__ import annotations

import time
from pathlib import Path

import click

#: Seconds after which a slow transfer says how far it is.
SILENCE = 15.0


@click.group()
def weights() -> None:
    """Backbones that are fetched rather than shipped."""


@weights.command("fetch")
@click.argument("name")
@click.option(
    "--from",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Checkpoint on this machine, instead of the network.",
)
@click.option("--url", help="Another place to fetch the checkpoint from.")
@click.option("--sha256", help="SHA-256 of another checkpoint of the same network.")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to keep it in, instead of the user's cache.",
)
@click.option(
    "--blocks",
    metavar="LIST",
    help="Decoder blocks to keep the network for, such as 6,8; by default all that the paper uses.",
)
@click.option("--half", is_flag=True, help="Store in float16: half the size, slightly rounded.")
def fetch_command(
    name: str,
    file: Path | None,
    url: str | None,
    sha256: str | None,
    folder: Path | None,
    blocks: str | None,
    half: bool,
) -> None:
    """Fetch the backbone NAME (imagenet-256: OpenAI's, 2.2 GB, the one of the paper).

    Broken off, the same command goes on where it stopped. The checkpoint is checked by its SHA-256,
    and the layers that no chosen block needs are left out. Afterwards the backbone is known by NAME
    wherever one is asked for; with --to, by its path.
    """
    from fedd.weights.fetch import fetch
    from fedd.weights.sources import source

    wanted = _blocks(blocks) if blocks else ()
    found = fetch(
        source(name).elsewhere(url, sha256),
        folder,
        file,
        wanted,
        half,
        _Progress(),
        lambda line: click.echo(line, err=True),
    )
    if found.bytes_before is None:
        click.echo(f"{found.path} is there already, to decoder block {found.last_block}")
        return
    share = found.bytes_after / found.bytes_before
    click.echo(
        f"{found.path}: {found.bytes_before:,} bytes fetched, {found.bytes_after:,} kept ({share:.1%}), "
        f"to decoder block {found.last_block}"
    )


def _blocks(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(block) for block in text.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no list of blocks such as 6,8", param_hint="--blocks"
        ) from error


class _Progress:
    """A line on stderr each 5% of a transfer (100 MB where its size is not known), or each 15 s."""

    def __init__(self) -> None:
        self._next, self._said = 0.0, time.monotonic()

    def __call__(self, done: int, whole: int | None) -> None:
        if done < self._next and time.monotonic() - self._said < SILENCE:
            return
        self._said = time.monotonic()
        of = f" of {whole / 1e6:,.0f}" if whole else ""
        click.echo(f"{done / 1e6:,.0f}{of} MB", err=True)
        self._next = done + (whole / 20 if whole else 1e8)
