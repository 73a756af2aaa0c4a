"""`fedd pretrain`: a backbone from one's own photographs."""

from __future__ import annotations

from pathlib import Path

import click

from fedd.cli import options
from fedd.errors import TrainingDataError

#: Highest learning rates: from random weights, and from weights that know something already.
SCRATCH_RATE, TUNING_RATE = 4e-4, 1e-4


@click.command(cls=options.Command)
@click.argument("photographs", type=click.Path(exists=True, path_type=Path))
@options.out("Folder of the run; a stopped run in it is resumed.", options.NEW_FOLDER)
@click.option(
    "--only",
    type=options.FILE,
    help="Text file with the names of the photographs to use, one per line.",
)
@click.option(
    "--name",
    help="Name of the backbone.  [default: small, or NAME-tuned of the one it starts from]",
)
@options.count("--steps", 3000, "Training steps in total.")
@options.count("--batch-size", 16, "Images per step.", least=2)
@options.count("--phantoms", 4000, "Rendered phantoms to learn from in addition.", least=0)
@click.option(
    "--teacher",
    type=click.Choice(["efficientnet-lite0", "none"]),
    default="efficientnet-lite0",
    show_default=True,
    help="Encoder whose features guide the network.",
)
@click.option(
    "--init",
    metavar="NAME|FILE",
    help="Backbone to continue from, of any architecture: 'small' or a weights file.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Highest learning rate.  [default: {SCRATCH_RATE}, {TUNING_RATE} with --init]",
)
@options.seed()
def pretrain(
    photographs: Path,
    out: Path,
    only: Path | None,
    name: str | None,
    steps: int,
    batch_size: int,
    phantoms: int,
    teacher: str,
    init: str | None,
    learning_rate: float | None,
    seed: int,
) -> None:
    """Train a backbone on unlabelled PHOTOGRAPHS (a folder), on the CPU.

    It has the architecture of the small one and starts from random weights; with --init it continues
    from another backbone of any architecture. About 1.2 s per step on two cores for the small one. If it
    is stopped or killed, the same command resumes it from the last checkpoint, at most 100 steps back.
    """
    from fedd.backbone import SMALL
    from fedd.pretrain.encoder import efficientnet_lite0_teacher
    from fedd.pretrain.pretrain import PretrainSettings
    from fedd.pretrain.pretrain import pretrain as train
    from fedd.weights.files import load_unet

    chosen = _photographs(photographs, only)
    start = load_unet(init) if init else None
    settings = PretrainSettings(
        steps=steps,
        batch_size=batch_size,
        phantoms=phantoms,
        learning_rate=learning_rate or (TUNING_RATE if start else SCRATCH_RATE),
        seed=seed,
    )
    path = train(
        chosen,
        out,
        start or SMALL,
        settings,
        efficientnet_lite0_teacher(chosen) if teacher != "none" else None,
        name or (f"{start.name}-tuned" if start else "small"),
    )
    click.echo(path)


def _photographs(folder: Path, only: Path | None) -> list[Path]:
    from fedd.dataset import PHOTOGRAPHS

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
