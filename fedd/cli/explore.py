"""`fedd kmeans` and `fedd ablate`: which blocks and timesteps to read."""

from __future__ import annotations

from pathlib import Path

import click

from fedd.cli import options
from fedd.errors import ExplorationError


@click.command(cls=options.Command)
@click.argument("photographs", type=options.FILE, nargs=-1, required=True)
@click.option(
    "--k", default=3, show_default=True, type=click.IntRange(2, 8), help="Clusters in each map."
)
@options.blocks("4,6,8,12 of the ImageNet network, 1,3,5,7 of the small one")
@options.timesteps("50,250,500", "Timesteps.")
@options.BACKBONE
@options.devices("cpu")
@options.PRECISION
@options.seed("K-means")
@options.out("Figure to write (.png, .svg or .pdf); several pages are numbered.")
def kmeans(
    photographs: tuple[Path, ...],
    k: int,
    blocks: tuple[int, ...] | None,
    timesteps: tuple[int, ...],
    backbone: str,
    device: str,
    precision: str,
    seed: int,
    out: Path,
) -> None:
    """Draw each block's activations and their K-means clusters for the PHOTOGRAPHS.

    A column is a block at a timestep, as in the paper's supplementary figure 1: above, the mean of the
    activations over the channels; below, the activations in K clusters, both up-sampled to the photograph.
    Choose blocks whose clusters follow the lesion.
    """
    from fedd.dataset import DatasetImage
    from fedd.explore.clusters import default_blocks, write_cluster_maps
    from fedd.precision import place_in
    from fedd.weights.files import load_backbone

    net = place_in(load_backbone(backbone), device, precision)
    opened = [(path.name, DatasetImage(path).photograph()) for path in photographs]
    chosen = default_blocks(net.config) if blocks is None else blocks
    for path, shown in write_cluster_maps(opened, net, chosen, timesteps, out, k=k, seed=seed):
        click.echo(f"{path}: {shown}")


@click.command(cls=options.Command)
@click.argument("photographs", type=options.FOLDER)
@click.option(
    "--masks",
    type=options.FOLDER,
    help="Folder of masks with the photographs' names; for segmentation.",
)
@options.TABLE
@click.option(
    "--task",
    type=click.Choice(["segmentation", "classification", "both"]),
    default="both",
    show_default=True,
    help="Task of the cells.",
)
@options.blocks("2,4,...,14 of the ImageNet network, all of another")
@options.timesteps(
    ",".join(map(str, range(0, 1001, 50))),
    "Timesteps; 1000 is replaced by 999, the last of the schedule.",
    shown="0,50,...,1000",
)
@click.option(
    "--test",
    type=options.FILE,
    help="Text file with the photographs of the test split, one name per line.",
)
@click.option(
    "--test-share",
    default=0.3,
    show_default=True,
    type=options.SHARE,
    help="Share of the test split, without --test.",
)
@options.BACKBONE
@options.devices("cpu")
@options.PRECISION
@options.seed("the split and the trainings")
@options.out("Folder of the run; a stopped run in it is resumed.", options.NEW_FOLDER)
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
    precision: str,
    seed: int,
    out: Path,
) -> None:
    """Train and test on each block at each timestep, as in the paper's figure 6.

    The PHOTOGRAPHS (a folder) are split by patient. Each passes through the backbone once per timestep,
    for all blocks. OUT gets grid.csv (every cell by tone, with n and interval) and the heat maps: the
    lesion's IoU, the accuracy at probability 0.5 and the ROC-AUC of malignant. If it is stopped or
    killed, the same command resumes it after the last finished timestep.
    """
    from dataclasses import replace

    from fedd.dataset import read_dataset
    from fedd.explore.ablation import TASKS, Ablation, Grid, default_blocks, split
    from fedd.explore.cells import AblationSettings
    from fedd.explore.cost import ablation_cost
    from fedd.malignancy.classifier import default_settings as default_classifier
    from fedd.precision import place_in, trial_of_masks
    from fedd.segment import default_settings
    from fedd.weights.files import load_backbone

    loaded = load_backbone(backbone)
    tasks = tuple(t for t in TASKS if task in (t, "both"))
    chosen = default_blocks(loaded.config) if blocks is None else blocks
    grid = Grid(chosen, timesteps, tasks)
    if 1000 in timesteps:
        click.echo("t = 1000 is replaced by 999, the last timestep of the schedule", err=True)
    named = None if test is None else _stems(test)
    parts = split(
        read_dataset(photographs, table, masks), tasks, test=named, share=test_share, seed=seed
    )
    for each in tasks:
        (learned,), (tested,) = parts.learned[each].values(), parts.measured[each].values()
        click.echo(
            f"{each}: learns from {len(learned)} photographs, tested on {len(tested)}", err=True
        )
    if parts.left_out:
        click.echo(f"{parts.left_out} photographs of the test split's patients left out", err=True)
    most = max(len(items) for of_task in parts.learned.values() for items in of_task.values())
    settings = AblationSettings(
        replace(default_settings(loaded), seed=seed),
        replace(default_classifier(loaded.config, most), seed=seed),
    )
    with_masks = (
        next(iter(parts.learned["segmentation"].values())) if "segmentation" in tasks else ()
    )
    net = place_in(loaded, device, precision, trial_of_masks(with_masks, settings.probes))
    ablation = Ablation(parts, net, grid, settings, out)
    for line in ablation_cost(ablation, net.config).lines(net, out):
        click.echo(line, err=True)
    figures = ablation.run(options.progress("cells"))
    click.echo(out / "grid.csv")
    for path in figures:
        click.echo(path)


def _stems(path: Path) -> set[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ExplorationError(
            f"{path} is not UTF-8 text, byte {error.start} is {error.object[error.start]:#04x}: save "
            "it as UTF-8, one photograph's name per line"
        ) from error
    stems = {Path(name).stem for name in names if name}
    if not stems:
        raise ExplorationError(f"{path} names no photograph: give one name per line")
    return stems
