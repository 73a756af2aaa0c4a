"""`fedd pretrain`."""

from __future__ import annotations

from pathlib import Path

import click

from fedd.dataset import PHOTOGRAPHS
from fedd.errors import TrainingDataError


@click.command()
@click.argument("photographs", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the run; the same one resumes it.",
)
@click.option(
    "--only",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text file with the names of the photographs to use, a line each.",
)
@click.option("--name", default="small", show_default=True, help="Name of the backbone.")
@click.option(
    "--steps",
    default=3000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Training steps in all.",
)
@click.option(
    "--batch-size", default=16, show_default=True, type=click.IntRange(min=2), help="Images a step."
)
@click.option(
    "--phantoms",
    default=4000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Rendered phantoms to learn from besides.",
)
@click.option(
    "--teacher",
    type=click.Choice(["efficientnet-lite0", "none"]),
    default="efficientnet-lite0",
    show_default=True,
    help="Encoder whose features guide the network; needs ddiseg[pretrain].",
)
@click.option(
    "--init",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Backbone file to start from.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
def pretrain(
    photographs: Path,
    out: Path,
    only: Path | None,
    name: str,
    steps: int,
    batch_size: int,
    phantoms: int,
    teacher: str,
    init: Path | None,
    seed: int,
) -> None:
    """Train a small backbone on unlabelled PHOTOGRAPHS (a folder), on the CPU.

    About 1.2 s a step on two cores. Stopped or killed, the same command goes on from the last
    checkpoint, at most 100 steps back.
    """
    from fedd.backbone import SMALL
    from fedd.pretrain import PretrainSettings, efficientnet_lite0_teacher
    from fedd.pretrain import pretrain as train
    from fedd.weights import load_backbone

    chosen = _photographs(photographs, only)
    settings = PretrainSettings(steps=steps, batch_size=batch_size, phantoms=phantoms, seed=seed)
    guide = None if teacher == "none" else efficientnet_lite0_teacher(chosen)
    start = load_backbone(str(init)) if init else None
    if start is not None and start.config != SMALL:
        raise TrainingDataError(f"{init} is of another architecture than the small backbone")
    weights = start.net.state_dict() if start is not None else None
    path = train(
        chosen,
        out,
        SMALL,
        settings,
        guide,
        name,
        weights,
        lambda line: click.echo(line, err=True),
    )
    click.echo(path)


def _photographs(folder: Path, only: Path | None) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTOGRAPHS)
    if only is None:
        return found
    wanted = {line.strip() for line in only.read_text().splitlines() if line.strip()}
    chosen = [p for p in found if p.name in wanted]
    if missing := wanted - {p.name for p in chosen}:
        raise TrainingDataError(
            f"{len(missing)} photographs of {only} are not in {folder}, first {min(missing)}"
        )
    return chosen
