"""`fedd pretrain`: a backbone from one's own photographs."""

from __future__ import annotations

from pathlib import Path

import click

from fedd.cli import options
from fedd.errors import TrainingDataError


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
@click.option(
    "--init",
    metavar="NAME|FILE",
    help="Backbone to continue from, of any architecture: 'small' or a weights file.",
)
@click.option(
    "--score",
    type=options.FILE,
    help="CSV of photographs with masks (set, photograph, mask, patient) that a curve is measured on, by cross-validation.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting, such as batch_size=8; may be given several times.",
)
@options.DEVICE
def pretrain(
    photographs: Path,
    out: Path,
    only: Path | None,
    name: str | None,
    steps: int,
    init: str | None,
    score: Path | None,
    changes: tuple[str, ...],
    device: str,
) -> None:
    """Train a backbone on unlabelled PHOTOGRAPHS (a folder).

    It has the architecture of the small one and starts from random weights; with --init it continues
    from another UNet of any architecture. An ImageNet encoder guides it. About 1.2 s a step on two
    cores for the small one. If it is stopped or killed, the same command resumes it from the last checkpoint,
    at most 100 steps back; with more --steps it goes on from its end.

    \b
    Settings of --set, among others:
      learning_rate=1e-4  highest rate (4e-4; 1e-4 with --init)
      batch_size=16       images a step
      phantoms=4000       rendered images with masks
      composite_share=1   of the phantoms, drawn on the photographs' own skin
      pair_share=0.25     of a batch, photographs without and with pen or ruler
      masked_share=0.4    of the patches, hidden from the network
      align_weight=0.5    of the encoder's features in the loss; 0: no encoder
      zoom=0.3,1.6        width of a view, in widths of the photograph
      image_size=192      of the network: a wider view
      heads_first=100     steps in which the network stands still, with --init
      score_every=250     steps between points of the curve of --score
      seed=0              of everything random
    """
    from fedd.backbone import SMALL
    from fedd.pretrain.curve import read_score_table
    from fedd.pretrain.encoder import efficientnet_lite0_teacher
    from fedd.pretrain.pretrain import PretrainSettings
    from fedd.pretrain.pretrain import pretrain as train
    from fedd.pretrain.settings import SCRATCH_RATE, TUNING_RATE, with_changes
    from fedd.weights.files import load_unet

    chosen = _photographs(photographs, only)
    start = load_unet(init) if init else None
    rate = TUNING_RATE if start else SCRATCH_RATE
    settings = with_changes(PretrainSettings(steps=steps, learning_rate=rate), changes)
    table = read_score_table(score) if score else None
    path = train(
        chosen,
        out,
        start or SMALL,
        settings,
        efficientnet_lite0_teacher(chosen, device) if settings.align_weight else None,
        name or (f"{start.name}-tuned" if start else "small"),
        score=table,
        device=device,
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
