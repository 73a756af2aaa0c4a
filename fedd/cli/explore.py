"""`fedd kmeans` and `fedd ablate`: which blocks and timesteps to read."""

from __future__ import annotations

from pathlib import Path

import click

from fedd.cli import options
from fedd.errors import ExplorationError


def _numbers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Whole numbers with commas between them, each once."""
    if value is None:
        return None
    try:
        return tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of whole numbers, such as 2,4,6", context, parameter
        ) from error


@click.command()
@click.argument(
    "photographs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    nargs=-1,
    required=True,
)
@click.option(
    "--k", default=3, show_default=True, type=click.IntRange(2, 8), help="Clusters of each map."
)
@click.option(
    "--blocks",
    metavar="N,N,...",
    callback=_numbers,
    help="Decoder blocks.  [default: 4,6,8,12 of the ImageNet network, 1,3,5,7 of the small one]",
)
@click.option(
    "--timesteps",
    metavar="N,N,...",
    callback=_numbers,
    default="50,250,500",
    show_default=True,
    help="Timesteps.",
)
@options.BACKBONE
@options.devices("cpu")
@options.seed("K-means")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Figure to write (.png, .svg or .pdf); several pages get numbered names.",
)
def kmeans(
    photographs: tuple[Path, ...],
    k: int,
    blocks: tuple[int, ...] | None,
    timesteps: tuple[int, ...],
    backbone: str,
    device: str,
    seed: int,
    out: Path,
) -> None:
    """Draw what each block of a backbone sees in the PHOTOGRAPHS.

    A row is a photograph, a column a block at a timestep: the activations there, up-sampled to the
    photograph and put into K clusters, as in the paper's supplementary figure. A block whose
    clusters follow the lesion is one to read.
    """
    from fedd.backbone import place
    from fedd.dataset import DatasetImage
    from fedd.explore.clusters import default_blocks, write_cluster_maps
    from fedd.weights.files import load_backbone

    net = place(load_backbone(backbone), device)
    opened = [(path.name, DatasetImage(path).photograph()) for path in photographs]
    chosen = default_blocks(net.config) if blocks is None else blocks
    for path, shown in write_cluster_maps(opened, net, chosen, timesteps, out, k=k, seed=seed):
        click.echo(f"{path}: {shown}")


@click.command()
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--masks",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of masks, named as the photographs; for segmentation.",
)
@click.option(
    "--table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with tone, patient and malignancy.  [default: DDI's, where it is there]",
)
@click.option(
    "--task",
    type=click.Choice(["segmentation", "classification", "both"]),
    default="both",
    show_default=True,
    help="What the cells are trained for.",
)
@click.option(
    "--blocks",
    metavar="N,N,...",
    callback=_numbers,
    help="Decoder blocks.  [default: 2,4,...,14 of the ImageNet network, all of another]",
)
@click.option(
    "--timesteps",
    metavar="N,N,...",
    callback=_numbers,
    default=",".join(map(str, range(0, 1001, 50))),
    show_default="0,50,...,1000",
    help="Timesteps; 1000 is taken as 999, the last of the schedule.",
)
@click.option(
    "--test",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text file with the photographs of the test part, a name a line.",
)
@click.option(
    "--test-share",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the test part, where no --test names it.",
)
@options.BACKBONE
@options.devices("cpu")
@options.seed("the split and the trainings")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the run; the same one resumes it.",
)
def ablate(
    photographs: Path,
    masks: Path | None,
    table: Path | None,
    task: str,
    blocks: tuple[int, ...] | None,
    timesteps: tuple[int, ...],
    test: Path | None,
    test_share: float,
    backbone: str,
    device: str,
    seed: int,
    out: Path,
) -> None:
    """Train and test on each block at each timestep, as the paper's figure 6 does.

    The PHOTOGRAPHS (a folder) are split by patient. Each passes through the backbone once a
    timestep, for all blocks. OUT gets grid.csv (every cell by tone, with n and interval) and the
    heat maps. Stopped or killed, the same command goes on after the last finished timestep.
    """
    from dataclasses import replace

    from fedd.backbone import place
    from fedd.dataset import read_dataset
    from fedd.explore.ablation import TASKS, Grid, default_blocks, split
    from fedd.explore.ablation import ablate as run
    from fedd.explore.cells import AblationSettings
    from fedd.malignancy.classifier import default_settings as default_classifier
    from fedd.segment import default_settings
    from fedd.weights.files import load_backbone

    net = place(load_backbone(backbone), device)
    tasks = tuple(t for t in TASKS if task in (t, "both"))
    chosen = default_blocks(net.config) if blocks is None else blocks
    grid = Grid(chosen, timesteps, tasks)
    if 1000 in timesteps:
        click.echo("t = 1000 is taken as 999, the last timestep of the schedule", err=True)
    named = None if test is None else _stems(test)
    parts = split(
        read_dataset(photographs, table, masks), tasks, test=named, share=test_share, seed=seed
    )
    for each in tasks:
        click.echo(
            f"{each}: learns from {len(parts.learned[each])} photographs, "
            f"tested on {len(parts.tested[each])}",
            err=True,
        )
    if parts.left_out:
        click.echo(f"{parts.left_out} photographs of the test part's patients left out", err=True)
    learned = max(len(of_task) for of_task in parts.learned.values())
    settings = AblationSettings(
        replace(default_settings(net.config), seed=seed),
        replace(default_classifier(net.config, learned), seed=seed),
    )
    run(parts, net, grid, settings, out, _tell)
    click.echo(f"{out / 'grid.csv'}")
    for each in tasks:
        click.echo(f"{out / f'figure6-{each}.png'}")


def _stems(path: Path) -> set[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ExplorationError(
            f"{path} is no UTF-8 text, byte {error.start} is {error.object[error.start]:#04x}: save "
            "it as UTF-8, a photograph's name a line"
        ) from error
    stems = {Path(name).stem for name in names if name}
    if not stems:
        raise ExplorationError(f"{path} names no photograph: give a name a line")
    return stems


def _tell(done: int, total: int) -> None:
    click.echo(f"{done} of {total} cells", err=True)
